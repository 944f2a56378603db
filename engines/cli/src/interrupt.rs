//! Ctrl-C: an operation stops where it can and leaves nothing behind.
//!
//! The first signal asks the operation to stop; the second one ends the process as it would any program. What that
//! leaves, the next command clears away, as after a `kill -9`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the user wants it to stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals from now on. One that the process was started to ignore, as a shell starts what is to run in
    /// the background, stays ignored.
    pub(crate) fn watch() -> io::Result<Self> {
        let interrupt = Self::default();
        let ignored = ignored_signals();
        for signal in [SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0) {
            // In this order: the default action is taken where the flag was set before the signal came.
            flag::register_conditional_default(signal, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The signals that this process ignores, one bit each (proc_pid_status(5), `SigIgn`); none where it cannot be read.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_library_ignores_sigpipe_and_nothing_else_here() {
        // 13 is SIGPIPE (signal(7)), which Rust's runtime ignores.
        assert_ne!(ignored_signals() & (1 << 12), 0);
    }
}
