//! `layerstack rm`

use layerstack_store::RemoveContainer;

use crate::failure::{Done, Failure, failed};
use crate::session::Session;

/// Remove containers, with all that they changed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The containers: names, ids or starts of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Unmount those that are mounted
    #[arg(long, short)]
    force: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let mut request = RemoveContainer::default();
    request.force = args.force;
    let (removed, outcome) = Failure::of_each(&args.containers, |container| {
        let id = store
            .remove_container(container, &request)
            .map_err(failed(format!("remove the container {container}")))?;
        Ok((container.clone(), id))
    });
    let ids: Vec<_> = removed.iter().map(|(_, id)| id).collect();
    session.print(&ids, |out| removed.iter().try_for_each(|(name, _)| writeln!(out, "{name}")))?;
    outcome
}
