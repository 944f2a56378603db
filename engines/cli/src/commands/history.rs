//! `layerstack history`

use layerstack_store::HistoryEntry;

use crate::failure::{Done, failed};
use crate::session::{Session, shown_id};
use crate::table::Table;
use crate::{text, units};

/// Show how an image came about, the newest step first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: its name, its id or the start of its id
    image: String,

    /// Print ids and commands whole
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let history = store.history(&args.image).map_err(failed("show the image's history"))?;
    session.print(&history, |out| {
        if session.quiet() {
            let mut layers = history.iter().filter_map(|entry| entry.layer.as_ref());
            return layers.try_for_each(|layer| writeln!(out, "{}", shown_id(layer, args.no_trunc)));
        }
        let mut table = Table::new(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        history.iter().for_each(|entry| table.row(row(entry, args.no_trunc)));
        table.write(out)
    })
}

fn row(entry: &HistoryEntry, whole: bool) -> [String; 5] {
    // The width that docker gives to a command.
    let limit = if whole { usize::MAX } else { 45 };
    let created_by = entry.created_by.as_deref().unwrap_or_default();
    [
        entry.layer.as_ref().map_or_else(|| "<none>".to_owned(), |layer| shown_id(layer, whole)),
        units::age(entry.created_unix),
        text::shorten(created_by, limit).into_owned(),
        units::size(entry.size),
        entry.comment.clone().unwrap_or_default(),
    ]
}
