//! How a root is opened.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::options::{OptionSpec, Options};

/// When the content of a layer reaches stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is sealed: after a power loss a sealed layer is there, byte for byte.
    #[default]
    AtSeal,
    /// Whenever the kernel writes it back: for roots that do not outlive the host, as CI runners have them.
    Never,
}

impl Durability {
    fn parse(value: &str) -> Result<Self> {
        [Self::AtSeal, Self::Never].into_iter().find(|durability| durability.as_str() == value).ok_or_else(
            || {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "option \"sync\" has the value \"{value}\", which is neither \"seal\" nor \"none\""
                    ),
                )
            },
        )
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::AtSeal => "seal",
            Self::Never => "none",
        }
    }
}

/// The options that every driver takes.
pub const CORE_OPTIONS: [OptionSpec; 1] = [OptionSpec {
    name: "sync",
    help: "when layers reach stable storage: \"seal\" (when sealed, the default) or \"none\" (whenever the kernel writes)",
}];

/// How a root is opened: which driver, with which options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The driver, where the caller insists on one; see [`Layers::open`](super::Layers::open) for the choice.
    pub driver: Option<String>,
    /// Options of the driver, `<driver>.…`, and of core: [`CORE_OPTIONS`].
    pub options: Options,
}

impl Config {
    /// Automatic choice, no options.
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

    /// Sets one option.
    #[must_use]
    pub fn with_option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.set(key, value);
        self
    }

    /// Sets when layers reach stable storage: the option `sync`.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        self.with_option("sync", durability.as_str())
    }

    /// Takes core's options apart from the driver's, which must all be in `known`.
    pub(super) fn split(&self, known: &[OptionSpec], driver: &str) -> Result<(Durability, Options)> {
        let all: Vec<_> = known.iter().chain(&CORE_OPTIONS).copied().collect();
        self.options.check_known(&all, &format!("driver {driver}"))?;
        let durability = match self.options.get("sync") {
            None => Durability::default(),
            Some(value) => Durability::parse(value)?,
        };
        let mut options = Options::new();
        for (key, value) in self.options.iter().filter(|(key, _)| *key != "sync") {
            options.set(key, value);
        }
        Ok((durability, options))
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
    fn cores_options_are_taken_apart_from_the_drivers() {
        let known = [OptionSpec { name: "vfs.reflink", help: "" }];
        let config = Config::new().with_option("vfs.reflink", "never").with_durability(Durability::Never);
        let (durability, options) = config.split(&known, "vfs").unwrap();
        assert_eq!(durability, Durability::Never);
        assert_eq!(options.iter().collect::<Vec<_>>(), [("vfs.reflink", "never")]);
        for (key, value) in [("sync", "maybe"), ("vfs.x", "1")] {
            let error = Config::new().with_option(key, value).split(&known, "vfs").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key}");
        }
    }

    #[test]
    fn what_is_not_of_that_form_is_refused() {
        for text in ["", "[]x", r#"{"storage-driver": 1}"#, r#"{"storage-opts": ["x"]}"#] {
            assert_eq!(Config::from_json(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
