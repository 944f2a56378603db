//! Changing a tar entry by entry.

/// An entry: its headers (PAX headers before it included) and its content with padding.
pub(crate) struct Entry {
    pub(crate) pax: Vec<u8>,
    pub(crate) header: [u8; 512],
    pub(crate) content: Vec<u8>,
}

impl Entry {
    pub(crate) fn name(&self) -> String {
        // A longer name is in the PAX header; what is looked for is found there too.
        let name = String::from_utf8_lossy(&self.header[..100]).trim_end_matches('\0').to_owned();
        if self.pax.is_empty() { name } else { name + &String::from_utf8_lossy(&self.pax) }
    }

    pub(crate) fn kind(&self) -> u8 {
        self.header[156]
    }

    /// Writes an octal number into a field and makes the header's sum right again.
    pub(crate) fn set(&mut self, at: usize, digits: usize, value: u32) {
        self.header[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
        self.header[148..156].fill(b' ');
        let sum: u32 = self.header.iter().map(|byte| u32::from(*byte)).sum();
        self.header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// Makes the seconds of the PAX header's time, if it has one, zeros.
    pub(crate) fn forget_pax_time(&mut self) {
        let Some(at) = self.pax.windows(7).position(|window| window == b" mtime=") else { return };
        for byte in self.pax[at + 7..].iter_mut().take_while(|byte| byte.is_ascii_digit()) {
            *byte = b'0';
        }
    }

    pub(crate) fn number(&self, at: usize, digits: usize) -> u32 {
        let text = String::from_utf8_lossy(&self.header[at..at + digits]).into_owned();
        u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap_or(0)
    }
}

/// The tar with its entries changed by `change`. What is no tar stays as it is.
pub(crate) fn changed(tar: &[u8], change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut rest = tar;
    let mut pax = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<512>() {
        if &header[257..262] != b"ustar" || !has_its_sum(header) {
            break;
        }
        let digits = String::from_utf8_lossy(&header[124..135]).into_owned();
        let size = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        let Some((content, after)) = after.split_at_checked(size.next_multiple_of(512)) else { break };
        rest = after;
        if matches!(header[156], b'x' | b'g' | b'L' | b'K') {
            pax.extend_from_slice(header);
            pax.extend_from_slice(content);
        } else {
            entries.push(Entry { pax: std::mem::take(&mut pax), header: *header, content: content.to_vec() });
        }
    }
    change(&mut entries);
    let mut changed = Vec::new();
    for entry in entries {
        changed.extend_from_slice(&entry.pax);
        changed.extend_from_slice(&entry.header);
        changed.extend_from_slice(&entry.content);
    }
    changed.extend_from_slice(&pax);
    changed.extend_from_slice(rest);
    changed
}

/// Whether the header's sum is right. A wrong one is a case's doing, and stays.
fn has_its_sum(header: &[u8; 512]) -> bool {
    let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    let sum: u32 = header.iter().enumerate().map(blank).sum();
    let text = String::from_utf8_lossy(&header[148..155]).into_owned();
    u32::from_str_radix(text.trim_matches(['\0', ' ']), 8) == Ok(sum)
}
