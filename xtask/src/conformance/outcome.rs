//! What the suite says of each case.

use anyhow::{Context as _, Result};

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The clause holds.
    Passed,
    /// It does not.
    Failed,
    /// It is about something that the driver's capabilities do not offer.
    NotOffered,
    /// It could not be run here.
    NotRun,
}

impl Outcome {
    /// All of them, in the order in which they are printed.
    pub(crate) const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::NotRun, Self::NotOffered];

    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotOffered => "not offered",
            Self::NotRun => "not run",
        }
    }
}

/// A line of the suite's report.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// The driver.
    pub(crate) driver: String,
    /// The group of the case.
    pub(crate) group: String,
    /// Its name.
    pub(crate) case: String,
    /// The clause of the contract that it checks.
    pub(crate) clause: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What was seen, or why it did not run.
    pub(crate) reason: Option<String>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Where it ran: on the host or in what guest, and on which kernel.
    #[serde(default)]
    pub(crate) on: String,
}

impl Record {
    /// A case that could not be run at all.
    pub(crate) fn not_run(driver: &str, name: &str, reason: &str) -> Self {
        Self::without_end(driver, name, Outcome::NotRun, reason)
    }

    /// A case of which the suite itself told nothing.
    fn without_end(driver: &str, name: &str, outcome: Outcome, reason: &str) -> Self {
        let (group, case) = name.split_once("::").unwrap_or(("", name));
        Self {
            driver: driver.to_owned(),
            group: group.to_owned(),
            case: case.to_owned(),
            clause: String::new(),
            outcome,
            reason: Some(reason.to_owned()),
            seconds: 0.0,
            on: String::new(),
        }
    }
}

/// What came out of one driver's suite on one kernel.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Report {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Why nothing ran, where the driver cannot work on this kernel and was to be left alone then.
    pub(crate) unavailable: Option<String>,
    /// The cases, in the order of the suite.
    pub(crate) records: Vec<Record>,
}

/// The records of a report, and one more, as failed, for each case that should have ended and is not in it.
pub(crate) fn complete(driver: &str, cases: &[String], report: &str) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for line in report.lines() {
        records.push(serde_json::from_str::<Record>(line).context("the suite wrote a report that is none")?);
    }
    for name in cases {
        let (group, case) = name.split_once("::").unwrap_or(("", name));
        if !records.iter().any(|record| record.group == group && record.case == case) {
            let reason = "the suite ended before this case did";
            records.push(Record::without_end(driver, name, Outcome::Failed, reason));
        }
    }
    // As the suite has them, not as they happened to end.
    let place = |record: &Record| {
        let name = format!("{}::{}", record.group, record.case);
        cases.iter().position(|case| *case == name)
    };
    records.sort_by_key(place);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_did_not_end_has_failed() {
        let report = r#"{"driver":"d","group":"g","case":"b","clause":"c","outcome":"not-run","reason":"r","seconds":1.5}"#;
        let records = complete("d", &["g::a".to_owned(), "g::b".to_owned()], report).unwrap();
        let seen: Vec<_> = records.iter().map(|record| (record.case.as_str(), record.outcome)).collect();
        assert_eq!(seen, [("a", Outcome::Failed), ("b", Outcome::NotRun)]);
        assert!(complete("d", &[], "no report").is_err());
    }
}
