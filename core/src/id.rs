//! The name of a layer.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The name of a layer: 1 to 128 bytes of `[A-Za-z0-9_.-]`, the first of them a letter, a digit or `_`.
///
/// The rule is the intersection of what a file name, a ZFS dataset component and a device-mapper name may be,
/// so that an id that is good for one driver is good for all. Names that a driver's own directories have in
/// Docker's layout (`l`, and all that ends in `-removing`) or in that of containers/storage (`empty`, `staging`,
/// `tempdirs`) are refused too.
///
/// Nothing else can hold an id, so that no driver ever sees an empty one, `..` or a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(Box<str>);

impl LayerId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks `id` and wraps it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming what is wrong.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        match flaw(&id) {
            None => Ok(Self(id.into_boxed_str())),
            Some(flaw) => {
                let shown: String = id.chars().take(Self::MAX_LEN).flat_map(char::escape_debug).collect();
                Err(Error::new(ErrorKind::InvalidInput, format!("layer id \"{shown}\" {flaw}")))
            }
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn flaw(id: &str) -> Option<&'static str> {
    let bytes = id.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if bytes.is_empty() {
        Some("is empty")
    } else if bytes.len() > LayerId::MAX_LEN {
        Some("is longer than 128 bytes")
    } else if !bytes.iter().all(allowed) {
        Some("has a character outside [A-Za-z0-9_.-]")
    } else if matches!(bytes[0], b'.' | b'-') {
        Some("does not start with a letter, a digit or \"_\"")
    } else if matches!(id, "l" | "empty" | "staging" | "tempdirs") || id.ends_with("-removing") {
        Some("is a name that drivers use for their own directories")
    } else {
        None
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}

impl AsRef<str> for LayerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LayerId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl std::str::FromStr for LayerId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_every_back_end_can_name_are_taken() {
        for id in ["a", "0", "_x", "a.b-c_d", &"f".repeat(64), &"z".repeat(128), "abc-init"] {
            assert_eq!(LayerId::new(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn all_others_are_refused_with_the_reason() {
        let long = "z".repeat(129);
        for (id, reason) in [
            ("", "is empty"),
            (".", "does not start"),
            ("..", "does not start"),
            ("-a", "does not start"),
            ("a/b", "outside"),
            ("a\0b", "outside"),
            ("a\nb", "outside"),
            ("sha256:a", "outside"),
            ("ä", "outside"),
            ("l", "own directories"),
            ("a-removing", "own directories"),
            ("staging", "own directories"),
            (long.as_str(), "longer than 128"),
        ] {
            let error = LayerId::new(id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{id:?}");
            assert!(error.to_string().contains(reason), "{id:?}: {error}");
        }
    }
}
