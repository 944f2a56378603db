//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, the length counting itself.
//!
//! POSIX.1-2017 `pax`, "pax Extended Header"; the keys `SCHILY.*` are those of star, `LIBARCHIVE.*` libarchive's.

use super::Timestamp;

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
            assert_eq!(format_time(Timestamp { seconds, nanoseconds }), expected);
        }
    }
}
