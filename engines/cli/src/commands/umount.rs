//! `layerstack umount`

use layerstack::ErrorKind;

use crate::failure::{Done, Failure, failed};
use crate::session::Session;

/// Unmount containers
#[derive(Debug, clap::Args)]
#[command(visible_alias = "unmount")]
pub(crate) struct Args {
    /// The containers: names, ids or starts of ids
    #[arg(required_unless_present = "all", value_name = "CONTAINER")]
    containers: Vec<String>,

    /// All that are mounted
    #[arg(long, short, conflicts_with = "containers")]
    all: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let containers = if args.all {
        let all = store.containers().map_err(failed("list the containers"))?;
        all.into_iter().filter(|one| !one.mounts.is_empty()).map(|one| one.name).collect()
    } else {
        args.containers.clone()
    };
    let (unmounted, outcome) = Failure::of_each(&containers, |container| {
        store.umount(container).map_err(|error| {
            failed(format!("unmount the container {container}"))(error)
                .hint_on(ErrorKind::InUse, "a process has files open in it, or works in it")
        })?;
        Ok(container.clone())
    });
    session.print(&unmounted, |out| unmounted.iter().try_for_each(|name| writeln!(out, "{name}")))?;
    outcome
}
