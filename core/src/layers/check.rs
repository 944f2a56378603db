//! Finding what does not agree.

use std::collections::HashSet;
use std::fmt;

use super::Layers;
use crate::error::Result;
use crate::id::LayerId;

/// Something about a layer that does not agree with something else.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The layer.
    pub layer: LayerId,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}: {}", self.layer, self.problem)
    }
}

impl Layers {
    /// Compares the records with each other and with what the driver has. Changes nothing, and leaves alone what other
    /// processes are working on.
    ///
    /// # Errors
    /// Where records or the driver's home cannot be read.
    pub fn check(&self) -> Result<Vec<Finding>> {
        self.check_records().map_err(|error| error.with_operation("check").with_driver(self.driver_name()))
    }

    fn check_records(&self) -> Result<Vec<Finding>> {
        let _guard = self.records.lock()?;
        let pending: HashSet<_> = self.records.list_pending()?.into_iter().collect();
        let stored: HashSet<_> = self.driver.list()?.into_iter().collect();
        let recorded: HashSet<_> = self.records.list()?.into_iter().collect();
        let mut findings = Vec::new();
        let mut found =
            |layer: &LayerId, problem: String| findings.push(Finding { layer: layer.clone(), problem });
        for id in stored.iter().filter(|id| !recorded.contains(*id) && !pending.contains(*id)) {
            found(id, "it has no record".to_owned());
        }
        for id in recorded.iter().filter(|id| !pending.contains(*id)) {
            let layer = match self.records.read(id) {
                Ok(layer) => layer,
                Err(error) => {
                    found(id, error.message().to_owned());
                    continue;
                }
            };
            if !stored.contains(id) {
                found(id, "nothing but its record is there".to_owned());
            } else if let Err(error) = self.driver.inspect(id) {
                found(id, error.to_string());
            }
            if let Some(parent) = &layer.parent {
                match self.records.read(parent) {
                    Ok(parent) if parent.depth + 1 == layer.depth => {}
                    Ok(_) => found(id, format!("its depth does not follow from that of its parent {parent}")),
                    Err(_) => found(id, format!("its parent {parent} is missing")),
                }
                if !self.records.children(parent)?.contains(id) {
                    found(id, format!("it does not stand among the children of its parent {parent}"));
                }
            }
        }
        findings.sort_by(|a, b| a.layer.cmp(&b.layer));
        Ok(findings)
    }
}
