//! Content digests and chain ids.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use layerstack::{Error, ErrorKind, LayerId, Result};
use sha2::{Digest as _, Sha256};

/// A digest as the OCI image specification writes it: `sha256:` and 64 lower-case hexadecimal digits.
///
/// SHA-256 is the only algorithm that images use in practice, and the only one that is taken here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The first 12 hexadecimal digits: how people see an image id.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text, algorithm included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |flaw: &str| {
            let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
            Error::new(ErrorKind::InvalidInput, format!("digest \"{shown}\" {flaw}"))
        };
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(wrong("is not of the form sha256:HEX"));
        };
        if algorithm != "sha256" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("digest algorithm \"{}\" (known: sha256)", algorithm.escape_debug()),
            ));
        }
        if !is_sha256_hex(hex) {
            return Err(wrong("does not have 64 lower-case hexadecimal digits"));
        }
        Ok(Self(text.into()))
    }
}

/// Whether `text` is 64 lower-case hexadecimal digits.
pub(crate) fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.into()
    }
}

/// SHA-256 in the making. The `sha2` crate uses the processor's SHA instructions where it has them.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in self.0.finalize() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Digest(text.into())
    }
}

/// A reader or writer that hashes and counts all that passes.
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hasher: Hasher::new(), bytes: 0 }
    }

    /// What was hashed, and how many bytes it was.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The ids of the layers with these diff ids, lowest first: the chain ids of the OCI image specification
/// (config.md, "Layer ChainID"), without the algorithm.
///
/// # Errors
/// None for digests; a chain id is always a good layer id.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Result<Vec<LayerId>> {
    let mut chain: Vec<LayerId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let hex = match chain.last() {
            None => diff_id.hex().to_owned(),
            Some(parent) => Digest::of(format!("{PREFIX}{parent} {diff_id}").as_bytes()).hex().to_owned(),
        };
        chain.push(LayerId::new(hex)?);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256_in_lower_case() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.short(), "ba7816bf8f01");
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        for text in
            ["", "sha256", "sha256:", "sha256:abc", &digest.as_str().to_uppercase(), "sha256:../../../x"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let error = "sha512:00".parse::<Digest>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        let chain = chain_ids(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(chain[0].as_str(), a.hex());
        assert_eq!(chain[1].as_str(), Digest::of(format!("{a} {b}").as_bytes()).hex());
    }
}
