//! `layerstack drivers`

use std::collections::BTreeMap;
use std::io::{self, Write};

use layerstack::Result;
use layerstack::options::{OptionSpec, Options};
use layerstack_store::{Availability, DriverInfo};

use crate::failure::{Done, failed};
use crate::session::Session;

/// List the storage drivers that are compiled in: whether each works in the root, or what it lacks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(serde::Serialize)]
struct Driver {
    #[serde(flatten)]
    info: DriverInfo,
    options: BTreeMap<&'static str, &'static str>,
    layer_options: BTreeMap<&'static str, &'static str>,
}

pub(crate) fn run(_args: &Args, session: &Session) -> Done {
    let options = session.config(&session.options()?)?.options;
    let drivers = find(session, &options).map_err(failed("probe the drivers"))?;
    session.print(&drivers, |out| {
        if session.quiet() {
            return drivers.iter().try_for_each(|driver| writeln!(out, "{}", driver.info.name));
        }
        drivers.iter().try_for_each(|driver| write_driver(out, driver))
    })
}

fn find(session: &Session, options: &Options) -> Result<Vec<Driver>> {
    let registry = layerstack::registry()?;
    let described = |specs: &[OptionSpec]| specs.iter().map(|spec| (spec.name, spec.help)).collect();
    let with_options = |info: DriverInfo| {
        let registration = registry.get(info.name)?;
        let options = described(registration.options);
        Ok(Driver { options, layer_options: described(registration.layer_options), info })
    };
    layerstack_store::drivers(session.root(), options)?.into_iter().map(with_options).collect()
}

fn write_driver(out: &mut dyn Write, driver: &Driver) -> io::Result<()> {
    writeln!(out, "{}: {}", driver.info.name, driver.info.summary)?;
    match &driver.info.availability {
        Availability::Yes => writeln!(out, "    available")?,
        Availability::No { kind, reason } => writeln!(out, "    {kind}: {reason}")?,
    }
    for (kind, options) in [("option", &driver.options), ("option of a container", &driver.layer_options)] {
        for (name, help) in options {
            writeln!(out, "    {kind} {name}: {help}")?;
        }
    }
    Ok(())
}
