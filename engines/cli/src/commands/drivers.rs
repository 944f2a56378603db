//! `layerstack drivers`

use std::io::{self, Write};

use layerstack_store::{Availability, DriverInfo};

use crate::failure::{Done, failed};
use crate::session::Session;

/// List the storage drivers that are compiled in: whether each works in the root, or what it lacks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, session: &Session) -> Done {
    let options = session.config(&session.options()?)?.options;
    let drivers = layerstack_store::drivers(session.root(), &options).map_err(failed("probe the drivers"))?;
    session.print(&drivers, |out| {
        if session.quiet() {
            return drivers.iter().try_for_each(|driver| writeln!(out, "{}", driver.name));
        }
        drivers.iter().try_for_each(|driver| write_driver(out, driver))
    })
}

fn write_driver(out: &mut dyn Write, driver: &DriverInfo) -> io::Result<()> {
    writeln!(out, "{}: {}", driver.name, driver.summary)?;
    match &driver.availability {
        Availability::Yes => writeln!(out, "    available"),
        Availability::No { kind, reason } => writeln!(out, "    {kind}: {reason}"),
    }
}
