//! `layerstack ps`

use std::io::{self, Write};

use layerstack_store::Container;

use crate::failure::{Done, complain, failed};
use crate::session::{Session, shown_id};
use crate::table::Table;
use crate::units;

/// List the containers, the newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let containers = store.containers().map_err(failed("list the containers"))?;
    for container in &containers {
        if let Some(problem) = &container.broken {
            complain(&format!("container {} is broken: {problem}", container.name));
        }
    }
    session.print(&containers, |out| {
        if session.quiet() {
            let ids = containers.iter().map(|container| shown_id(&container.id, args.no_trunc));
            return ids.into_iter().try_for_each(|id| writeln!(out, "{id}"));
        }
        write_table(out, &containers, args.no_trunc)
    })
}

fn write_table(out: &mut dyn Write, containers: &[Container], whole: bool) -> io::Result<()> {
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "CREATED", "NAME", "MOUNTED ON"]);
    for container in containers {
        let mounts: Vec<_> = container.mounts.iter().map(|path| path.display().to_string()).collect();
        let image = container.image_name.clone().unwrap_or_else(|| container.image.short().to_owned());
        table.row([
            shown_id(&container.id, whole),
            image,
            units::age(Some(container.created_unix)),
            container.name.clone(),
            mounts.join(" "),
        ]);
    }
    table.write(out)
}
