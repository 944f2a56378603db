//! `layerstack save`

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use layerstack_store::{SaveFormat, SaveRequest, SaveTarget};

use crate::failure::{Done, Failure};
use crate::output::ArchiveOut;
use crate::session::Session;

/// Save images to an OCI layout or to a docker archive
///
/// An image that was loaded is saved with the digests that it came with, bit for bit.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The images: names, ids or starts of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// Write an archive to this file; "-" or nothing for standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write an OCI layout to this directory, or add to the layout that is there
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    dir: Option<PathBuf>,

    /// The form: "oci", or "docker" as `docker save` writes it
    #[arg(long = "type", value_name = "TYPE", default_value_t)]
    form: SaveFormat,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if args.dir.is_some() && args.form != SaveFormat::Oci {
        return Err(Failure::Usage("a directory can hold an OCI layout only: leave --type away".to_owned()));
    }
    let to_stdout = file.is_none() && args.dir.is_none();
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::Usage("standard output is a terminal: name a file with --output".to_owned()));
    }
    let store = session.open()?;
    let mut request = SaveRequest::default();
    request.format = args.form;
    let images: Vec<_> = args.images.iter().map(String::as_str).collect();
    let mut stdout = ArchiveOut::new()?;
    let target = match (&args.dir, file) {
        (Some(dir), _) => SaveTarget::Directory(dir),
        (None, Some(file)) => SaveTarget::File(file),
        (None, None) => SaveTarget::Stream(&mut stdout),
    };
    let watch = session.watch()?;
    let saved = store.save(&images, &request, target, &watch);
    stdout.finish()?;
    let saved = watch.end("save", saved)?;
    if to_stdout {
        return Ok(());
    }
    session.print(&saved, |out| {
        for image in &saved {
            if session.quiet() {
                writeln!(out, "{}", image.manifest)?;
            } else {
                let name = image.names.first().map_or(image.image.as_str(), String::as_str);
                writeln!(out, "Saved image: {name} (manifest {})", image.manifest)?;
            }
        }
        Ok(())
    })
}
