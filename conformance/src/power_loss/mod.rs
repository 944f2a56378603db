//! The victim of power losses: a process that works on a root until its kernel is killed, and says what it promises.
//!
//! After a power loss the next victim opens the same root, judges what is left of it by what was promised, and goes on.
//! `cargo xtask power-loss` starts the victims in a guest kernel, kills that, and keeps the promises meanwhile. What a
//! victim says, a line each on its standard output:
//!
//! | line | meaning |
//! |---|---|
//! | `recovered KIND` | opening the root mended something |
//! | `checked SEALED OTHERS` | so many layers are sealed and as they must be, and so many others are whole |
//! | `empty JSON` | what the root has without layers |
//! | `working` | the judging is over, the work begins |
//! | `creating NAME` | the layer may be there from now on |
//! | `applying NAME`, `writing NAME`, `sealing NAME` | what is going on |
//! | `sealed NAME` | the layer is there, with its content |
//! | `removing NAME` | the layer may be gone from now on |
//! | `gone NAME` | the layer is gone for good |
//! | `emptied` | all layers are removed, and the root has what it had without layers |

mod content;
mod empty;
mod judge;
mod work;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::case::Verdict;
use crate::suite::Suite;
use empty::EmptyRoot;
use work::Work;

/// What a victim has to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    root: PathBuf,
    /// Distinguishes the names of this victim's layers from those of others.
    round: u32,
    /// What the victim does follows from it.
    seed: u64,
    promises: Promises,
    /// What the root had without layers. None where it is new.
    empty: Option<EmptyRoot>,
    /// Whether all layers are removed before the work, to find what is left of none.
    clear: bool,
    /// Whether it goes on until it is killed.
    endless: bool,
}

/// What was said of the layers by those that came before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Promises {
    /// These are there.
    sealed: BTreeSet<String>,
    /// Of these nothing is promised but that they are whole or absent.
    doubtful: BTreeSet<String>,
}

/// Judges the root, and goes on until something is wrong or the kernel is killed.
pub(crate) fn serve(suite: &Suite, orders: &Orders) -> Verdict {
    let layers = (suite.open)(suite.registration, &orders.root, &suite.config())?;
    for recovered in layers.recovered() {
        say("recovered", kind_of(recovered))?;
    }
    let judgement = judge::judge(&*layers, &orders.promises)?;
    judgement.must_be_good()?;
    if orders.empty.is_none() {
        say("empty", serde_json::to_string(&EmptyRoot::of(&*layers)?).unwrap_or_default())?;
    }
    // What recovery did is not lost again.
    flush(&orders.root)?;
    for name in orders.promises.doubtful.iter().filter(|name| !judgement.is_there(name)) {
        say("gone", name)?;
    }
    for name in judgement.sealed.intersection(&orders.promises.doubtful) {
        say("sealed", name)?;
    }
    say("checked", format_args!("{} {}", judgement.sealed.len(), judgement.others.len()))?;
    say("working", "")?;
    let mut work = Work::new(&*layers, orders.round, orders.seed, judgement);
    if orders.clear {
        work.remove_all()?;
        if let Some(empty) = &orders.empty {
            EmptyRoot::of(&*layers)?.must_equal(empty)?;
        }
        say("emptied", "")?;
    }
    if orders.endless { work.go_on() } else { Ok(()) }
}

/// Says something, at once and as a whole.
fn say(what: &str, of: impl std::fmt::Display) -> std::io::Result<()> {
    let line = format!("{what} {of}");
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{}\n", line.trim_end()).as_bytes())?;
    out.flush()
}

/// The kind of something recovered, as in its JSON.
fn kind_of(recovered: &impl Serialize) -> String {
    let value = serde_json::to_value(recovered).unwrap_or_default();
    value.as_object().and_then(|object| object.keys().next().cloned()).unwrap_or_default()
}

/// Has everything of the file system on its disk.
fn flush(root: &Path) -> Verdict {
    Ok(rustix::fs::syncfs(File::open(root)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recovered_is_told_by_its_kind() {
        let layer = layerstack_core::LayerId::new("a").unwrap();
        assert_eq!(kind_of(&layerstack_core::layers::Recovered::Lost { layer }), "lost");
    }

    #[test]
    fn orders_are_what_their_sender_writes() {
        let text = r#"{"root":"/r","round":1,"seed":7,"promises":{"sealed":["i1-0"],"doubtful":[]},"empty":null,
            "clear":false,"endless":true}"#;
        let orders: Orders = serde_json::from_str(text).unwrap();
        assert_eq!(orders.promises.sealed.first().map(String::as_str), Some("i1-0"));
    }
}
