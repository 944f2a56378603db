//! System calls that no crate of ours wraps.
#![expect(
    unsafe_code,
    reason = "no crate has these ioctls; this is the one file of the crate with unsafe code"
)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

// linux/loop.h
// #define LOOP_CTL_GET_FREE 0x4C82
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
// #define LOOP_CLR_FD 0x4C01
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
// #define LOOP_SET_FD 0x4C00
const LOOP_SET_FD: libc::Ioctl = 0x4C00;
// #define LOOP_SET_STATUS64 0x4C04
const LOOP_SET_STATUS64: libc::Ioctl = 0x4C04;
// #define LOOP_GET_STATUS64 0x4C05
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
// #define LOOP_CONFIGURE 0x4C0A
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
// #define LOOP_SET_CAPACITY 0x4C07
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
// LO_FLAGS_AUTOCLEAR = 4
const LO_FLAGS_AUTOCLEAR: u32 = 4;

// linux/fs.h
// #define BLKGETSIZE64 _IOR(0x12,114,size_t)
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
// #define BLKDISCARD _IO(0x12,119)
const BLKDISCARD: libc::Ioctl = 0x1277;

// fs/ext4/ext4.h, include/uapi/linux/ext4.h
// #define EXT4_IOC_RESIZE_FS _IOW('f', 16, __u64)
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
// #define EXT4_IOC_CHECKPOINT _IOW('f', 43, __u32)
const EXT4_IOC_CHECKPOINT: libc::Ioctl = 0x4004_662B;

// fs/xfs/libxfs/xfs_fs.h
// #define XFS_IOC_FSGROWFSDATA _IOW ('X', 110, struct xfs_growfs_data)
const XFS_IOC_FSGROWFSDATA: libc::Ioctl = 0x4010_586E;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo64 {
    const ZERO: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    file: libc::c_int,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// `struct xfs_growfs_data` of xfs_fs.h: the new size in blocks and the largest part of inodes in percent.
#[repr(C)]
struct XfsGrowth {
    new_blocks: u64,
    most_inodes: u32,
}

fn checked(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// The number of a loop device that nobody uses; the kernel makes one where there is none: `loop(4)`.
pub(crate) fn free_loop_device(control: &File) -> Result<u32, Errno> {
    // SAFETY: the descriptor is open for the call; the request takes no argument.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    checked(result).map(|number| u32::try_from(number).unwrap_or(0))
}

/// Puts a file behind a loop device, which frees itself when it is no longer open. `BUSY`: another was quicker.
pub(crate) fn attach_loop(device: &File, backing: &File) -> Result<(), Errno> {
    let config = LoopConfig {
        file: backing.as_raw_fd(),
        block_size: 0,
        info: LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR, ..LoopInfo64::ZERO },
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open for the call; `config` has the layout of struct loop_config, is only read, and
    // lives until the call returns.
    match checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }) {
        // Before Linux 5.8.
        Err(Errno::INVAL | Errno::NOTTY) => {}
        result => return result.map(drop),
    }
    // SAFETY: both descriptors are open for the call; the argument is a descriptor by value.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, backing.as_raw_fd()) };
    checked(result)?;
    free_when_closed(device).inspect_err(|_| detach_loop(device))
}

/// Has a loop device free itself when it is no longer open.
pub(crate) fn free_when_closed(device: &File) -> Result<(), Errno> {
    let info = LoopInfo64 { flags: LO_FLAGS_AUTOCLEAR, ..LoopInfo64::ZERO };
    // SAFETY: the descriptor is open for the call; `info` has the layout of struct loop_info64, is only read, and
    // lives until the call returns.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, &raw const info) };
    checked(result).map(drop)
}

fn detach_loop(device: &File) {
    // What cannot be freed now frees itself when it is closed.
    // SAFETY: the descriptor is open for the call; the request takes no argument.
    let _ = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) };
}

/// What is behind a loop device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopBacking {
    /// The device and inode of the file, by the kernel's own numbers.
    pub(crate) file: (u64, u64),
    /// Whether the device frees itself.
    pub(crate) is_freed_when_closed: bool,
}

/// What is behind a loop device; None where nothing is.
pub(crate) fn loop_backing(device: &File) -> Result<Option<LoopBacking>, Errno> {
    let mut info = LoopInfo64::ZERO;
    // SAFETY: the descriptor is open for the call; `info` has the layout of struct loop_info64, any content of which
    // is valid, and lives until the call returns.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match checked(result) {
        Ok(_) => Ok(Some(LoopBacking {
            file: (info.device, info.inode),
            is_freed_when_closed: info.flags & LO_FLAGS_AUTOCLEAR != 0,
        })),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Has a loop device take notice of its file's new length.
pub(crate) fn loop_takes_new_length(device: &File) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for the call; the request ignores its argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY, 0) }).map(drop)
}

/// The size of a block device, in bytes.
pub(crate) fn device_size(device: &File) -> Result<u64, Errno> {
    let mut size = 0_u64;
    // SAFETY: the descriptor is open for the call; the kernel writes one u64 to `size`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut size) };
    checked(result).map(|_| size)
}

/// Gives a part of a block device back, in bytes; it may read as anything afterwards.
pub(crate) fn discard(device: &File, start: u64, length: u64) -> Result<(), Errno> {
    let range = [start, length];
    // SAFETY: the descriptor is open for the call; the kernel reads two u64 from `range`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD, range.as_ptr()) };
    checked(result).map(drop)
}

/// Grows a mounted ext4, any file of which is given, to `blocks` of its own blocks.
pub(crate) fn grow_ext4(file: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    // SAFETY: the descriptor is open for the call; the kernel reads one u64 from `blocks`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) };
    checked(result).map(drop)
}

/// Grows a mounted xfs, any file of which is given, to `blocks` of its own blocks.
pub(crate) fn grow_xfs(file: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    // mkfs.xfs gives file systems of less than a terabyte 25 percent for inodes: mkfs.xfs(8), "maxpct".
    let growth = XfsGrowth { new_blocks: blocks, most_inodes: 25 };
    // SAFETY: the descriptor is open for the call; `growth` has the layout of struct xfs_growfs_data, is only read,
    // and outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), XFS_IOC_FSGROWFSDATA, &raw const growth) };
    checked(result).map(drop)
}

/// Writes a mounted ext4's journal to where its blocks belong (Linux 5.14). `NOTTY` where the kernel cannot.
pub(crate) fn checkpoint_ext4(file: impl AsFd) -> Result<(), Errno> {
    let flags = 0_u32;
    // SAFETY: the descriptor is open for the call; the kernel reads one u32 from `flags`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), EXT4_IOC_CHECKPOINT, &raw const flags) };
    checked(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<XfsGrowth>(), 16);
    }
}
