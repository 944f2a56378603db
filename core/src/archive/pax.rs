//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, the length counting itself.
//!
//! POSIX.1-2017 `pax`, "pax Extended Header"; the keys `SCHILY.*` are those of star, `LIBARCHIVE.*` libarchive's.

use super::{Timestamp, acl};
use crate::fs::xattr::Attributes;

/// The prefix of an extended attribute's key; the value is raw.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends one record.
pub(super) fn put(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits: one more digit may make one more necessary.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// A time as decimal seconds, exact, without trailing zeros.
pub(super) fn format_time(time: Timestamp) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    // -1.25 is the second -2 and 750,000,000 ns.
    let (sign, whole, nanoseconds) = if time.seconds < 0 {
        ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - time.nanoseconds)
    } else {
        ("", time.seconds.unsigned_abs(), time.nanoseconds)
    };
    let text = format!("{sign}{whole}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// The attribute's name as a key: `=` ends a key, so it is written `%3D`, and a `%` that would be taken for the
/// start of such an escape `%25`. GNU tar does and undoes the same (since 1.33).
pub(super) fn encode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut key = XATTR.to_vec();
    for (at, byte) in name.iter().enumerate() {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' if matches!(name.get(at + 1..at + 3), Some(b"3D" | b"25")) => key.extend_from_slice(b"%25"),
            _ => key.push(*byte),
        }
    }
    key
}

/// What the records of one extended header say, as far as it matters to a layer.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    /// In the order of the records; a later one of the same name counts.
    pub(super) xattrs: Attributes,
    pub(super) sparse: Sparse,
}

/// GNU's records of a sparse file, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offsets and lengths by turns.
    pub(super) map: Vec<u64>,
}

impl Extended {
    /// Parses records. The error says what is wrong with them.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, String> {
        let mut found = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = split_record(records)
                .ok_or_else(|| format!("the extended header is malformed at \"{}\"", excerpt(records)))?;
            found.record(key, value).ok_or_else(|| {
                format!("the record {} = \"{}\" is malformed", key.escape_ascii(), excerpt(value))
            })??;
            records = rest;
        }
        Ok(found)
    }

    /// Takes one record in; keys that say nothing about the file are passed over. None: the value is malformed.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<Result<(), String>> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattr(decode_xattr_name(name), value.to_vec())?;
            return Some(Ok(()));
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decode(name)?;
            // bsdtar writes the same attribute as SCHILY.xattr too.
            if !self.xattrs.iter().any(|(known, _)| *known == name) {
                self.xattr(name, base64(value)?)?;
            }
            return Some(Ok(()));
        }
        let no_nul = |value: &[u8]| (!value.contains(&0)).then(|| value.to_vec());
        match key {
            // An empty value takes back what a global header said, and those are passed over.
            _ if value.is_empty() => {}
            b"path" => self.path = Some(no_nul(value)?),
            b"linkpath" => self.link_path = Some(no_nul(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(parse_time(value)?),
            b"SCHILY.acl.access" | b"SCHILY.acl.default" => {
                let name: &[u8] = match key {
                    b"SCHILY.acl.access" => b"system.posix_acl_access",
                    _ => b"system.posix_acl_default",
                };
                match acl::from_text(value) {
                    Ok(binary) => self.xattr(name.to_vec(), binary)?,
                    Err(flaw) => return Some(Err(flaw)),
                }
            }
            b"GNU.sparse.major" => self.sparse.version.0 = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse.version.1 = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(no_nul(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(decimal(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(decimal(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map = value.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>()?;
            }
            _ => {}
        }
        Some(Ok(()))
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Option<()> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        self.xattrs.push((name, value));
        Some(())
    }
}

fn excerpt(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(64)].escape_ascii().to_string()
}

/// Key and value of the first record, and what follows it.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // The longest header that is read has seven digits; more would only be leading zeros.
    let space = records.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    if length > records.len() {
        return None;
    }
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| (&record[..equals], &record[equals + 1..], &records[length..]))
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Decimal seconds; digits beyond nanoseconds are cut off, towards zero.
fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = point.map_or((digits, &b""[..]), |at| (&digits[..at], &digits[at + 1..]));
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds =
        (0..9).fold(0, |value, at| value * 10 + u32::from(fraction.get(at).map_or(0, |byte| byte - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

fn decode_xattr_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let [first, after @ ..] = rest {
        let (byte, following) = match rest {
            [b'%', b'3', b'D', following @ ..] => (b'=', following),
            [b'%', b'2', b'5', following @ ..] => (b'%', following),
            _ => (*first, after),
        };
        name.push(byte);
        rest = following;
    }
    name
}

/// Undoes URL encoding, which libarchive applies to the names of attributes.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    Some(decoded)
}

/// Base64 with or without the closing `=`.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
    let mut decoded = Vec::with_capacity(end / 4 * 3 + 2);
    for group in text[..end].chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match group.get(at) {
                Some(letter @ b'A'..=b'Z') => letter - b'A',
                Some(letter @ b'a'..=b'z') => letter - b'a' + 26,
                Some(letter @ b'0'..=b'9') => letter - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            bits = bits << 6 | u32::from(value);
        }
        let bytes = bits.to_be_bytes();
        // A last group of two or three letters has one or two bytes; one letter alone has none and is no group.
        decoded.extend_from_slice(&bytes[1..group.len().checked_sub(1).filter(|left| *left > 0)? + 1]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value in [0, 1, 86, 87, 88, 89, 90, 985, 986, 987, 988, 989, 990, 991] {
            let mut records = Vec::new();
            put(&mut records, b"path", &vec![b'x'; value]);
            let digits = records.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let length: usize = std::str::from_utf8(&records[..digits]).unwrap().parse().unwrap();
            assert_eq!(length, records.len(), "value of {value} bytes");
        }
    }

    #[test]
    fn times_are_exact() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "0"),
            (-1, 0, "-1"),
            (1, 500_000_000, "1.5"),
            (1, 1, "1.000000001"),
            (-1, 500_000_000, "-0.5"),
            (-2, 750_000_000, "-1.25"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
        ] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(format_time(time), expected);
            if seconds != i64::MIN {
                assert_eq!(parse_time(expected.as_bytes()), Some(time));
            }
        }
        for text in ["", ".", "1.x", "+1", "--1", "1e3", "9223372036854775808"] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn names_of_attributes_come_back() {
        for name in ["user.a", "user.a=b", "user.%3D", "user.%253D", "user.%", "user.%4", "user.=%25="] {
            let key = encode_xattr_name(name.as_bytes());
            let mut records = Vec::new();
            put(&mut records, &key, b"v");
            let found = Extended::parse(&records).unwrap();
            assert_eq!(found.xattrs, [(name.as_bytes().to_vec(), b"v".to_vec())]);
        }
    }

    #[test]
    fn the_attributes_of_libarchive_are_decoded() {
        for (text, expected) in [
            ("", Some("")),
            ("YQ", Some("a")),
            ("YWI=", Some("ab")),
            ("YWJjZA==", Some("abcd")),
            ("Y", None),
            ("Y!", None),
        ] {
            assert_eq!(base64(text.as_bytes()), expected.map(|bytes| bytes.as_bytes().to_vec()), "{text}");
        }
        let mut records = Vec::new();
        put(&mut records, b"LIBARCHIVE.xattr.user.a%20b", b"YQ");
        assert_eq!(Extended::parse(&records).unwrap().xattrs, [(b"user.a b".to_vec(), b"a".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            "x",
            "5 a=b",
            "7 a=b\n",
            "05 a=\n",
            "6 a=b ",
            "5 =b\n",
            "5 ab\n",
            "99999999999999999999 a=b\n",
            "0 a=b\n",
            "2 a=b\n",
            "10 size=x\n",
            "10 path=\0\n",
            "18 SCHILY.xattr.=\n",
            "12 size=-1\n",
        ] {
            assert!(Extended::parse(records.as_bytes()).is_err(), "{records:?}");
        }
        assert_eq!(Extended::parse(b"6 a=b\n10 size=7\n").unwrap().size, Some(7));
    }
}
