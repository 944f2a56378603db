//! What the kernel knows of mounts, asked without core's help.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::case::{Stop, Verdict};

/// The places at or below `directory` where something is mounted, in the order in which it was.
///
/// # Errors
/// Where the mount table cannot be read.
pub fn mounts_below(directory: &Path) -> Verdict<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let directory = directory.canonicalize()?;
    Ok(mount_points(&table).into_iter().filter(|point| point.starts_with(&directory)).collect())
}

/// The fifth field of each line of a mount table (proc_pid_mountinfo(5)), its octal escapes undone.
fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| OsString::from_vec(unescape(field)).into()).collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// Takes a mount away as an administrator would, behind the back of whoever made it.
///
/// # Errors
/// What the kernel gives.
pub fn take_away(target: &Path) -> Verdict {
    rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(())
}

/// Takes away every mount at or below a directory, the newest first.
///
/// # Errors
/// Where the mount table cannot be read or a mount stays.
pub fn take_away_all(directory: &Path) -> Verdict {
    for target in mounts_below(directory)?.iter().rev() {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone together with one that was taken away before it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Stop::failed(format_args!("unmount {}: {errno}", target.display()))),
        }
    }
    Ok(())
}

/// Mounts with mount(2), as a foreign program does that was handed the plan's words.
///
/// # Errors
/// What the kernel gives.
pub fn mount_by_words(spec: &layerstack_core::mount::MountSpec, target: &Path) -> Verdict {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in &spec.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => {}
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            other => data.push(other),
        }
    }
    if flags.contains(MountFlags::BIND) {
        rustix::mount::mount(&spec.source, target, c"", flags & !MountFlags::RDONLY, None)?;
        if flags.contains(MountFlags::RDONLY) {
            let again = MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(target, again, c"")?;
        }
        return Ok(());
    }
    let data = CString::new(data.join(",")).map_err(Stop::failed)?;
    rustix::mount::mount(&spec.source, target, spec.fstype.as_str(), flags, data.as_c_str())
        .map_err(|errno| Stop::failed(format_args!("mount -t {} -o {data:?}: {errno}", spec.fstype)))
}

/// The bytes that are free for everybody on the file system of `path`.
///
/// # Errors
/// What the kernel gives.
pub fn free_bytes(path: &Path) -> Verdict<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// The memory that this process uses now, in KiB; from here on the most that it uses is counted anew (`5` written to
/// `clear_refs`, proc_pid_clear_refs(5)).
///
/// # Errors
/// Where the kernel does not tell.
pub fn watch_memory() -> Verdict<u64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    peak_memory()
}

/// The most memory that this process has used since it was last watched, in KiB (`VmHWM` of proc_pid_status(5)).
fn peak_memory() -> Verdict<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(Stop::failed)
}

/// Fails the case where much more memory than `mebibytes` was used since [`watch_memory`] gave `before`. Other cases
/// run in this process too, and 100 MiB are theirs; what must not be used is more than that by far.
///
/// # Errors
/// Where it was.
#[track_caller]
pub fn memory_stayed_below(before: u64, mebibytes: u64) -> Verdict {
    let taken = peak_memory()?.saturating_sub(before) >> 10;
    crate::case::check!(taken < mebibytes + 100, "{taken} MiB more were in use");
    Ok(())
}

/// Takes `CAP_SYS_RESOURCE` from this thread, and gives what the thread had before.
pub(crate) fn give_up_resource() -> Verdict<CapabilitySets> {
    let before = capabilities(None)?;
    let effective = before.effective - CapabilitySet::SYS_RESOURCE;
    set_capabilities(None, CapabilitySets { effective, ..before })?;
    Ok(before)
}

/// Gives this thread the capabilities back that it had.
pub(crate) fn take_back(before: CapabilitySets) -> Verdict {
    Ok(set_capabilities(None, before)?)
}

/// Whether this process may mount: bit 21, `CAP_SYS_ADMIN` (capabilities(7)), of its effective set.
#[must_use]
pub(crate) fn may_mount() -> bool {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let text = String::from_utf8_lossy(&status);
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & (1 << 21) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let table =
            b"36 35 98:0 / /a rw - ext4 /dev/x rw\n37 36 0:5 / /a/with\\040space\\134 rw - tmpfs t rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/a"), PathBuf::from("/a/with space\\")]);
    }
}
