//! Medians, ratios, tables.

use std::fmt;

/// All tables of a run.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Report {
    /// Where it ran, and what else ran there.
    pub(crate) machine: String,
    pub(crate) tables: Vec<Table>,
}

/// The machine, and how busy it was in the last 15 minutes: other work makes all figures worse than they are.
pub(crate) fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().nth(2).unwrap_or("unknown");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processors} processors, Linux {}, {load} processes ready to run on average", kernel.trim())
}

/// Contestants in rows, and how each stands to the first one.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Table {
    /// What was measured, and in which unit.
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// What a reader must know to compare the rows.
    pub(crate) notes: Vec<String>,
}

/// One contestant.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The median of the rounds; None where it did not run.
    pub(crate) median: Option<f64>,
    pub(crate) lowest: Option<f64>,
    pub(crate) highest: Option<f64>,
    /// Its median divided by Layerstack's: how many times as long it takes.
    pub(crate) ratio: Option<f64>,
    /// What it does besides, or why it did not run.
    pub(crate) remark: String,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds what a contestant took in each round. The first one added is Layerstack.
    pub(crate) fn measured(&mut self, name: &str, rounds: &[f64], remark: &str) {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        self.add(name, median(&sorted), sorted.first().copied(), sorted.last().copied(), remark);
    }

    /// Adds a contestant that did not run.
    pub(crate) fn not_run(&mut self, name: &str, why: &str) {
        self.add(name, None, None, None, &format!("not run: {why}"));
    }

    fn add(
        &mut self,
        name: &str,
        median: Option<f64>,
        lowest: Option<f64>,
        highest: Option<f64>,
        remark: &str,
    ) {
        let first = self.rows.first().map_or(median, |row| row.median);
        let ratio = median.zip(first).map(|(median, first)| median / first);
        self.rows.push(Row {
            name: name.to_owned(),
            median,
            lowest,
            highest,
            ratio,
            remark: remark.to_owned(),
        });
    }
}

/// The median of sorted numbers.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, sorted[middle])),
        _ => sorted.get(middle).copied(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "  {:width$}  {:>9}  {:>9}  {:>9}  {:>7}", "", "median", "lowest", "highest", "ratio")?;
        for row in &self.rows {
            let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
            let ratio = row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}x"));
            let line = format!(
                "  {:width$}  {:>9}  {:>9}  {:>9}  {ratio:>7}  {}",
                row.name,
                number(row.median),
                number(row.lowest),
                number(row.highest),
                row.remark,
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// A number with as many digits as say something.
fn shown(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_ratios_are_to_the_first_row() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, 3.0]), Some(2.0));
        let mut table = Table::new("t");
        table.measured("ours", &[3.0, 1.0, 2.0], "");
        table.measured("theirs", &[4.0, 6.0], "and more");
        table.not_run("another", "not installed");
        assert_eq!(table.rows[0].ratio, Some(1.0));
        assert_eq!(table.rows[1].ratio, Some(2.5));
        assert_eq!(table.rows[2].ratio, None);
        let text = table.to_string();
        assert!(text.contains("2.50x  and more") && text.contains("not run: not installed"), "{text}");
    }

    #[test]
    fn without_layerstack_there_are_no_ratios() {
        let mut table = Table::new("t");
        table.not_run("ours", "broken");
        table.measured("theirs", &[4.0], "");
        assert_eq!(table.rows[1].ratio, None);
    }
}
