//! `layerstack diff`

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use layerstack::diff::Change;

use crate::failure::{Done, Failure, failed};
use crate::output::ArchiveOut;
use crate::session::Session;
use crate::text;

/// List what a container changed: A added, C changed, D deleted, as `docker diff` does
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container: its name, its id or the start of its id
    container: String,

    /// Write the changes as an OCI layer tar to standard output instead
    #[arg(long)]
    tar: bool,
}

#[derive(serde::Serialize)]
struct Changed {
    kind: char,
    path: String,
    /// The path's bytes in hexadecimal, where they are not UTF-8 and `path` has replacement characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl From<&Change> for Changed {
    fn from(change: &Change) -> Self {
        let path = change.path.as_os_str();
        let hex = || path.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            kind: change.kind.letter(),
            path: path.to_string_lossy().into_owned(),
            path_hex: path.to_str().is_none().then(hex),
        }
    }
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    if args.tar {
        return tar(args, session);
    }
    let store = session.open()?;
    let changes = store.diff(&args.container).map_err(failed("compare the container with its image"))?;
    let report: Vec<_> = changes.iter().map(Changed::from).collect();
    session.print(&report, |out| changes.iter().try_for_each(|change| write_change(out, change)))
}

fn tar(args: &Args, session: &Session) -> Done {
    if io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "standard output is a terminal: send the tar to a file or a pipe".to_owned(),
        ));
    }
    let store = session.open()?;
    let mut out = ArchiveOut::new()?;
    let written = store.diff_tar(&args.container, &mut out);
    out.finish()?;
    written.map(drop).map_err(failed("write the container's changes"))
}

/// One line. On a terminal a path is shown without what would command it; a file or a pipe gets its very bytes.
fn write_change(out: &mut dyn Write, change: &Change) -> io::Result<()> {
    write!(out, "{} ", change.kind.letter())?;
    if io::stdout().is_terminal() {
        out.write_all(text::one_line(&change.path.to_string_lossy()).as_bytes())?;
    } else {
        out.write_all(change.path.as_os_str().as_bytes())?;
    }
    out.write_all(b"\n")
}
