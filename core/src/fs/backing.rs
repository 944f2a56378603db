//! Which file system a path lies on.

use std::path::Path;

use crate::error::{Error, Result};

/// The type of a mounted file system: the magic number of `statfs(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileSystemType(u32);

/// Magic numbers and names, as in linux/magic.h and the file systems' own headers.
const NAMES: [(u32, &str); 19] = [
    (0x6175_6673, "aufs"),
    (0x9123_683e, "btrfs"),
    (0xff53_4d42, "cifs"),
    (0xf15f, "ecryptfs"),
    (0xe0f5_e1e2, "erofs"),
    // ext2 and ext3 have the same number; the kernel mounts all three with the driver of ext4.
    (0xef53, "extfs"),
    (0xf2f5_2010, "f2fs"),
    (0x6573_5546, "fuse"),
    (0x00c0_ffee, "hostfs"),
    (0x3153_464a, "jfs"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlayfs"),
    (0x5265_4973, "reiserfs"),
    (0x7371_7368, "squashfs"),
    (0x0102_1994, "tmpfs"),
    (0x0102_1997, "9p"),
    (0x5846_5342, "xfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
];

impl FileSystemType {
    /// aufs.
    pub const AUFS: Self = Self(0x6175_6673);
    /// btrfs.
    pub const BTRFS: Self = Self(0x9123_683e);
    /// ext2, ext3 and ext4.
    pub const EXT: Self = Self(0xef53);
    /// NFS.
    pub const NFS: Self = Self(0x6969);
    /// overlayfs.
    pub const OVERLAY: Self = Self(0x794c_7630);
    /// tmpfs.
    pub const TMPFS: Self = Self(0x0102_1994);
    /// xfs.
    pub const XFS: Self = Self(0x5846_5342);
    /// zfs.
    pub const ZFS: Self = Self(0x2fc1_2fc1);

    /// The type of the file system that holds `path`.
    ///
    /// # Errors
    /// Where `path` cannot be reached.
    pub fn of(path: &Path) -> Result<Self> {
        let statfs = rustix::fs::statfs(path)
            .map_err(|errno| Error::from_errno(errno, "find the file system").with_path(path))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "magic numbers have 32 bits"
        )]
        Ok(Self(statfs.f_type as u32))
    }

    /// The name, as Docker's "Backing Filesystem" has it; the number where it is not known.
    #[must_use]
    pub fn name(self) -> String {
        NAMES
            .iter()
            .find(|(magic, _)| *magic == self.0)
            .map_or_else(|| format!("{:#x}", self.0), |(_, name)| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_have_names_and_unknown_ones_their_number() {
        assert_eq!(FileSystemType::of(Path::new("/dev/shm")).unwrap(), FileSystemType::TMPFS);
        assert_eq!(FileSystemType::TMPFS.name(), "tmpfs");
        assert_eq!(FileSystemType(0x42).name(), "0x42");
        assert!(FileSystemType::of(Path::new("/nonexistent")).is_err());
    }
}
