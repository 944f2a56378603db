//! The program from outside, as a user or a script runs it, on every driver that works on this host.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed test panics, and says what it does not run"
)]

mod archive;

mod root;

mod crash;

mod interface;

mod json;

mod life;

mod sharing;
