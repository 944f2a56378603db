//! Driver by group: how many cases passed, failed, did not run, are not offered; and the reasons.

use std::fmt::Write as _;

use super::outcome::{Outcome, Record};

/// What stands above a column.
#[derive(Debug)]
pub(crate) struct Column {
    /// The driver's name.
    pub(crate) driver: String,
    /// Where its suite ran.
    pub(crate) place: String,
}

/// The matrix as text, with the reasons below it.
pub(crate) fn text(columns: &[Column], records: &[Record]) -> String {
    let drivers: Vec<&str> = columns.iter().map(|column| column.driver.as_str()).collect();
    let mut groups: Vec<&str> = Vec::new();
    for record in records {
        if !groups.contains(&record.group.as_str()) {
            groups.push(&record.group);
        }
    }
    let mut rows = vec![
        row("group", drivers.iter().map(|&driver| driver.to_owned())),
        row("on", columns.iter().map(|column| column.place.clone())),
    ];
    for group in groups {
        rows.push(row(group, drivers.iter().map(|driver| cell(records, driver, Some(group)))));
    }
    rows.push(row("total", drivers.iter().map(|driver| cell(records, driver, None))));
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    for cells in &rows {
        let line: String = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<w$}  ", w = width(column)))
            .collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for outcome in [Outcome::Failed, Outcome::NotRun, Outcome::NotOffered] {
        reasons(&mut text, outcome, records);
    }
    text
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// The counts of a driver in a group, or in all.
fn cell(records: &[Record], driver: &str, group: Option<&str>) -> String {
    let here = records
        .iter()
        .filter(|record| record.driver == driver && group.is_none_or(|group| record.group == group));
    let mut counts = Vec::new();
    for outcome in Outcome::ALL {
        let count = here.clone().filter(|record| record.outcome == outcome).count();
        if count > 0 {
            counts.push(format!("{count} {}", outcome.as_str()));
        }
    }
    if counts.is_empty() { "-".to_owned() } else { counts.join(", ") }
}

/// Each case of an outcome with the first line of its reason; those of one reason together.
fn reasons(text: &mut String, outcome: Outcome, records: &[Record]) {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for record in records.iter().filter(|record| record.outcome == outcome) {
        let reason = record.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        let reason = format!("{}: {reason}", record.driver);
        let case = format!("{}::{}", record.group, record.case);
        match found.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, cases)) => cases.push(case),
            None => found.push((reason, vec![case])),
        }
    }
    if !found.is_empty() {
        let _ = writeln!(text, "\n{}:", outcome.as_str());
    }
    for (reason, cases) in found {
        let _ = writeln!(text, "  {reason}");
        for case in cases {
            let _ = writeln!(text, "    {case}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_has_a_column_and_every_reason_is_told_once() {
        let record = |driver: &str, group: &str, case: &str, outcome, reason: Option<&str>| Record {
            driver: driver.to_owned(),
            group: group.to_owned(),
            case: case.to_owned(),
            clause: String::new(),
            outcome,
            reason: reason.map(str::to_owned),
            seconds: 0.0,
            on: String::new(),
        };
        let records = [
            record("a", "create", "x", Outcome::Passed, None),
            record("a", "create", "y", Outcome::Failed, Some("seen\nmore")),
            record("b", "create", "x", Outcome::Passed, None),
            record("b", "quota", "z", Outcome::NotRun, Some("no store")),
            record("b", "quota", "w", Outcome::NotRun, Some("no store")),
        ];
        let column =
            |driver: &str, place: &str| Column { driver: driver.to_owned(), place: place.to_owned() };
        let text = text(&[column("a", "host, kernel 6.18"), column("b", "uml, kernel 6.1")], &records);
        let wanted = "\
group   a                   b
on      host, kernel 6.18   uml, kernel 6.1
create  1 passed, 1 failed  1 passed
quota   -                   2 not run
total   1 passed, 1 failed  1 passed, 2 not run

failed:
  a: seen
    create::y

not run:
  b: no store
    quota::z
    quota::w
";
        assert_eq!(text, wanted);
    }
}
