//! Text from images and archives made fit for a terminal.

use std::borrow::Cow;

/// `text` without line breaks, tabs and control characters, which would break a line or command a terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    Cow::Owned(line)
}

/// The first `limit` characters of `text`, with an ellipsis as the last one where there are more.
pub(crate) fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    if text.chars().count() <= limit {
        return Cow::Borrowed(text);
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// The first 12 digits of an id: as many as people are shown.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(one_line("a\tb\nc\u{1b}[2J"), "a b c\\u{1b}[2J");
        assert_eq!(one_line("plain ä"), "plain ä");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(shorten("abcd", 4), "abcd");
        assert_eq!(shorten("äbcde", 4), "äbc…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("web"), "web");
    }
}
