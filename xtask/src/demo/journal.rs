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
        for signal in [SIGINT, SIGTERM, SIGHUP] {
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
