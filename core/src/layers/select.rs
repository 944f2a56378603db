//! The choice of a driver for a root.

use std::path::Path;

use super::config::Config;
use super::records;
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{OpenRequest, Registration, Registry};

/// Chooses: the driver that the configuration names; else the one already used in this root; else the first that
/// works here, by rank.
pub(super) fn select(root: &Path, registry: &Registry, config: &Config) -> Result<&'static Registration> {
    if let Some(name) = &config.driver {
        return registry.get(name);
    }
    let used: Vec<_> = registry.iter().filter(|registration| is_used(root, registration.name)).collect();
    match used.as_slice() {
        [] => best(root, registry, config),
        [one] => Ok(one),
        several => {
            let names: Vec<_> = several.iter().map(|registration| registration.name).collect();
            Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "this root has layers of several drivers ({}): name the one to use",
                    names.join(", ")
                ),
            )
            .with_path(root))
        }
    }
}

/// Whether a driver has layers in a root. A home that was opened and left empty does not bind the root to it; a home
/// without records is Docker's.
fn is_used(root: &Path, driver: &str) -> bool {
    let not_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    let records = records::directory(root, driver);
    if records.is_dir() {
        not_empty(&records.join("layers")) || not_empty(&records.join("pending"))
    } else {
        not_empty(&root.join(driver))
    }
}

fn best(root: &Path, registry: &Registry, config: &Config) -> Result<&'static Registration> {
    let mut by_rank: Vec<_> = registry.iter().collect();
    by_rank.sort_by_key(|registration| registration.rank);
    let mut reasons = Vec::new();
    for registration in by_rank {
        // Options of another driver say that this one is not meant.
        let probed = config.split(registration.options, registration.name).and_then(|(_, options)| {
            (registration.probe)(&OpenRequest::new(&root.join(registration.name), &options))
        });
        match probed {
            Ok(()) => return Ok(registration),
            Err(error) => reasons.push(format!("{}: {}", registration.name, causes(&error))),
        }
    }
    let reasons = if reasons.is_empty() { "none is compiled in".to_owned() } else { reasons.join("; ") };
    Err(Error::new(ErrorKind::Unavailable, format!("no storage driver works here ({reasons})"))
        .with_path(root))
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
