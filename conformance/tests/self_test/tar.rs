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
        if header.iter().all(|byte| *byte == 0) || &header[257..262] != b"ustar" {
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
