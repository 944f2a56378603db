//! Progress bars on a terminal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layerstack_store::{Stage, Step};

use crate::text;

/// One bar for each item that is being worked on. Nothing is drawn where standard error is no terminal.
#[derive(Debug, Default)]
pub(crate) struct Bars {
    area: MultiProgress,
    bars: Mutex<HashMap<(Stage, String), ProgressBar>>,
}

impl Bars {
    /// Draws how far an item is.
    pub(crate) fn report(&self, step: &Step<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (step.stage, step.item.to_owned());
        if step.total == Some(step.done) {
            if let Some(bar) = bars.remove(&key) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = bars.entry(key).or_insert_with(|| {
            let bar = self.area.add(ProgressBar::no_length().with_style(style(step.total.is_some())));
            bar.set_prefix(step.stage.to_string());
            bar.set_message(label(step.item));
            bar
        });
        if let Some(total) = step.total {
            bar.set_length(total);
        }
        bar.set_position(step.done);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // An operation that failed leaves bars that never got to their end; the error message is to stand alone.
        let _ = self.area.clear();
    }
}

/// An item in a few characters: a digest's first digits, a file's name.
fn label(item: &str) -> String {
    let name = item.rsplit('/').next().unwrap_or(item);
    text::shorten(&text::one_line(text::short_id(name)), 24).into_owned()
}

const WITH_LENGTH: &str = "{prefix:>9} {msg:24} [{bar:24}] {decimal_bytes:>9} of {decimal_total_bytes}";
const WITHOUT_LENGTH: &str = "{prefix:>9} {msg:24} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec}";

fn style(has_length: bool) -> ProgressStyle {
    let template = if has_length { WITH_LENGTH } else { WITHOUT_LENGTH };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_good() {
        for template in [WITH_LENGTH, WITHOUT_LENGTH] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn items_are_short() {
        assert_eq!(label("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(label("blobs/a.tar"), "a.tar");
    }
}
