//! What became of each part, and the summary.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A part of the tests.
pub(crate) struct Part {
    /// What it is called in the summary.
    pub(crate) name: String,
    /// Runs it; an error is a failure.
    pub(crate) run: Box<dyn Fn() -> Result<Outcome>>,
}

impl Part {
    pub(crate) fn new(name: impl Into<String>, run: impl Fn() -> Result<Outcome> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// How a part that did not fail ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ran, and all was well.
    Passed,
    /// It could not run here, for this reason. A CI has to have what it needs: there it is a failure.
    NotRun(String),
    /// It could not run here, for this reason, and need not anywhere.
    Optional(String),
}

/// The parts that ran so far.
#[derive(Debug)]
pub(crate) struct Report {
    in_ci: bool,
    started: Instant,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    verdict: Verdict,
    took: Duration,
}

#[derive(Debug)]
enum Verdict {
    Passed,
    Failed(String),
    NotRun(String),
}

impl Report {
    /// A report without rows. In a CI a part that could not run is a failure.
    pub(crate) fn new(in_ci: bool) -> Self {
        Self { in_ci, started: Instant::now(), rows: Vec::new() }
    }

    /// Notes what the host lacks although it was to be installed.
    pub(crate) fn set_up(&mut self, missing: &[String]) {
        let outcome = if missing.is_empty() { Outcome::Passed } else { Outcome::NotRun(missing.join("; ")) };
        self.add("setup", Ok(outcome), self.started.elapsed());
    }

    /// Runs a part and notes what became of it.
    pub(crate) fn run(&mut self, part: &Part) {
        println!("\n=== {} ===", part.name);
        let start = Instant::now();
        let outcome = (part.run)();
        self.add(&part.name, outcome, start.elapsed());
        if let Some(Row { verdict: Verdict::Failed(reason) | Verdict::NotRun(reason), .. }) = self.rows.last()
        {
            println!("{}: {reason}", part.name);
        }
    }

    fn add(&mut self, name: &str, outcome: Result<Outcome>, took: Duration) {
        let verdict = match outcome {
            Ok(Outcome::Passed) => Verdict::Passed,
            Ok(Outcome::NotRun(reason)) if self.in_ci => Verdict::Failed(format!("could not run: {reason}")),
            Ok(Outcome::NotRun(reason) | Outcome::Optional(reason)) => Verdict::NotRun(reason),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        self.rows.push(Row { name: name.to_owned(), verdict, took });
    }

    /// Prints the summary and gives the exit code: success where nothing failed and something passed.
    pub(crate) fn finish(&self) -> ExitCode {
        print!("{}", self.summary());
        if self.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn succeeded(&self) -> bool {
        let (passed, failed, _) = self.counts();
        failed == 0 && passed > 0
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Verdict) -> bool| self.rows.iter().filter(|row| wanted(&row.verdict)).count();
        (
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::NotRun(_))),
        )
    }

    fn summary(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = format!("\n=== summary, {} s in all ===\n", self.started.elapsed().as_secs());
        for Row { name, verdict, took } in &self.rows {
            let (word, reason) = match verdict {
                Verdict::Passed => ("passed", ""),
                Verdict::Failed(reason) => ("FAILED", reason.as_str()),
                Verdict::NotRun(reason) => ("not run", reason.as_str()),
            };
            let line = format!("{word:8} {name:width$} {:7.1} s  {reason}", took.as_secs_f64());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let (passed, failed, skipped) = self.counts();
        let _ = write!(text, "{passed} passed, {failed} failed");
        if skipped > 0 {
            let _ = write!(text, ", {skipped} skipped");
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(in_ci: bool, outcomes: Vec<Result<Outcome>>) -> Report {
        let mut report = Report::new(in_ci);
        for outcome in outcomes {
            report.add("part", outcome, Duration::from_millis(1500));
        }
        report
    }

    #[test]
    fn the_last_line_counts_and_the_rows_say_why() {
        let report = report(
            false,
            vec![
                Ok(Outcome::Passed),
                Err(anyhow::anyhow!("it broke")),
                Ok(Outcome::NotRun("no root".into())),
            ],
        );
        let summary = report.summary();
        assert!(summary.ends_with("\n1 passed, 1 failed, 1 skipped\n"), "{summary}");
        assert!(summary.contains("FAILED   part     1.5 s  it broke\n"), "{summary}");
        assert!(summary.contains("not run  part     1.5 s  no root\n"), "{summary}");
        assert!(!report.succeeded());
    }

    #[test]
    fn what_could_not_run_fails_in_a_ci_only() {
        let outcomes = || vec![Ok(Outcome::Passed), Ok(Outcome::NotRun("no root".into()))];
        assert!(report(false, outcomes()).succeeded());
        assert!(!report(true, outcomes()).succeeded());
        let optional = vec![Ok(Outcome::Passed), Ok(Outcome::Optional("no such tool chain".into()))];
        assert!(report(true, optional).succeeded());
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!report(false, vec![]).succeeded());
        assert!(!report(false, vec![Ok(Outcome::NotRun("x".into()))]).succeeded());
    }
}
