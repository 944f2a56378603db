//! One guest, from its start to its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::vm;

/// How many lines of what the guest says beside are kept.
const KEPT: usize = 60;

/// The errand's place in the environment of the suite's binary.
const ERRAND: &str = "LAYERSTACK_CONFORMANCE_ERRAND";

/// How guests are started.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) order: vm::Order,
    /// The driver's options, as the suite takes them.
    pub(super) options: String,
    /// Whether all that the guest says beside is shown.
    pub(super) chatty: bool,
}

/// When a guest is killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plug {
    /// So long after this line.
    pub(super) line: &'static str,
    pub(super) after: Duration,
}

/// What is known of a guest that has ended as it should.
#[derive(Debug)]
pub(super) struct Ended {
    /// The last whole line that the victim said.
    pub(super) last: Option<String>,
}

impl Boot {
    /// Runs a guest with a victim: until it is killed, or to its own end where it is not. Each whole line that the
    /// victim says is heard, also those that it said right before it was killed.
    pub(super) fn run(
        &self,
        orders: &serde_json::Value,
        plug: Option<Plug>,
        mut hear: impl FnMut(&str) -> Result<()>,
    ) -> Result<Ended> {
        let mut command = vm::command(&self.order)?;
        command.env(ERRAND, orders.to_string()).env("LAYERSTACK_CONFORMANCE_OPTIONS", &self.options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guest = command.spawn().context("failed to start the guest's session")?;
        let aside = guest.stderr.take().context("the session has no standard error")?;
        let chatty = self.chatty;
        let aside = std::thread::spawn(move || end_of(BufReader::new(aside), chatty));
        let heard = listen(&mut guest, plug, &mut hear);
        // Whoever is still there goes with the session, which goes with this.
        drop(guest.stdin.take());
        let status = guest.wait().context("failed to wait for the guest's session")?;
        let aside = aside.join().unwrap_or_default();
        let code = status.code().unwrap_or_default();
        let wanted = if plug.is_some() { vm::POWER_LOST } else { 0 };
        match heard {
            Ok(last) if code == i32::from(wanted) => Ok(Ended { last }),
            Ok(last) => bail!(
                "the guest ended with {status}, the victim's last line was \"{}\"{}",
                last.as_deref().unwrap_or_default(),
                lines(&aside)
            ),
            Err(error) => Err(error.context(format!("the guest ended with {status}{}", lines(&aside)))),
        }
    }
}

/// Hears the victim until it says no more; pulls the plug when it is time. Gives the last line.
fn listen(
    guest: &mut Child,
    plug: Option<Plug>,
    hear: &mut impl FnMut(&str) -> Result<()>,
) -> Result<Option<String>> {
    let out = guest.stdout.take().context("the session has no standard output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        whole_lines(BufReader::new(out), |line| {
            // Nobody listens any more after a line that was not understood.
            let _ = sender.send(line);
        });
    });
    let (mut last, mut pull) = (None, None::<Instant>);
    loop {
        let line = match pull {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match line {
            Ok(line) => {
                hear(&line)?;
                if let Some(plug) = plug.filter(|plug| plug.line == line) {
                    pull = Some(Instant::now() + plug.after);
                }
                last = Some(line);
            }
            Err(RecvTimeoutError::Timeout) => {
                drop(guest.stdin.take());
                pull = None;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(last),
        }
    }
}

/// Gives each line that has an end: the last one need not be whole.
fn whole_lines(mut from: impl BufRead, mut take: impl FnMut(String)) {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) && line.ends_with(b"\n") {
        take(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The last lines of what is said beside.
fn end_of(from: impl Read, show: bool) -> VecDeque<String> {
    let mut kept = VecDeque::new();
    whole_lines(BufReader::new(from), |line| {
        if show {
            eprintln!("{line}");
        }
        kept.push_back(line);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    });
    kept
}

fn lines(said: &VecDeque<String>) -> String {
    said.iter().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_no_line() {
        let mut heard = Vec::new();
        whole_lines(&b"creating a\nsealed a\nremovi"[..], |line| heard.push(line));
        assert_eq!(heard, ["creating a", "sealed a"]);
    }

    #[test]
    fn the_end_of_what_is_said_beside_is_kept() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let kept = end_of(text.as_bytes(), false);
        assert_eq!((kept.len(), kept.back().map(String::as_str)), (KEPT, Some("line 99")));
    }

    #[test]
    fn the_plug_is_pulled_after_its_line() {
        let mut guest = std::process::Command::new("sh")
            .args(["-c", "echo opening; echo working; cat; echo sealed a; exit 3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = Vec::new();
        let plug = Plug { line: "working", after: Duration::from_millis(30) };
        let last = listen(&mut guest, Some(plug), &mut |line| {
            heard.push(line.to_owned());
            Ok(())
        });
        assert_eq!(last.unwrap().as_deref(), Some("sealed a"));
        assert_eq!(heard, ["opening", "working", "sealed a"]);
        assert_eq!(guest.wait().unwrap().code(), Some(3));
    }
}
