//! The names in a directory.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

/// The names in a directory, `.` and `..` left out, sorted by their bytes. One allocation for all names: a walk
/// over 100,000 files does not allocate 100,000 strings.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The names one after the other, each with its NUL.
    bytes: Vec<u8>,
    /// Where each name starts and ends in `bytes`, the NUL included.
    spans: Vec<(usize, usize)>,
}

impl Names {
    /// The names in `directory`, from the start whatever its position. `buffer` is scratch for `getdents64(2)`, of
    /// which the spare capacity is used: 64 KiB hold some 1,500 names of ordinary length.
    ///
    /// # Errors
    /// What the kernel gives; `EINVAL` where the buffer is too small for one name.
    pub fn of(directory: impl AsFd, buffer: &mut Vec<u8>) -> Result<Self, Errno> {
        rustix::fs::seek(&directory, rustix::fs::SeekFrom::Start(0))?;
        let mut names = Self::default();
        let mut listing = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            let start = names.bytes.len();
            names.bytes.extend_from_slice(name);
            names.spans.push((start, names.bytes.len()));
        }
        let bytes = &names.bytes;
        names.spans.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        Ok(names)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the directory is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at `index`, None past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&CStr> {
        let (start, end) = *self.spans.get(index)?;
        CStr::from_bytes_with_nul(self.bytes.get(start..end)?).ok()
    }

    /// All names in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}
