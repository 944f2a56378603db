//! The 512-byte header block: field positions, numbers, checksum.
//!
//! Layouts: POSIX.1-2017 `pax`, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".

use std::ops::Range;

/// The unit of the format: headers are one block, content is padded to blocks.
pub(super) const BLOCK: usize = 512;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK_NAME: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const DEV_MAJOR: Range<usize> = 329..337;
pub(super) const DEV_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;

/// Magic and version of POSIX' format.
pub(super) const MAGIC_USTAR: &[u8; 8] = b"ustar\x0000";

/// star marks its variant of POSIX' format at the end of the block; its prefix is shorter.
pub(super) const STAR_TRAILER: Range<usize> = 508..512;
pub(super) const STAR_PREFIX: Range<usize> = 345..476;

/// GNU's old sparse format (`S`): four pairs of offset and length, whether more follow, the file's size. Blocks
/// that follow have 21 pairs each.
pub(super) const SPARSE_PAIRS: Range<usize> = 386..482;
pub(super) const SPARSE_MORE: usize = 482;
pub(super) const SPARSE_SIZE: Range<usize> = 483..495;
pub(super) const SPARSE_NEXT_PAIRS: Range<usize> = 0..504;
pub(super) const SPARSE_NEXT_MORE: usize = 504;

/// The bytes from the end of a content of `size` bytes to the next block.
pub(super) fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// Writes `value` in octal with leading zeros and a closing NUL; false where it does not fit, the field then
/// holding 0.
pub(super) fn put_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let fits = value >> (3 * digits) == 0;
    let mut rest = if fits { value } else { 0 };
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
    fits
}

/// Puts the checksum in: six octal digits, NUL, space.
pub(super) fn seal(block: &mut [u8; BLOCK]) {
    let (sum, _) = checksums(block);
    put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
    block[CHECKSUM.end - 1] = b' ';
}

/// The sum of the block's bytes, those of the checksum field taken as spaces: as unsigned and, as some old tars
/// had it, as signed bytes.
pub(super) fn checksums(block: &[u8; BLOCK]) -> (u64, i64) {
    let spaces = CHECKSUM.len() as u64 * u64::from(b' ');
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let unsigned = sum(block) - sum(&block[CHECKSUM]) + spaces;
    // Taken as signed, a byte of 128 or more is 256 less.
    let high = |bytes: &[u8]| bytes.iter().filter(|byte| **byte >= 0x80).count() as i64;
    (unsigned, unsigned.cast_signed() - 256 * (high(block) - high(&block[CHECKSUM])))
}

/// A numeric field: octal digits between spaces and NULs, an empty field being 0; or, where the first bit is set,
/// GNU's base-256, big-endian two's complement. None where it is neither or beyond 64 bits.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return base_256(field);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if digits[end..].iter().any(|byte| !blank(byte)) {
        return None;
    }
    digits[..end].iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

fn base_256(field: &[u8]) -> Option<i64> {
    // The first bit marks the form, the second is the sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] | 0x80 } else { field[0] & 0x7f };
    let mut value = i64::from(first.cast_signed());
    for byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i64::from(*byte))?;
    }
    Some(value)
}

/// A text field: up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"12345678", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"1 2\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), *expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn checksums_take_their_own_field_for_spaces() {
        let mut block = [0; BLOCK];
        (block[0], block[1], block[511]) = (1, 0x80, 0xff);
        block[CHECKSUM].fill(0xff);
        assert_eq!(checksums(&block), (256 + 1 + 0x80 + 0xff, 256 + 1 - 0x80 - 1));
    }

    #[test]
    fn octal_fields_are_full_or_zero() {
        let mut field = [b'x'; 8];
        assert!(put_octal(&mut field, 0o7_777_777));
        assert_eq!(&field, b"7777777\0");
        assert!(!put_octal(&mut field, 0o10_000_000));
        assert_eq!(&field, b"0000000\0");
    }
}
