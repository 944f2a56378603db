//! How a root is opened.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

/// When the content of a layer reaches stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is sealed: after a power loss a sealed layer is there, byte for byte.
    #[default]
    AtSeal,
    /// Whenever the kernel writes it back: for roots that do not outlive the host, as CI runners have them.
    Never,
}

/// How a root is opened: which driver, with which options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The driver, where the caller insists on one; see [`Layers::open`](super::Layers::open) for the choice.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: Options,
    /// When layers reach stable storage.
    pub durability: Durability,
}

impl Config {
    /// Automatic choice, no options, durable at seal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Insists on one driver.
    #[must_use]
    pub fn with_driver(mut self, driver: impl Into<String>) -> Self {
        self.driver = Some(driver.into());
        self
    }

    /// Sets one option of the driver.
    #[must_use]
    pub fn with_option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.set(key, value);
        self
    }

    /// Sets when layers reach stable storage.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Reads a file with the keys of Docker's `daemon.json`:
    /// `{"storage-driver": "overlay2", "storage-opts": ["overlay2.size=10G"]}`. Other keys are left alone, so that
    /// Docker's own file can be given.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without the file; [`ErrorKind::InvalidInput`] naming what is not as it should be.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Error::new(ErrorKind::NotFound, "no such configuration file").with_path(path)
            } else {
                Error::from_io(error, "read the configuration").with_path(path)
            }
        })?;
        Self::from_json(&text).map_err(|error| error.with_path(path))
    }

    fn from_json(text: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct File {
            storage_driver: Option<String>,
            #[serde(default)]
            storage_opts: Vec<String>,
        }
        let file: File = serde_json::from_str(text).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                "not a configuration of the form {\"storage-driver\": \"…\", \"storage-opts\": [\"key=value\"]}",
            )
            .with_source(error)
        })?;
        Ok(Self {
            driver: file.storage_driver.filter(|driver| !driver.is_empty()),
            options: Options::parse(&file.storage_opts)?,
            durability: Durability::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_keys_are_read_and_others_left_alone() {
        let text = r#"{"storage-driver": "overlay2", "storage-opts": ["overlay2.size=1G"], "debug": true}"#;
        let config = Config::from_json(text).unwrap();
        assert_eq!(config.driver.as_deref(), Some("overlay2"));
        assert_eq!(config.options.get("overlay2.size"), Some("1G"));
        assert_eq!(Config::from_json("{}").unwrap(), Config::new());
    }

    #[test]
    fn what_is_not_of_that_form_is_refused() {
        for text in ["", "[]x", r#"{"storage-driver": 1}"#, r#"{"storage-opts": ["x"]}"#] {
            assert_eq!(Config::from_json(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
