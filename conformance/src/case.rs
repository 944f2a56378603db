//! What a case is, and how it ends.

use std::fmt;
use std::panic::Location;

use layerstack_core::{Error, ErrorKind};

use crate::scene::Scene;

/// One case of the suite. Its name is that of its function, its clause the function's doc comment.
#[derive(Clone, Copy)]
pub struct Case {
    /// The name of the module that the case is in.
    pub group: &'static str,
    /// The name of the function.
    pub name: &'static str,
    pub(crate) source: &'static str,
    /// Whether it starts processes, so that no other case may run beside it: a process that is just being started
    /// holds what its parent has open, and a mount in which something is open cannot be taken away.
    pub(crate) alone: bool,
    pub(crate) run: fn(&Scene) -> Verdict,
}

impl Case {
    /// The contract's clause that the case checks: the doc comment of its function, in one line.
    #[must_use]
    pub fn clause(&self) -> String {
        let head = format!("fn {}(", self.name);
        let before = self.source.lines().take_while(|line| !line.starts_with(&head)).collect::<Vec<_>>();
        let start = before.iter().rposition(|line| !line.starts_with("///")).map_or(0, |last| last + 1);
        before[start..].iter().map(|line| line.trim_start_matches("///").trim()).collect::<Vec<_>>().join(" ")
    }

    /// Group and name: what filters are matched with.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full_name())
    }
}

/// How a case ends: nothing to say where it passed.
pub type Verdict<T = ()> = std::result::Result<T, Stop>;

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The clause does not hold; what was seen instead, and where in the suite.
    Failed(String),
    /// The case asks for what the driver's capabilities do not offer; the reason that they give.
    NotOffered(String),
    /// The case could not be run here, for the reason given.
    NotRun(String),
}

impl Stop {
    /// A failure, with the place that found it.
    #[track_caller]
    pub fn failed(what: impl fmt::Display) -> Self {
        let place = Location::caller();
        Self::Failed(format!("{what}\n    at {}:{}", place.file(), place.line()))
    }

    /// A case that asks for what the driver does not offer.
    pub fn not_offered(reason: impl Into<String>) -> Self {
        Self::NotOffered(reason.into())
    }

    /// The same, and before what was seen a word on where.
    #[must_use]
    pub fn within(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Failed(what) => Self::Failed(format!("{place}: {what}")),
            other => other,
        }
    }

    /// What it says, whatever it is.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Failed(what) | Self::NotOffered(what) | Self::NotRun(what) => what,
        }
    }

    /// A case that could not be run.
    pub fn not_run(reason: impl Into<String>) -> Self {
        Self::NotRun(reason.into())
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::failed(format_args!("unexpected error: {error:?}"))
    }
}

impl From<std::io::Error> for Stop {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        Self::failed(format_args!("unexpected error: {error}"))
    }
}

impl From<rustix::io::Errno> for Stop {
    #[track_caller]
    fn from(errno: rustix::io::Errno) -> Self {
        Self::from(std::io::Error::from(errno))
    }
}

/// The error of a call that must fail with `kind`.
///
/// # Errors
/// Where the call did not fail, or with another kind.
#[track_caller]
pub fn refused<T>(result: layerstack_core::Result<T>, kind: ErrorKind) -> Verdict<Error> {
    refused_as_one_of(result, &[kind])
}

/// As [`refused`], where the contract leaves the choice between kinds.
///
/// # Errors
/// Where the call did not fail, or with a kind that is not among `kinds`.
#[track_caller]
pub fn refused_as_one_of<T>(result: layerstack_core::Result<T>, kinds: &[ErrorKind]) -> Verdict<Error> {
    let wanted = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join("\" or \"");
    match result {
        Ok(_) => Err(Stop::failed(format_args!("succeeded, must be refused as \"{wanted}\""))),
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => Err(Stop::failed(format_args!("must be refused as \"{wanted}\", was: {error:?}"))),
    }
}

/// Ends the case as failed where the condition does not hold; the rest says what was seen, as `format!` has it.
macro_rules! check {
    ($condition:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::case::Stop::failed(format_args!($($seen)+)));
        }
    };
}

/// Ends the case as failed where two values differ; the rest says what they are, as `format!` has it.
macro_rules! check_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) => {
                if *found != *expected {
                    let what = format!($($what)+);
                    return Err($crate::case::Stop::failed(format_args!(
                        "{what}: is {found:?}, must be {expected:?}"
                    )));
                }
            }
        }
    };
}

/// The cases of a module, by the names of their functions: `cases!("create.rs": first, second; alone: third);`, where
/// those that start processes stand behind `alone`.
macro_rules! cases {
    ($file:literal: $($name:ident),* $(,)? $(; alone: $($process:ident),+ $(,)?)?) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[
            $($crate::case::case!($file, $name, false),)*
            $($($crate::case::case!($file, $process, true),)+)?
        ];
    };
}

/// One of the [`cases`].
macro_rules! case {
    ($file:literal, $name:ident, $alone:literal) => {
        $crate::case::Case {
            group: $crate::case::group($file),
            name: stringify!($name),
            source: include_str!($file),
            alone: $alone,
            run: $name,
        }
    };
}

pub(crate) use {case, cases, check, check_eq};

/// A group's name: that of its file, without the ending.
pub(crate) const fn group(file: &'static str) -> &'static str {
    match file.split_at_checked(file.len() - 3) {
        Some((stem, _)) => stem,
        None => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clause_is_the_doc_comment() {
        let source = "use x;\n\n/// One thing\n/// holds.\nfn one(scene: &Scene) -> Verdict {\n}\n\n/// Another.\nfn other(scene: &Scene) -> Verdict {\n}\n";
        let case = |name| Case { group: group("create.rs"), name, source, alone: false, run: |_| Ok(()) };
        assert_eq!(case("one").clause(), "One thing holds.");
        assert_eq!(case("other").clause(), "Another.");
        assert_eq!(case("one").full_name(), "create::one");
    }
}
