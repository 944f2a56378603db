//! What the victims have said of their layers. The words are those of the suite's module `power_loss`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The line that says that the judging is over.
pub(super) const WORKING: &str = "working";

/// What holds after all that was said so far.
#[derive(Debug, Default)]
pub(super) struct Promises {
    layers: Layers,
    empty: Option<Value>,
}

#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Layers {
    sealed: BTreeSet<String>,
    doubtful: BTreeSet<String>,
}

impl Promises {
    /// The layers that are there, and those that may be.
    pub(super) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What the root had without layers, as the victim has put it.
    pub(super) fn empty(&self) -> Option<&Value> {
        self.empty.as_ref()
    }

    /// Takes in a whole line.
    pub(super) fn hear(&mut self, line: &str) -> Result<()> {
        let Some((word, of)) = line.split_once(' ') else { return Ok(()) };
        let Layers { sealed, doubtful } = &mut self.layers;
        match word {
            "creating" => {
                doubtful.insert(of.to_owned());
            }
            "sealed" => {
                doubtful.remove(of);
                sealed.insert(of.to_owned());
            }
            "removing" => {
                sealed.remove(of);
                doubtful.insert(of.to_owned());
            }
            "gone" => {
                sealed.remove(of);
                doubtful.remove(of);
            }
            "empty" => {
                self.empty = Some(
                    serde_json::from_str(of).context("what the victim says of the empty root is no JSON")?,
                );
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_until_it_is_taken_back() {
        let mut promises = Promises::default();
        let mut after = |line: &str, sealed: &[&str], doubtful: &[&str]| {
            promises.hear(line).unwrap();
            let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let wanted = Layers { sealed: set(sealed), doubtful: set(doubtful) };
            assert_eq!(promises.layers(), &wanted, "{line}");
        };
        after("opening", &[], &[]);
        after("creating a", &[], &["a"]);
        after("applying a", &[], &["a"]);
        after("sealed a", &["a"], &[]);
        after("creating b", &["a"], &["b"]);
        // Killed here; the next victim finds that it is there, or is not.
        after("gone b", &["a"], &[]);
        after("removing a", &[], &["a"]);
        after("sealed a", &["a"], &[]);
        after("removing a", &[], &["a"]);
        after("gone a", &[], &[]);
    }

    #[test]
    fn the_empty_root_is_kept_as_it_was_said() {
        let mut promises = Promises::default();
        promises.hear(r#"empty {"names":["directory x"],"counts":{}}"#).unwrap();
        assert_eq!(promises.empty().unwrap()["names"][0], "directory x");
        assert!(promises.hear("empty {").is_err());
    }
}
