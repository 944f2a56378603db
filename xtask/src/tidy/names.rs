//! What things may be called, and what may lie at the top level.

use super::Finding;
use super::tree::Tree;

/// The folders and files at the top level; `DESIGN` means the first seven, the rest is what cargo and licences need.
const TOP: [&str; 11] = [
    "Cargo.toml",
    "drivers",
    "core",
    "conformance",
    "engines",
    "xtask",
    "README.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Module names that say nothing of what is in the module.
const EMPTY_NAMES: [&str; 8] = ["core", "util", "utils", "helper", "helpers", "common", "misc", "shared"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in tree.top.iter().filter(|name| !TOP.contains(&name.as_str())) {
        let message = format!("does not belong at the top level, which holds only {}", TOP.join(", "));
        findings.push(Finding::new(name.as_str(), 0, message));
    }
    for name in TOP.iter().filter(|name| !tree.top.contains(**name)) {
        findings.push(Finding::new(*name, 0, "is missing from the top level"));
    }
    for (path, _) in tree.rust() {
        let mut parts =
            path.trim_end_matches(".rs").split('/').skip_while(|part| *part != "src" && *part != "tests");
        if let Some(name) = parts.find(|part| EMPTY_NAMES.contains(part)) {
            let message = format!("\"{name}\" does not say what is in the module: name it after its subject");
            findings.push(Finding::new(path, 0, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<(&'static str, &'static str)> {
        TOP.iter().map(|name| (*name, "")).collect()
    }

    #[test]
    fn the_top_level_is_fixed() {
        assert_eq!(check(&Tree::of(&whole())), []);
        let mut files = whole();
        files.push(("docs/a.md", ""));
        assert_eq!(check(&Tree::of(&files))[0].file, "docs");
        let found = check(&Tree::of(&whole()[1..]));
        assert_eq!(found[0].to_string(), "Cargo.toml: is missing from the top level");
    }

    #[test]
    fn a_module_is_named_after_its_subject() {
        for path in [
            "core/src/utils.rs",
            "core/src/helpers/mod.rs",
            "xtask/src/common.rs",
            "drivers/vfs/tests/misc.rs",
        ] {
            let mut files = whole();
            files.push((path, ""));
            assert_eq!(check(&Tree::of(&files)).len(), 1, "{path}");
        }
        let mut files = whole();
        files.push(("core/src/driver.rs", ""));
        assert_eq!(check(&Tree::of(&files)), []);
    }
}
