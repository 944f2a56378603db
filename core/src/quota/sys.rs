//! The system calls of project quota, which rustix lacks.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, ioctl, opcode};

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    pub(super) projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

impl FsXattr {
    /// The same, but in a project that is handed on.
    pub(super) fn in_project(self, projid: u32) -> Self {
        Self { xflags: self.xflags | PROJECT_INHERIT, projid, ..self }
    }
}

/// `FS_XFLAG_PROJINHERIT`: what is made in the directory takes its project over.
const PROJECT_INHERIT: u32 = 0x200;

/// `FS_IOC_FSGETXATTR`: `_IOR('X', 31, struct fsxattr)`.
const GET: rustix::ioctl::Opcode = opcode::read::<FsXattr>(b'X', 31);
/// `FS_IOC_FSSETXATTR`: `_IOW('X', 32, struct fsxattr)`.
const SET: rustix::ioctl::Opcode = opcode::write::<FsXattr>(b'X', 32);

pub(super) fn get_attributes(directory: impl AsFd) -> Result<FsXattr, Errno> {
    // SAFETY: GET fills a struct fsxattr, whose layout FsXattr has; any bytes are a valid value of it.
    let request = unsafe { Getter::<GET, FsXattr>::new() };
    // SAFETY: as above; the request owns the memory that the kernel fills.
    unsafe { ioctl(directory, request) }
}

pub(super) fn set_attributes(directory: impl AsFd, attributes: FsXattr) -> Result<(), Errno> {
    // SAFETY: SET reads a struct fsxattr, whose layout FsXattr has.
    let request = unsafe { Setter::<SET, FsXattr>::new(attributes) };
    // SAFETY: as above; the request owns the memory that the kernel reads, and outlives the call.
    unsafe { ioctl(directory, request) }
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct QuotaState {
    version: i8,
    pad1: u8,
    flags: u16,
    incore: u32,
    /// User, group, project: inode, blocks, extents and padding of each quota file.
    files: [[u64; 3]; 3],
    time_limits: [i32; 3],
    warn_limits: [u16; 3],
    pad3: u16,
    pad4: u32,
    pad2: [u64; 7],
}

/// `FS_QUOTA_PDQ_ACCT`: projects are counted.
pub(super) const COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`: their limits are enforced.
pub(super) const ENFORCED: u16 = 1 << 5;

/// `Q_XGETQSTATV`, which the kernel answers for every file system with quota, not for xfs alone.
const Q_XGETQSTATV: u32 = (b'X' as u32) << 8 | 8;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
/// `PRJQUOTA` of linux/quota.h: users are 0, groups 1.
const PROJECTS: u32 = 2;

/// How the kernel is told which file system is meant.
#[derive(Debug)]
pub(super) enum Target<'a, F> {
    /// By anything open on it: quotactl_fd(2), kernel 5.14.
    Open(&'a F),
    /// By its block device: quotactl(2).
    Device(&'a CStr),
}

/// What is counted and enforced: [`COUNTED`], [`ENFORCED`] and others.
pub(super) fn state(target: &Target<'_, impl AsFd>) -> Result<u16, Errno> {
    // FS_QSTATV_VERSION1: the kernel wants to know what it is to fill.
    let mut state = QuotaState { version: 1, ..QuotaState::default() };
    quotactl(target, Q_XGETQSTATV, 0, &mut state)?;
    Ok(state.flags)
}

/// Limits and use of a project.
pub(super) fn get(target: &Target<'_, impl AsFd>, project: u32) -> Result<libc::dqblk, Errno> {
    let mut block = empty();
    quotactl(target, Q_GETQUOTA, project, &mut block)?;
    Ok(block)
}

/// Sets those limits of a project that `block.dqb_valid` names.
pub(super) fn set(target: &Target<'_, impl AsFd>, project: u32, block: libc::dqblk) -> Result<(), Errno> {
    let mut block = block;
    quotactl(target, Q_SETQUOTA, project, &mut block)
}

/// Nothing set, nothing valid.
pub(super) fn empty() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

// int quotactl_fd(unsigned int fd, unsigned int cmd, qid_t id, void *addr);
// int quotactl(unsigned int cmd, const char *special, qid_t id, void *addr);
fn quotactl<T>(
    target: &Target<'_, impl AsFd>,
    command: u32,
    project: u32,
    data: &mut T,
) -> Result<(), Errno> {
    // QCMD of linux/quota.h. The kernel takes 32 bits, whatever the C library's prototype is.
    let command = command << 8 | PROJECTS;
    let data: *mut T = data;
    let result = match target {
        // SAFETY: the descriptor is borrowed for the whole call; `data` points to a value that only this function
        // knows of and that has the layout which the kernel reads or fills for `command`: see the three callers.
        Target::Open(fd) => unsafe {
            libc::syscall(libc::SYS_quotactl_fd, fd.as_fd().as_raw_fd(), command, project, data)
        },
        // SAFETY: as above; `device` is a C string that outlives the call.
        Target::Device(device) => unsafe {
            libc::syscall(libc::SYS_quotactl, command, device.as_ptr(), project, data)
        },
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The sizes and offsets that a C program prints for the kernel's headers.
    #[test]
    fn structures_have_the_kernels_layout() {
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!(offset_of!(FsXattr, projid), 12);
        assert_eq!(size_of::<QuotaState>(), 160);
        assert_eq!(offset_of!(QuotaState, flags), 2);
        assert_eq!(offset_of!(QuotaState, time_limits), 80);
        assert_eq!(offset_of!(QuotaState, pad2), 104);
        assert_eq!(size_of::<libc::dqblk>(), 72);
        assert_eq!(offset_of!(libc::dqblk, dqb_valid), 64);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!((GET, SET), (0x801c_581f, 0x401c_5820));
    }
}
