//! Standard input as the source of an archive.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::interrupt::Interrupt;

/// Standard input, on which an interrupt is noticed also while nothing comes.
#[derive(Debug)]
pub(crate) struct ArchiveIn<'a> {
    /// A descriptor of its own: the standard library's handle has a buffer, of which `poll(2)` knows nothing.
    stdin: File,
    interrupt: &'a Interrupt,
}

/// How long the user waits at most: short enough to feel immediate.
const PATIENCE: Duration = Duration::from_millis(100);

impl<'a> ArchiveIn<'a> {
    pub(crate) fn new(interrupt: &'a Interrupt) -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self { stdin: File::from(stdin), interrupt })
    }

    fn wait(&self) -> io::Result<()> {
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        while !self.interrupt.requested() {
            match poll(&mut [PollFd::new(&self.stdin, PollFlags::IN)], Some(&patience)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("stopped by the caller"))
    }
}

impl Read for ArchiveIn<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.stdin.read(buffer)
    }
}
