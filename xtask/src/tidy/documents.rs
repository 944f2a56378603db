//! The README's code map and the changelog.

use super::Finding;
use super::tree::{Tree, lines};
use crate::workspace::Metadata;

const README: &str = "README.md";
const CHANGELOG: &str = "CHANGELOG.md";

pub(super) fn check(tree: &Tree, metadata: &Metadata) -> Vec<Finding> {
    let names: Vec<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let mut findings = code_map(tree.get(README).unwrap_or_default(), &names);
    findings.extend(changes(tree.get(CHANGELOG).unwrap_or_default(), &names));
    findings
}

/// Each crate has a paragraph in the code map, which begins with the crate's name and states an invariant.
fn code_map(readme: &str, names: &[&str]) -> Vec<Finding> {
    let paragraphs: Vec<&str> = readme.split("\n\n").collect();
    let mut findings = Vec::new();
    for name in names {
        match paragraphs.iter().find(|paragraph| paragraph.starts_with(&format!("**`{name}`**"))) {
            None => findings.push(Finding::new(
                README,
                0,
                format!("the code map has no paragraph for {name}: add one that begins with **`{name}`**"),
            )),
            Some(paragraph) if !paragraph.contains("**Architecture invariant:**") => {
                let line = lines(readme).find(|(_, line)| paragraph.starts_with(line) && !line.is_empty());
                let message = format!("the paragraph for {name} states no **Architecture invariant:**");
                findings.push(Finding::new(README, line.map_or(0, |(number, _)| number), message));
            }
            Some(_) => {}
        }
    }
    findings
}

/// Each crate has a section in the changelog.
fn changes(changelog: &str, names: &[&str]) -> Vec<Finding> {
    let absent = names.iter().filter(|name| !changelog.lines().any(|line| line == format!("### {name}")));
    absent
        .map(|name| Finding::new(CHANGELOG, 0, format!("has no section for {name}: add `### {name}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_map_has_each_crate_with_its_invariant() {
        let readme =
            "# A\n\n**`one`** in `one/`. x\n**Architecture invariant:** y.\n\n**`two`** in `two/`. z\n";
        assert_eq!(code_map(readme, &["one"]), []);
        let found = code_map(readme, &["one", "two", "three"]);
        assert_eq!(found.len(), 2);
        assert!(found[0].to_string().starts_with("README.md:6: "), "{found:?}");
        assert!(found[1].message.contains("no paragraph for three"), "{found:?}");
    }

    #[test]
    fn the_changelog_has_a_section_a_crate() {
        let changelog = "# Changelog\n\n## [Unreleased]\n\n### one\n";
        assert_eq!(changes(changelog, &["one"]), []);
        assert_eq!(changes(changelog, &["one", "on"]).len(), 1);
    }
}
