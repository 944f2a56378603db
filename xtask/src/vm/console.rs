//! What the guest's kernel prints: shown if asked for, and its end kept for the message of a failure.

use std::collections::VecDeque;
use std::io::{BufReader, PipeReader};
use std::thread::JoinHandle;

/// How many lines of the end are kept.
const KEPT: usize = 40;

/// A reader of the console that runs until the guest has ended.
#[derive(Debug)]
pub(crate) struct Console(JoinHandle<VecDeque<String>>);

impl Console {
    /// Reads the pipe that the guest's console goes to.
    pub(crate) fn read(pipe: PipeReader, show: bool) -> Self {
        Self(std::thread::spawn(move || end_of(BufReader::new(pipe), show)))
    }

    /// Its last lines. Waits until nobody can write to the pipe any more.
    pub(crate) fn end(self) -> String {
        let lines = self.0.join().unwrap_or_default();
        if lines.is_empty() {
            return "the guest's console is empty".to_owned();
        }
        let lines: Vec<String> = lines.iter().map(|line| format!("\n  | {line}")).collect();
        format!("the end of the guest's console:{}", lines.concat())
    }
}

fn end_of(mut pipe: impl std::io::BufRead, show: bool) -> VecDeque<String> {
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if show {
            eprintln!("| {text}");
        }
        if !text.is_empty() {
            lines.push_back(text);
        }
        if lines.len() > KEPT {
            // A panic's own line is worth more than what follows it.
            let first = usize::from(lines[0].contains("Kernel panic"));
            lines.remove(first);
        }
        line.clear();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let text: String = (0..100).map(|number| format!("line {number}\r\n\r\n")).collect();
        let lines = end_of(text.as_bytes(), false);
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines.front().unwrap(), "line 60");
        assert_eq!(lines.back().unwrap(), "line 99");
        assert!(end_of(&b"\n\n"[..], false).is_empty());

        let lines = end_of(format!("before\nKernel panic: why\n{text}").as_bytes(), false);
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines.front().unwrap(), "Kernel panic: why");
        assert_eq!(lines.back().unwrap(), "line 99");
    }
}
