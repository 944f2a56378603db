//! The drivers: the same files in each, and one string for each.

use super::Finding;
use super::tree::{Tree, lines};

/// What each driver's folder holds, so that who knows one driver knows where to look in all.
const FILES: [&str; 9] = [
    "Cargo.toml",
    "README.md",
    "src/driver.rs",
    "src/layout.rs",
    "src/lib.rs",
    "src/options.rs",
    "src/probe.rs",
    "src/sys.rs",
    "tests/conformance.rs",
];

const FACADE: &str = "drivers/Cargo.toml";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in tree.driver_folders() {
        same_files(tree, folder, &mut findings);
        one_string(tree, folder, &mut findings);
        only_declares(tree, folder, &mut findings);
    }
    for feature in features(tree.get(FACADE).unwrap_or_default()) {
        if !tree.driver_folders().contains(feature) {
            findings.push(Finding::new(
                FACADE,
                0,
                format!("the feature \"{feature}\" has no folder drivers/{feature}"),
            ));
        }
    }
    findings
}

fn same_files(tree: &Tree, folder: &str, findings: &mut Vec<Finding>) {
    for file in FILES {
        let path = format!("drivers/{folder}/{file}");
        if tree.get(&path).is_none() {
            findings.push(Finding::new(path, 0, "is missing: every driver has the same files"));
        }
    }
}

fn one_string(tree: &Tree, folder: &str, findings: &mut Vec<Finding>) {
    let manifest = format!("drivers/{folder}/Cargo.toml");
    let package = format!("layerstack-{folder}");
    let named = |line: &str| {
        line.split_once('=')
            .is_some_and(|(key, value)| key.trim() == "name" && value.trim() == format!("\"{package}\""))
    };
    if !tree.get(&manifest).unwrap_or_default().lines().any(named) {
        findings.push(Finding::new(
            manifest,
            0,
            format!("the package in drivers/{folder} is to be named \"{package}\""),
        ));
    }
    if !features(tree.get(FACADE).unwrap_or_default()).contains(&folder) {
        findings.push(Finding::new(
            FACADE,
            0,
            format!("has no feature \"{folder}\" for the driver in drivers/{folder}"),
        ));
    }
    let prefix = format!("drivers/{folder}/src/");
    let sources: Vec<(&str, &str)> = tree.rust().filter(|(path, _)| path.starts_with(&prefix)).collect();
    let Some((path, registration)) = sources
        .iter()
        .find_map(|(path, text)| text.split_once("register_driver!").map(|(_, after)| (*path, after)))
    else {
        findings.push(Finding::new(prefix, 0, "registers no driver: call register_driver! once"));
        return;
    };
    let field = registration.split_once("name:").map_or("", |(_, after)| after);
    let value = field.split(',').next().unwrap_or_default().trim();
    let constant = format!("const NAME: &str = \"{folder}\";");
    let is_named = value == format!("\"{folder}\"")
        || (value.ends_with("NAME") && sources.iter().any(|(_, text)| text.contains(&constant)));
    if !is_named {
        let message =
            format!("registers {value}: folder, feature and registered name are one string, \"{folder}\"");
        findings.push(Finding::new(path, 0, message));
    }
}

fn only_declares(tree: &Tree, folder: &str, findings: &mut Vec<Finding>) {
    let path = format!("drivers/{folder}/src/lib.rs");
    for (number, line) in lines(tree.get(&path).unwrap_or_default()) {
        let words = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        if ["fn ", "struct ", "enum ", "impl ", "impl<", "trait "].iter().any(|word| words.starts_with(word))
        {
            findings.push(Finding::new(
                path.as_str(),
                number,
                "a driver's lib.rs only declares: move this to its module",
            ));
        }
    }
}

/// The features in a manifest, without `default`.
fn features(manifest: &str) -> Vec<&str> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[features]").skip(1);
    let section = section.take_while(|line| !line.starts_with('['));
    let keys =
        section.filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split_once('='));
    keys.map(|(key, _)| key.trim().trim_matches('"')).filter(|key| *key != "default").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            (
                "drivers/Cargo.toml",
                "[features]\n# Off.\ndefault = [\"vfs\"]\nvfs = [\"dep:layerstack-vfs\"]\n\n[lints]\n",
            ),
            ("drivers/vfs/Cargo.toml", "[package]\nname = \"layerstack-vfs\"\n"),
            ("drivers/vfs/README.md", ""),
            ("drivers/vfs/src/driver.rs", "register_driver! {\n    name: NAME,\n}\n"),
            ("drivers/vfs/src/layout.rs", "pub const NAME: &str = \"vfs\";\n"),
            ("drivers/vfs/src/lib.rs", "mod driver;\npub use driver::Vfs;\n"),
            ("drivers/vfs/src/options.rs", ""),
            ("drivers/vfs/src/probe.rs", ""),
            ("drivers/vfs/src/sys.rs", ""),
            ("drivers/vfs/tests/conformance.rs", ""),
        ]
    }

    /// What is found when the file at `path` has this text instead.
    fn with(path: &str, text: &str) -> Vec<String> {
        let files: Vec<_> = good().into_iter().map(|(p, t)| (p, if p == path { text } else { t })).collect();
        check(&Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_driver_as_it_should_be_passes() {
        assert_eq!(check(&Tree::of(&good())), []);
        assert_eq!(
            with("drivers/vfs/src/driver.rs", "register_driver! { name: \"vfs\", rank: 1 }"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_file_must_be_there() {
        for file in FILES.iter().filter(|file| **file != "Cargo.toml") {
            let path = format!("drivers/vfs/{file}");
            let files: Vec<_> = good().into_iter().filter(|(p, _)| *p != path).collect();
            assert!(check(&Tree::of(&files)).iter().any(|finding| finding.file == path), "{file}");
        }
    }

    #[test]
    fn one_string_names_a_driver() {
        for (path, text) in [
            ("drivers/vfs/Cargo.toml", "[package]\nname = \"layerstack-copy\"\n"),
            ("drivers/vfs/src/driver.rs", "register_driver! {\n    name: \"copy\",\n}\n"),
            ("drivers/vfs/src/layout.rs", "pub const NAME: &str = \"copy\";\n"),
            ("drivers/vfs/src/driver.rs", ""),
            ("drivers/Cargo.toml", "[features]\ndefault = []\n"),
        ] {
            assert_eq!(with(path, text).len(), 1, "{path}: {text}");
        }
        let messages = with("drivers/Cargo.toml", "[features]\nvfs = []\nzfs = []\n");
        assert_eq!(messages, ["drivers/Cargo.toml: the feature \"zfs\" has no folder drivers/zfs"]);
    }

    #[test]
    fn lib_rs_only_declares() {
        let messages = with("drivers/vfs/src/lib.rs", "mod driver;\n\npub fn open() {}\n");
        assert!(messages[0].starts_with("drivers/vfs/src/lib.rs:3: "), "{messages:?}");
    }
}
