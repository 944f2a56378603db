//! What Rust files may contain.

use super::Finding;
use super::tree::{Tree, lines, without_tests};

/// The most lines that a file may have, its tests not counted: one subject a file.
const LONGEST: usize = 500;

/// Words that put work off. Written in two halves so that this file passes.
const PUT_OFF: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        // The programs of the link check stand for other people's code, which the conventions do not bind.
        if path.starts_with("xtask/fixtures/") {
            continue;
        }
        unsafe_code(path, text, &mut findings);
        put_off(path, text, &mut findings);
        allowed(path, text, &mut findings);
        length(path, text, &mut findings);
    }
    findings
}

fn unsafe_code(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if path.ends_with("/sys.rs") {
        return;
    }
    for (number, line) in lines(text) {
        if line.contains(concat!("expect(unsafe", "_code")) || line.contains(concat!("allow(unsafe", "_code"))
        {
            findings.push(Finding::new(
                path,
                number,
                "unsafe code belongs in a file named sys.rs: move it there",
            ));
        }
    }
}

fn put_off(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in lines(text) {
        for word in PUT_OFF.iter().filter(|word| has_word(line, word)) {
            let message = format!("\"{word}\" puts work off: do it, or file an issue");
            findings.push(Finding::new(path, number, message));
        }
    }
}

/// Whether `word` stands in `line` with no letter or digit right before or after it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let joined = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let open = word.ends_with('(');
        !joined(line[..start].chars().next_back())
            && (open || !joined(line[start + word.len()..].chars().next()))
    })
}

fn allowed(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in lines(text) {
        let line = line.trim_start();
        if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
            let message =
                "write #[expect(…, reason = \"…\")]: it says why, and tells when it is no longer needed";
            findings.push(Finding::new(path, number, message));
        }
    }
}

fn length(path: &str, text: &str, findings: &mut Vec<Finding>) {
    // The suite's cases are tests too, a group a file.
    let is_test = ["/tests/", "/tests.rs", "conformance/src/cases/"].iter().any(|part| path.contains(part));
    let count = without_tests(text).lines().count();
    if !is_test && count > LONGEST {
        let message = format!("has {count} lines without its tests, over {LONGEST}: split it by subject");
        findings.push(Finding::new(path, count, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unsafe_code_is_in_sys_rs_only() {
        let text = concat!("//! x\n#![expect(unsafe", "_code, reason = \"x\")]\n");
        assert_eq!(found("core/src/mount/sys.rs", text), Vec::<String>::new());
        let messages = found("core/src/mount/attach.rs", text);
        assert!(messages[0].starts_with("core/src/mount/attach.rs:2: unsafe code belongs"), "{messages:?}");
    }

    #[test]
    fn nothing_is_put_off() {
        for word in PUT_OFF {
            let text = format!("fn a() {{\n    // {word} later\n}}\n");
            assert!(found("core/src/a.rs", &text)[0].starts_with("core/src/a.rs:2: "), "{word}");
        }
        assert_eq!(found("core/src/a.rs", "let x = \"XXXX\"; // mastodon"), Vec::<String>::new());
    }

    #[test]
    fn lints_are_expected_and_not_allowed() {
        assert_eq!(found("core/src/a.rs", "    #[allow(clippy::x, reason = \"y\")]\n").len(), 1);
        assert_eq!(found("core/src/a.rs", "    #[expect(clippy::x, reason = \"y\")]\n").len(), 0);
    }

    #[test]
    fn a_file_has_one_subject() {
        let long = "//\n".repeat(LONGEST + 1);
        assert_eq!(found("core/src/a.rs", &long).len(), 1);
        assert_eq!(found("core/src/a.rs", &long[3..]).len(), 0);
        for path in ["core/tests/a.rs", "core/src/a/tests.rs", "conformance/src/cases/a.rs"] {
            assert_eq!(found(path, &long).len(), 0, "{path}");
        }
        let tested = format!("//\n\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(found("core/src/a.rs", &tested).len(), 0);
    }
}
