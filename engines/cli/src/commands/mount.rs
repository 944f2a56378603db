//! `layerstack mount`

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstack::LayerId;
use layerstack_store::Store;

use crate::failure::{Done, failed};
use crate::session::Session;

/// Mount a container's file tree and print where; it stays mounted until `umount`
///
/// A container that is mounted already stays where it is, and that place is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container: its name, its id or the start of its id; all that are mounted are listed without it
    container: Option<String>,

    /// The directory to mount it on; one of the store's own without it
    target: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Mounted<'a> {
    container: LayerId,
    path: &'a Path,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let Some(reference) = &args.container else { return list(session, &store) };
    let path = store
        .mount(reference, args.target.as_deref())
        .map_err(failed(format!("mount the container {reference}")))?;
    let container = store.container(reference).map_err(failed("look up the container"))?;
    session.print(&Mounted { container: container.id, path: &path }, |out| write_path(out, &path))
}

fn list(session: &Session, store: &Store) -> Done {
    let containers = store.containers().map_err(failed("list the containers"))?;
    let mounted: Vec<_> = containers
        .iter()
        .flat_map(|container| container.mounts.iter().map(move |path| (container, path)))
        .collect();
    let report: Vec<_> =
        mounted.iter().map(|(container, path)| Mounted { container: container.id.clone(), path }).collect();
    session.print(&report, |out| {
        for (container, path) in &mounted {
            write!(out, "{} ", container.name)?;
            write_path(out, path)?;
        }
        Ok(())
    })
}

/// A path is a result that scripts use, so it is printed byte by byte.
fn write_path(out: &mut dyn Write, path: &Path) -> io::Result<()> {
    out.write_all(path.as_os_str().as_bytes())?;
    out.write_all(b"\n")
}
