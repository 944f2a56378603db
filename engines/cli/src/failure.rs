//! What went wrong, as people and scripts see it.

use std::fmt;
use std::io::{self, Write};

use layerstack::{Error, ErrorKind};

use crate::arguments::Arguments;
use crate::text;

/// The result of a command.
pub(crate) type Done<T = ()> = Result<T, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store could not do it.
    Store {
        /// What was tried: fits after "failed to ".
        action: String,
        /// What the store says.
        error: Error,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// The command line is wrong in a way that its grammar cannot say.
    Usage(String),
    /// Results could not be written to standard output.
    Output(io::Error),
    /// `check` found this many things, and printed them.
    Findings(usize),
    /// The user wanted it to stop.
    Interrupted,
    /// Some of several things that were asked for.
    Several(Vec<Failure>),
}

/// Makes an error of the store the failure of an action: `.map_err(failed("list the images"))`.
pub(crate) fn failed(action: impl Into<String>) -> impl FnOnce(Error) -> Failure {
    move |error| {
        let lacks_root = error.kind() == ErrorKind::PermissionDenied;
        let hint = lacks_root.then_some("storage drivers need root");
        Failure::Store { action: action.into(), error, hint }
    }
}

impl Failure {
    /// Adds what to do about an error of the kind given.
    pub(crate) fn hint_on(mut self, wanted: ErrorKind, advice: &'static str) -> Self {
        if let Self::Store { error, hint, .. } = &mut self
            && error.kind() == wanted
        {
            *hint = Some(advice);
        }
        self
    }

    /// Does `action` for each of several things, also after one failed: what came of those that did not, and the
    /// failures of those that did.
    pub(crate) fn of_each<T, R>(things: &[T], action: impl FnMut(&T) -> Done<R>) -> (Vec<R>, Done) {
        let mut results = Vec::new();
        let mut failures = Vec::new();
        for result in things.iter().map(action) {
            match result {
                Ok(result) => results.push(result),
                Err(failure) => failures.push(failure),
            }
        }
        let outcome = match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Self::Several(failures)),
        };
        (results, outcome)
    }

    /// Tells the user, on standard error, in one line a failure.
    pub(crate) fn report(&self) {
        match self {
            Self::Usage(message) => {
                let error =
                    Arguments::grammar().error(clap::error::ErrorKind::MissingRequiredArgument, message);
                // There is nobody left to tell where standard error cannot be written.
                let _ = error.print();
            }
            Self::Several(failures) => failures.iter().for_each(Self::report),
            // Whoever closed the pipe has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            _ => complain(&self.to_string()),
        }
    }

    /// The process's exit code; the table is in the help. Of several failures the first one's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Store { error, .. } => match error.kind() {
                ErrorKind::NotFound => 3,
                ErrorKind::AlreadyExists => 4,
                ErrorKind::InUse | ErrorKind::HasChildren | ErrorKind::NotSealed => 5,
                ErrorKind::Unavailable | ErrorKind::Unsupported => 6,
                ErrorKind::NoSpace | ErrorKind::QuotaExceeded => 7,
                ErrorKind::PermissionDenied => 8,
                ErrorKind::Corrupt => 9,
                _ => 1,
            },
            Self::Usage(_) => 2,
            // 128 + SIGPIPE: what a shell reports of a program that the signal ended.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Self::Output(_) => 1,
            Self::Findings(_) => 9,
            // 128 + SIGINT: what a shell reports of a program that the signal ended.
            Self::Interrupted => 130,
            Self::Several(failures) => failures.first().map_or(1, Self::exit_code),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { action, error, hint } => {
                write!(f, "failed to {action}: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
            }
            Self::Usage(message) => f.write_str(message),
            Self::Output(error) => write!(f, "failed to write to standard output: {error}"),
            Self::Findings(1) => f.write_str("1 thing in the store does not agree"),
            Self::Findings(count) => write!(f, "{count} things in the store do not agree"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Several(failures) => write!(f, "{} failures", failures.len()),
        }
    }
}

/// Prints one line on standard error, with the program's name before it.
pub(crate) fn complain(message: &str) {
    // There is nobody left to tell where standard error cannot be written.
    let _ = writeln!(io::stderr().lock(), "layerstack: {}", text::one_line(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_action_the_causes_and_the_hint_in_one_line() {
        let error = Error::new(ErrorKind::PermissionDenied, "open").with_source(io::Error::other("a\nb"));
        let failure = failed("list the images")(error);
        let message = text::one_line(&failure.to_string()).into_owned();
        assert_eq!(message, "failed to list the images: open: a b (storage drivers need root)");
        assert_eq!(failure.exit_code(), 8);
    }

    #[test]
    fn the_first_of_several_failures_gives_the_exit_code() {
        let failure = |kind| failed("x")(Error::new(kind, "y"));
        let kinds = [None, Some(ErrorKind::NotFound), Some(ErrorKind::InUse)];
        let (done, outcome) = Failure::of_each(&kinds, |kind| kind.map_or(Ok(7), |kind| Err(failure(kind))));
        assert_eq!((done, outcome.unwrap_err().exit_code()), (vec![7], 3));
    }
}
