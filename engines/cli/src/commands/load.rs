//! `layerstack load`

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use layerstack::Error;
use layerstack_store::{LoadRequest, LoadSource, Loaded, Platform};

use crate::failure::{Done, Failure, failed};
use crate::input::ArchiveIn;
use crate::session::Session;

/// Load images from an OCI layout (directory or archive) or from a docker archive
///
/// Archives and layers may be plain or compressed with gzip or zstd. Every digest is verified. Layers that are there
/// already are not unpacked again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory or the archive; "-" or nothing for standard input
    #[arg(value_name = "SOURCE")]
    source: Option<PathBuf>,

    /// The same, as `docker load` has it
    #[arg(long, short, value_name = "FILE", conflicts_with = "source")]
    input: Option<PathBuf>,

    /// Give the image this name instead of those that it has in the archive
    #[arg(long, short, value_name = "NAME[:TAG]")]
    name: Option<String>,

    /// Which image of an index of several platforms; that of this host without it
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

pub(crate) fn run(args: Args, session: &Session) -> Done {
    let path = args.source.or(args.input).filter(|path| path != Path::new("-"));
    if path.is_none() && io::stdin().is_terminal() {
        let message = "standard input is a terminal: name an archive or a directory to load".to_owned();
        return Err(Failure::Usage(message));
    }
    let mut request = LoadRequest::default();
    request.name = args.name;
    request.platform = args.platform;
    let store = session.open()?;
    let watch = session.watch()?;
    let mut stdin = ArchiveIn::new(watch.interrupt())
        .map_err(|error| failed("load")(Error::from_io(error, "open standard input")))?;
    let (source, from) = match &path {
        Some(path) => (LoadSource::Path(path), format!(" from {}", path.display())),
        None => (LoadSource::Stream(&mut stdin), String::new()),
    };
    let loaded = store.load(source, &request, &watch);
    let loaded = watch.end(format!("load{from}"), loaded)?;
    session.print(&loaded, |out| loaded.iter().try_for_each(|image| write_image(out, image, session.quiet())))
}

fn write_image(out: &mut dyn Write, loaded: &Loaded, quiet: bool) -> io::Result<()> {
    if quiet {
        return writeln!(out, "{}", loaded.image);
    }
    if loaded.names.is_empty() {
        return writeln!(out, "Loaded image ID: {}", loaded.image);
    }
    loaded.names.iter().try_for_each(|name| writeln!(out, "Loaded image: {name}"))
}
