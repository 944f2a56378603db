//! What each step did and how long it took.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The steps so far.
#[derive(Debug)]
pub(super) struct Journal {
    steps: RefCell<Vec<(String, Duration)>>,
    /// Set by a signal that would have ended the process: the step at hand fails, and then all is tidied up.
    interrupted: Arc<AtomicBool>,
}

impl Journal {
    /// A journal without steps. From here on signals that ask the process to end only end the step at hand.
    pub(super) fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // What was ignored from the start, as under nohup, stays so.
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal, &status)) {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("failed to listen for signals")?;
        }
        Ok(Self { steps: RefCell::default(), interrupted })
    }

    /// Says what is about to be done, does it, and says how long it took.
    pub(super) fn step<T>(&self, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.steps.borrow().len() + 1;
        println!("\n{number:2}. {what}");
        let start = Instant::now();
        let done = act().with_context(|| format!("failed to {what}"))?;
        let took = start.elapsed();
        self.steps.borrow_mut().push((what.to_owned(), took));
        println!("    took {:.2} s", took.as_secs_f64());
        Ok(done)
    }

    /// Fails once the process was asked to end.
    pub(super) fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Prints all steps.
    pub(super) fn summary(&self) {
        println!("\nEverything went well:");
        for (number, (what, took)) in self.steps.borrow().iter().enumerate() {
            println!("{:2}. {what:68} {:7.2} s", number + 1, took.as_secs_f64());
        }
    }
}

/// Whether the process of this `/proc/PID/status` ignores a signal: bit N-1 of the mask `SigIgn` (proc(5)).
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_told_from_others() {
        let status = "SigBlk:\t0000000000004000\nSigIgn:\t0000000180001003\n";
        assert!(is_ignored(SIGHUP, status));
        assert!(is_ignored(SIGINT, status));
        assert!(!is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGINT, ""));
    }
}
