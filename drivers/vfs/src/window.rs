//! When a layer's tree was copied: the change times (ctimes) that say "not touched since".
//!
//! A file that somebody changes after the copy can get back its old size and mtime, but not its old ctime. So a diff
//! need not read files whose ctime is one that the copy gave. Which ctimes are these?
//!
//! Let a marker file in the same file system be changed before the copy starts, and again after it ended; let B and E
//! be the ctimes that it has then. Both, as all ctimes of the tree, come from the one clock of the file system (the
//! server's, on a network file system), rounded as it rounds (to a tick, a microsecond, a second). Successive changes
//! never get a decreasing ctime while that clock is not set back: the kernel reads its coarse clock, and where it hands
//! out a finer time to tell two changes apart (multigrain timestamps, Linux 6.13) it raises the floor of all that
//! follow. So
//!
//! * what the copy did last to a file was between the two changes of the marker: B ≤ ctime ≤ E;
//! * what anybody did after that came after the second one: ctime ≥ E.
//!
//! Only at E itself can it be either. So the window is [B, E − 1 ns]: every ctime in it is the copy's. Files of the
//! copy's last tick may have E too and are read in vain. With multigrain timestamps none has: the marker is changed
//! twice and looked at in between, and a change after a look gets a time later than any before.
//!
//! A clock that is set back to within the time of the copy, and a change that falls right there, deceive this; B is
//! there so that it takes both. A window that is absent or unreadable (a layer of Docker's, a power loss before the
//! layer was sealed) means that all content is compared; a tree that was copied elsewhere has ctimes of its own, with
//! the same effect.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use layerstack_core::LayerId;
use layerstack_core::driver::CtimeWindow;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// The marker of a copy under way.
#[derive(Debug)]
pub(crate) struct Marker {
    file: OwnedFd,
    from_ns: i128,
}

impl Marker {
    /// Before the copy.
    pub(crate) fn begin(windows: BorrowedFd<'_>, id: &LayerId) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(windows, id.as_str(), flags, MODE)?;
        // The file may be there from an interrupted copy; its ctime must not be.
        let from_ns = touch(&file)?;
        Ok(Self { file, from_ns })
    }

    /// After the copy: writes the window down.
    pub(crate) fn end(self) -> std::io::Result<()> {
        touch(&self.file)?;
        let to_ns = touch(&self.file)? - 1;
        File::from(self.file).write_all(format!("{} {to_ns}\n", self.from_ns).as_bytes())
    }
}

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Changes the ctime of a file to now, and returns it.
fn touch(file: &OwnedFd) -> Result<i128, Errno> {
    rustix::fs::fchmod(file, MODE)?;
    let stat = rustix::fs::fstat(file)?;
    Ok(i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec))
}

/// The window of a layer; [`CtimeWindow::NEVER`] where none is known.
pub(crate) fn read(windows: BorrowedFd<'_>, id: &LayerId) -> std::io::Result<CtimeWindow> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(windows, id.as_str(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(CtimeWindow::NEVER),
        opened => File::from(opened?),
    };
    let mut text = Vec::new();
    // No window is longer: two times of at most 30 digits.
    file.take(100).read_to_end(&mut text)?;
    Ok(parse(&text).unwrap_or(CtimeWindow::NEVER))
}

/// Takes the window of a layer away; that there is none is no error.
pub(crate) fn remove(windows: BorrowedFd<'_>, id: &LayerId) -> Result<(), Errno> {
    match rustix::fs::unlinkat(windows, id.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn parse(text: &[u8]) -> Option<CtimeWindow> {
    // Without the line's end a half-written number would pass for a whole one.
    let line = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (from, to) = line.split_once(' ')?;
    Some(CtimeWindow { from_ns: from.parse().ok()?, to_ns: to.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_a_whole_line_is_a_window() {
        assert_eq!(parse(b"-5 17\n"), Some(CtimeWindow { from_ns: -5, to_ns: 17 }));
        for text in ["", "\n", "5 17", "5\n", "5 x\n", "5 17 18\n", "\0\0\0\0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    /// Changes right after the end of the copy, again and again: none may pass for the copy's.
    #[test]
    fn no_later_change_falls_into_the_window() {
        let ctime = |path: &std::path::Path| {
            let meta = path.symlink_metadata().unwrap();
            i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
        };
        for place in ["/dev/shm".into(), std::env::temp_dir()] {
            let scratch = tempfile::tempdir_in(&place).unwrap();
            let directory = File::open(scratch.path()).unwrap();
            let id = LayerId::new("layer").unwrap();
            let path = scratch.path().join("file");
            let mut recognised = 0;
            for _ in 0..2000 {
                let marker = Marker::begin(directory.as_fd(), &id).unwrap();
                std::fs::write(&path, "a").unwrap();
                marker.end().unwrap();
                let window = read(directory.as_fd(), &id).unwrap();
                recognised += u32::from(window.contains(ctime(&path)));
                std::fs::write(&path, "b").unwrap();
                assert!(!window.contains(ctime(&path)), "{window:?}, ctime {}", ctime(&path));
            }
            println!("{}: {recognised} of 2000 untouched files recognised", place.display());
        }
    }
}
