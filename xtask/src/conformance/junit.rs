//! The outcomes as JUnit's XML, which CI services read.

use std::fmt::Write as _;

use super::outcome::{Outcome, Record};

/// A document with a suite for each driver and group.
pub(crate) fn document(records: &[Record]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in records.chunk_by(|one, other| (&one.driver, &one.group) == (&other.driver, &other.group)) {
        let count = |outcome| suite.iter().filter(|record| record.outcome == outcome).count();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" hostname=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escaped(&format!("{}.{}", suite[0].driver, suite[0].group)),
            escaped(&suite[0].on),
            suite.len(),
            count(Outcome::Failed),
            count(Outcome::NotRun) + count(Outcome::NotOffered),
            suite.iter().map(|record| record.seconds).sum::<f64>(),
        );
        for record in suite {
            let reason = escaped(record.reason.as_deref().unwrap_or_default());
            let inner = match record.outcome {
                Outcome::Passed => String::new(),
                Outcome::Failed => {
                    format!("<failure message=\"{}\">{reason}</failure>", escaped(&record.clause))
                }
                Outcome::NotRun | Outcome::NotOffered => {
                    format!("<skipped message=\"{}: {reason}\"/>", record.outcome.as_str())
                }
            };
            let _ = writeln!(
                text,
                "    <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\">{inner}</testcase>",
                escaped(&record.driver),
                escaped(&record.group),
                escaped(&record.case),
                record.seconds,
            );
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// The text as XML takes it, in an attribute too; characters that XML has no place for are left out.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '"' => plain.push_str("&quot;"),
            '\n' => plain.push_str("&#10;"),
            other if (other as u32) < 0x20 => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_would_misread_is_escaped() {
        let record = Record {
            driver: "d".to_owned(),
            group: "g".to_owned(),
            case: "c".to_owned(),
            clause: "a < b".to_owned(),
            outcome: Outcome::Failed,
            reason: Some("\"x\" & \u{1}y".to_owned()),
            seconds: 0.25,
            on: "uml, kernel 6.1".to_owned(),
        };
        let text = document(&[record]);
        assert!(text.contains("<failure message=\"a &lt; b\">&quot;x&quot; &amp; y</failure>"), "{text}");
        assert!(text.contains("name=\"d.g\" hostname=\"uml, kernel 6.1\" tests=\"1\" failures=\"1\" skipped=\"0\" time=\"0.250\""), "{text}");
    }
}
