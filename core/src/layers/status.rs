//! What a root has to say of itself.

use std::fmt;
use std::path::PathBuf;

use super::Layers;
use crate::error::Result;
use crate::fs::FileSystemType;

/// The state of an opened root, in the words of `docker info`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The driver's name.
    pub driver: String,
    /// The driver's home.
    pub root: PathBuf,
    /// The file system that the home lies on.
    pub backing_file_system: String,
    /// What the driver adds, in its order.
    pub entries: Vec<(String, String)>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Storage Driver: {}", self.driver)?;
        writeln!(f, " Root Dir: {}", self.root.display())?;
        if !self.entries.iter().any(|(key, _)| key == "Backing Filesystem") {
            writeln!(f, " Backing Filesystem: {}", self.backing_file_system)?;
        }
        for (key, value) in &self.entries {
            writeln!(f, " {key}: {value}")?;
        }
        Ok(())
    }
}

impl Layers {
    /// Driver, home, backing file system, and what the driver says of itself.
    ///
    /// # Errors
    /// Where the back end cannot be asked.
    pub fn status(&self) -> Result<Status> {
        let status = || {
            Ok(Status {
                driver: self.driver_name().to_owned(),
                root: self.home().to_owned(),
                backing_file_system: FileSystemType::of(self.home())?.name(),
                entries: self.driver.status()?,
            })
        };
        status().map_err(|error: crate::Error| error.with_operation("status").with_driver(self.driver_name()))
    }
}
