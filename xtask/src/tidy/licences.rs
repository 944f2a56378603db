//! The dependencies: their licences, and the oldest Rust that they build with.

use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::Finding;
use crate::workspace::{Metadata, Package};

/// Licences under which a dependency may come. All are permissive but MPL-2.0, which binds only its own files.
const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

const MANIFEST: &str = "Cargo.toml";

pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let findings = metadata.packages.iter().flat_map(|package| [licence(package), age(package)]);
    findings.flatten().map(|message| Finding::new(MANIFEST, 0, message)).collect()
}

fn licence(package: &Package) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    let Some(text) = &package.license else {
        return Some(format!("{name} states no licence: do without it"));
    };
    // Older crates write "MIT/Apache-2.0" for "MIT OR Apache-2.0".
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => {
            return Some(format!(
                "{name} has the licence \"{text}\", which is no SPDX expression: {}",
                error.reason
            ));
        }
    };
    let allowed: Vec<Licensee> = ALLOWED.iter().filter_map(|licence| Licensee::parse(licence).ok()).collect();
    let may = |required: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(required));
    (!expression.evaluate(may)).then(|| {
        format!(
            "{name} has the licence \"{text}\", which is not one of {}: do without it",
            ALLOWED.join(", ")
        )
    })
}

fn age(package: &Package) -> Option<String> {
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let needs = package.rust_version.as_deref()?;
    (version(needs) > version(ours)).then(|| {
        format!(
            "{} {} needs Rust {needs}, and the workspace promises to build with {ours}: take an older one",
            package.name, package.version
        )
    })
}

fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect();
    numbers.resize(3, 0);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(licence: Option<&str>, rust_version: Option<&str>) -> Vec<String> {
        let mut package = Package::test("subject", "/x/Cargo.toml");
        package.license = licence.map(str::to_owned);
        package.rust_version = rust_version.map(str::to_owned);
        let metadata =
            Metadata { packages: vec![package], workspace_members: vec![], target_directory: "/t".into() };
        check(&metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_allowed_licence_is_known_to_spdx() {
        for licence in ALLOWED {
            assert!(Licensee::parse(licence).is_ok(), "{licence}");
        }
    }

    #[test]
    fn licences_are_expressions() {
        for (licence, fine) in [
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0-only OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("LGPL-2.1-or-later", false),
            ("AGPL-3.0-only", false),
            ("Proprietary", false),
        ] {
            assert_eq!(found(Some(licence), None).is_empty(), fine, "{licence}");
        }
        assert_eq!(found(None, None).len(), 1);
    }

    #[test]
    fn no_dependency_needs_a_newer_rust() {
        assert_eq!(found(Some("MIT"), Some("1.56")), Vec::<String>::new());
        assert_eq!(found(Some("MIT"), Some(env!("CARGO_PKG_RUST_VERSION"))), Vec::<String>::new());
        assert_eq!(found(Some("MIT"), Some("1.999.1")).len(), 1);
    }
}
