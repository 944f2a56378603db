//! What is printed in the end.

use std::collections::BTreeMap;
use std::fmt;

/// What the rounds came to.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// How often the kill met what: the word of the last line that was said before it.
    kills: BTreeMap<String, u32>,
    /// How often the root was judged.
    judged: u32,
    /// Layers that were judged to be sealed and as they must be, and others that were whole, over all rounds.
    layers: (u64, u64),
    /// How often all layers were removed and nothing was left.
    emptied: u32,
    /// What opening the root has mended, by kind.
    recovered: BTreeMap<String, u32>,
    /// Layers that were sealed.
    made: u32,
}

impl Summary {
    /// Takes in a line that a victim said.
    pub(super) fn hear(&mut self, line: &str) {
        let (word, of) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "recovered" => *self.recovered.entry(of.to_owned()).or_default() += 1,
            "checked" => {
                let mut counts = of.split(' ').filter_map(|count| count.parse::<u64>().ok());
                self.judged += 1;
                self.layers.0 += counts.next().unwrap_or_default();
                self.layers.1 += counts.next().unwrap_or_default();
            }
            "sealed" => self.made += 1,
            "emptied" => self.emptied += 1,
            _ => {}
        }
    }

    /// Takes in the last line before a kill.
    pub(super) fn killed_at(&mut self, line: &str) {
        let word = line.split(' ').next().unwrap_or_default();
        *self.kills.entry(word.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds: u32 = self.kills.values().sum();
        let (sealed, others) = self.layers;
        writeln!(f, "power losses: {rounds}, met by {}", list(&self.kills))?;
        writeln!(
            f,
            "roots judged: {}, with {sealed} sealed layers and {others} others, all good",
            self.judged
        )?;
        writeln!(f, "roots emptied: {}, with nothing left behind", self.emptied)?;
        writeln!(f, "layers sealed meanwhile: {}", self.made)?;
        writeln!(f, "mended on opening: {}", list(&self.recovered))
    }
}

/// The counts by name, the highest first.
fn list(counts: &BTreeMap<String, u32>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|(_, one), (_, other)| other.cmp(one));
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_what_was_said() {
        let mut summary = Summary::default();
        for line in
            ["opening", "recovered lost", "recovered removed", "recovered lost", "checked 3 1", "working"]
        {
            summary.hear(line);
        }
        summary.hear("checked 4 0");
        summary.hear("sealed a");
        for line in ["applying a", "removing b", "applying c"] {
            summary.killed_at(line);
        }
        let text = summary.to_string();
        for part in [
            "power losses: 3, met by applying 2, removing 1\n",
            "roots judged: 2, with 7 sealed layers and 1 others",
            "sealed meanwhile: 1\n",
            "mended on opening: lost 2, removed 1\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
