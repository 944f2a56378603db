//! Options of drivers and of layers: `key=value` pairs as Docker's `--storage-opt` has them.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};

/// One option that a driver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key: `overlay2.size` for a driver's option, `size` for a layer's.
    pub name: &'static str,
    /// What it does, with its unit and its default, in one line.
    pub help: &'static str,
}

/// Options given by the caller: keys in order, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `key=value` texts. A later one replaces an earlier one of the same key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a text without `=` or without a key.
    pub fn parse<I>(texts: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut options = Self::new();
        for text in texts {
            let text = text.as_ref();
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    options.set(key.trim(), value.trim());
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("option \"{text}\" is not of the form key=value"),
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Sets one option.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// The value of one option.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Checks that every key is one of `known`. `of` names whose options they are ("driver vfs", "a layer of
    /// driver vfs").
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming the unknown option and the known ones.
    pub fn check_known(&self, known: &[OptionSpec], of: &str) -> Result<()> {
        for (key, _) in self.iter() {
            if !known.iter().any(|spec| spec.name == key) {
                let names: Vec<_> = known.iter().map(|spec| spec.name).collect();
                let known = if names.is_empty() {
                    "it has none".to_owned()
                } else {
                    format!("known: {}", names.join(", "))
                };
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("unknown option \"{key}\" of {of} ({known})"),
                ));
            }
        }
        Ok(())
    }

    /// The value of a boolean option: `true`/`false`, `1`/`0`, `yes`/`no`, `on`/`off`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for any other value.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|value| parse_boolean(key, value)).transpose()
    }

    /// The value of a size option in bytes; see [`parse_size`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what is not a size.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|value| parse_size(key, value)).transpose()
    }
}

fn parse_boolean(key: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("option \"{key}\" has the value \"{value}\", which is neither true nor false"),
        )),
    }
}

/// Reads a size as Docker writes it: a number, a fraction allowed, and a unit `b`, `k`, `m`, `g`, `t` or `p`
/// (also `kb`, `kib`, …; any case). The units are powers of 1024, as in go-units' `RAMInBytes`, which Docker uses
/// for `size`. `key` names the option in the error.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for what is not a size or does not fit 64 bits.
pub fn parse_size(key: &str, value: &str) -> Result<u64> {
    let wrong = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("option \"{key}\" has the value \"{value}\", which is not a size such as 512M or 10G"),
        )
    };
    let text = value.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let shift = match prefix {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let factor = 1_u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    #[expect(clippy::cast_precision_loss, reason = "the factor is a power of two, so it is exact")]
    let bytes = number * factor as f64;
    // 2^63 keeps clear of where the conversion would saturate.
    if !bytes.is_finite() || bytes >= 9.2e18 {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above; digits only")]
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("1k", 1024),
            ("1KB", 1024),
            ("1KiB", 1024),
            ("1.5m", 1_572_864),
            ("10G", 10 << 30),
            ("2 T", 2 << 40),
        ] {
            assert_eq!(parse_size("size", text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1", "1x", "1..5", "99999999999P", "1ib", "nan", "1e3"] {
            let error = parse_size("size", text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn an_unknown_option_names_the_known_ones() {
        let known = [OptionSpec { name: "vfs.size", help: "" }, OptionSpec { name: "vfs.reflink", help: "" }];
        let error = Options::parse(["vfs.sise=1"]).unwrap().check_known(&known, "driver vfs").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown option \"vfs.sise\" of driver vfs (known: vfs.size, vfs.reflink)"
        );
    }

    #[test]
    fn an_option_needs_a_key_and_a_value() {
        assert!(Options::parse(["novalue"]).is_err());
        assert!(Options::parse(["=x"]).is_err());
        assert_eq!(Options::parse(["a = b=c"]).unwrap().get("a"), Some("b=c"));
    }
}
