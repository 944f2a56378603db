//! `layerstack df`

use std::io::{self, Write};

use layerstack_store::DiskUsage;

use crate::failure::{Done, failed};
use crate::session::{Session, shown_id};
use crate::table::Table;
use crate::units;

/// Show what images and containers occupy, and what `prune` would free
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Each image and each container
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let usage = store.disk_usage().map_err(failed("measure the store"))?;
    session.print(&usage, |out| {
        write_summary(out, &usage)?;
        if args.verbose { write_details(out, &usage) } else { Ok(()) }
    })
}

fn write_summary(out: &mut dyn Write, usage: &DiskUsage) -> io::Result<()> {
    let in_use = usage.images.iter().filter(|image| image.containers > 0).count();
    let of_containers: u64 = usage.containers.iter().map(|container| container.size).sum();
    let mut table = Table::new(["TYPE", "TOTAL", "ACTIVE", "SIZE"]);
    let mut row = |kind: &str, total: Option<usize>, active: Option<usize>, size: u64| {
        let count = |count: Option<usize>| count.map_or_else(String::new, |count| count.to_string());
        table.row([kind.to_owned(), count(total), count(active), units::size(size)]);
    };
    row("Images", Some(usage.images.len()), Some(in_use), usage.layers);
    row("Containers", Some(usage.containers.len()), None, of_containers);
    row("Archive data", None, None, usage.blobs);
    row("Unreferenced layers", None, None, usage.unreferenced);
    table.write(out)?;
    writeln!(out, "Reclaimable: {}", units::size(usage.reclaimable))
}

fn write_details(out: &mut dyn Write, usage: &DiskUsage) -> io::Result<()> {
    let mut images = Table::new(["IMAGE", "IMAGE ID", "SIZE", "SHARED", "UNIQUE", "CONTAINERS"]);
    for image in &usage.images {
        images.row([
            image.names.first().cloned().unwrap_or_else(|| "<none>".to_owned()),
            image.id.short().to_owned(),
            units::size(image.size),
            units::size(image.shared),
            units::size(image.unique),
            image.containers.to_string(),
        ]);
    }
    let mut containers = Table::new(["CONTAINER", "CONTAINER ID", "SIZE"]);
    for container in &usage.containers {
        containers.row([container.name.clone(), shown_id(&container.id, false), units::size(container.size)]);
    }
    writeln!(out)?;
    images.write(out)?;
    writeln!(out)?;
    containers.write(out)
}
