//! `layerstack prune`

use std::io::{self, BufRead, IsTerminal, Write};

use layerstack_store::PruneRequest;

use crate::failure::{Done, Failure, failed};
use crate::session::Session;
use crate::units;

/// Remove what nothing needs: images without a name, layers that nothing refers to, files left over
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove images with names too, where no container stands on them
    #[arg(long, short)]
    all: bool,

    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    if !args.force && !confirmed(args.all)? {
        return Ok(());
    }
    let store = session.open()?;
    let mut request = PruneRequest::default();
    request.all = args.all;
    let pruned = store.prune(&request).map_err(failed("prune the store"))?;
    session.print(&pruned, |out| {
        for image in &pruned.images {
            writeln!(out, "{}{image}", if session.quiet() { "" } else { "Deleted: " })?;
        }
        if session.quiet() {
            return Ok(());
        }
        for layer in &pruned.layers {
            writeln!(out, "Deleted layer: {layer}")?;
        }
        writeln!(out, "Reclaimed: {}", units::size(pruned.reclaimed))
    })
}

/// Asks on the terminal. Only "y" and "yes" mean yes.
fn confirmed(all: bool) -> Done<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("standard input is no terminal to ask on: give --force".to_owned()));
    }
    let what = if all { "all images without a container" } else { "all images without a name" };
    // Where the question cannot be shown the answer is no.
    let asked = write!(io::stderr().lock(), "Remove {what} and all layers that nothing refers to? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    let answer = answer.trim().to_ascii_lowercase();
    Ok(asked.is_ok() && read.is_ok() && matches!(answer.as_str(), "y" | "yes"))
}
