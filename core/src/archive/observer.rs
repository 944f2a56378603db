//! Who sees an archive go by.

use std::io;

/// Sees every byte of an archive that is read, in order: either as it is, or as the content of a file that can be
/// found again in the layer. What is seen is enough to put the archive together again.
pub trait Observer {
    /// Bytes of the archive: headers, padding, what follows the end, and content that is found nowhere else.
    ///
    /// # Errors
    /// End the reading of the archive.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// In the place of the next `size` bytes: they are the content of the file at `path`, which is relative to the
    /// layer's root and leads through no symbolic link.
    ///
    /// # Errors
    /// End the reading of the archive.
    fn file(&mut self, path: &[u8], size: u64) -> io::Result<()>;
}
