//! `layerstack images`

use std::io::{self, Write};

use layerstack_store::{Digest, Image};

use crate::failure::{Done, complain, failed};
use crate::session::Session;
use crate::table::Table;
use crate::units;

/// List the images, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only images of this repository, or of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,

    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let mut images = store.images().map_err(failed("list the images"))?;
    if let Some(wanted) = &args.repository {
        for image in &mut images {
            image.names.retain(|name| name == wanted || split(name).0 == wanted);
        }
        images.retain(|image| !image.names.is_empty());
    }
    for image in &images {
        if let Some(problem) = &image.broken {
            complain(&format!("image {} is broken: {problem}", image.id.short()));
        }
    }
    session.print(&images, |out| {
        if session.quiet() {
            return images.iter().try_for_each(|image| writeln!(out, "{}", shown(&image.id, args.no_trunc)));
        }
        write_table(out, &images, args.no_trunc)
    })
}

fn write_table(out: &mut dyn Write, images: &[Image], whole: bool) -> io::Result<()> {
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in images {
        let mut row = |repository: &str, tag: &str| {
            table.row([
                repository.to_owned(),
                tag.to_owned(),
                shown(&image.id, whole),
                units::age(image.created_unix),
                units::size(image.size),
            ]);
        };
        if image.names.is_empty() {
            row("<none>", "<none>");
        }
        for name in &image.names {
            let (repository, tag) = split(name);
            row(repository, tag);
        }
    }
    table.write(out)
}

fn shown(id: &Digest, whole: bool) -> String {
    if whole { id.to_string() } else { id.short().to_owned() }
}

/// Takes a name apart. The store keeps names with their tags; a colon before a slash is that of a port.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once(':').unwrap_or((name, ""))
}
