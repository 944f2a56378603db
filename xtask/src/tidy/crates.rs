//! The workspace's crates: what they inherit, and who may depend on whom.

use std::path::Path;

use super::Finding;
use super::tree::Tree;
use crate::workspace::{FACADE, Metadata, Package};

/// What every crate takes from the workspace's manifest, so that it is stated once.
const INHERITED: [&str; 4] = [
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "[lints]\nworkspace = true",
];

const CORE: &str = "layerstack-core";

pub(super) fn check(tree: &Tree, metadata: &Metadata, root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ours: Vec<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    for package in metadata.members() {
        let manifest = package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
        let manifest = manifest.display().to_string();
        let text = tree.get(&manifest).unwrap_or_default();
        for line in INHERITED.iter().filter(|line| !text.contains(**line)) {
            findings.push(Finding::new(manifest.as_str(), 0, format!("add `{}`", line.replace('\n', " "))));
        }
        findings.extend(direction(package, &manifest, &ours));
    }
    findings
}

/// Drivers depend on core; the suite on core; engines on the facade; core on nothing of ours.
fn direction(package: &Package, manifest: &str, ours: &[&str]) -> Vec<Finding> {
    let (allowed, rule): (fn(&str) -> bool, &str) = match manifest {
        "core/Cargo.toml" => (|_| false, "core knows no other crate of the workspace"),
        "conformance/Cargo.toml" => (|name| name == CORE, "the suite depends on core only"),
        "drivers/Cargo.toml" => (|_| true, ""),
        "xtask/Cargo.toml" => (|_| true, ""),
        _ if manifest.starts_with("drivers/") => (|name| name == CORE, "a driver depends on core only"),
        _ => (
            |name| name == FACADE || name == "layerstack-store",
            "an engine depends on the facade and reads nothing else of ours",
        ),
    };
    // What only tests use is built into nothing.
    let built = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    built
        .filter(|dependency| ours.contains(&dependency.name.as_str()) && !allowed(&dependency.name))
        .map(|dependency| Finding::new(manifest, 0, format!("depends on {}: {rule}", dependency.name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    const GOOD: &str = "[package]\nedition.workspace = true\nrust-version.workspace = true\n\
                        license.workspace = true\n\n[lints]\nworkspace = true\n";

    fn found(folder: &str, manifest: &str, dependency: &str, kind: Option<&str>) -> Vec<String> {
        let path = format!("{folder}/Cargo.toml");
        let names = [CORE, FACADE, "layerstack-vfs", "layerstack-store"];
        let mut packages: Vec<Package> =
            names.map(|name| Package::test(name, "/elsewhere/Cargo.toml")).into();
        let mut package = Package::test("subject", &format!("/w/{path}"));
        package.dependencies =
            vec![Dependency { name: dependency.to_owned(), kind: kind.map(str::to_owned) }];
        packages.push(package);
        let workspace_members = packages.iter().map(|package| package.id.clone()).collect();
        let metadata = Metadata { packages, workspace_members, target_directory: "/w/target".into() };
        let tree = Tree::of(&[(&path, manifest)]);
        let findings = check(&tree, &metadata, Path::new("/w"));
        findings.iter().filter(|finding| finding.file == path).map(ToString::to_string).collect()
    }

    #[test]
    fn dependencies_point_one_way() {
        for (folder, dependency, fine) in [
            ("core", CORE, false),
            ("core", "layerstack-vfs", false),
            ("core", "libc", true),
            ("conformance", CORE, true),
            ("conformance", FACADE, false),
            ("drivers", "layerstack-vfs", true),
            ("drivers/vfs", CORE, true),
            ("drivers/vfs", FACADE, false),
            ("engines/cli", "layerstack-store", true),
            ("engines/cli", FACADE, true),
            ("engines/store", CORE, false),
            ("engines/store", "layerstack-vfs", false),
        ] {
            assert_eq!(found(folder, GOOD, dependency, None).is_empty(), fine, "{folder} on {dependency}");
        }
        assert_eq!(found("drivers/vfs", GOOD, FACADE, Some("dev")).len(), 0);
        assert_eq!(found("drivers/vfs", GOOD, FACADE, Some("build")).len(), 1);
    }

    #[test]
    fn crates_take_from_the_workspace() {
        for line in INHERITED {
            let messages = found("core", &GOOD.replace(line, ""), "libc", None);
            assert_eq!(messages, [format!("core/Cargo.toml: add `{}`", line.replace('\n', " "))]);
        }
    }
}
