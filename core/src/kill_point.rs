//! Named points between two steps of an operation, at which the conformance suite kills the process.
//!
//! Compiled in with the feature `kill-points` only; without it [`kill_point!`](crate::kill_point!) is nothing.
//!
//! | environment variable | effect |
//! |---|---|
//! | `LAYERSTACK_KILL_LOG=FILE` | each point that is passed appends its name as a line to FILE |
//! | `LAYERSTACK_KILL_AT=NAME` | the process kills itself (`SIGKILL`) at the first pass of NAME |
//! | `LAYERSTACK_KILL_AT=NAME:N` | the same at the Nth pass, from 1 |

/// A point at which the suite may kill the process: `kill_point!("layers.create.recorded")`.
#[macro_export]
macro_rules! kill_point {
    ($name:literal) => {
        $crate::kill_point::pass($name)
    };
}

/// What [`kill_point!`](crate::kill_point!) does.
#[cfg(not(feature = "kill-points"))]
#[inline(always)]
#[doc(hidden)]
pub fn pass(_name: &'static str) {}

/// What [`kill_point!`](crate::kill_point!) does.
#[cfg(feature = "kill-points")]
#[doc(hidden)]
pub fn pass(name: &'static str) {
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    static PASSES: Mutex<Option<HashMap<&'static str, u32>>> = Mutex::new(None);

    if let Some(log) = std::env::var_os("LAYERSTACK_KILL_LOG")
        && let Ok(mut log) = std::fs::OpenOptions::new().create(true).append(true).open(log)
    {
        // A log that cannot be written shows in the suite as a point that was never reached.
        let _ = log.write_all(format!("{name}\n").as_bytes());
    }
    let Ok(at) = std::env::var("LAYERSTACK_KILL_AT") else { return };
    let (wanted, pass) = match at.rsplit_once(':') {
        Some((wanted, pass)) => (wanted, pass.parse().unwrap_or(1)),
        None => (at.as_str(), 1),
    };
    if wanted != name {
        return;
    }
    let mut passes = PASSES.lock().unwrap_or_else(PoisonError::into_inner);
    let count = passes.get_or_insert_default().entry(name).or_insert(0);
    *count += 1;
    if *count == pass {
        // The signal cannot be blocked, so this does not return.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
