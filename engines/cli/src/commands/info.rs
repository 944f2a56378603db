//! `layerstack info`

use std::io::{self, Write};
use std::path::Path;

use layerstack::capability::Capabilities;
use layerstack_store::{Info, Store};

use crate::failure::{Done, failed};
use crate::session::Session;

/// Show the driver, what it can do here, and how much there is
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(serde::Serialize)]
struct Report<'a> {
    root: &'a Path,
    #[serde(flatten)]
    info: &'a Info,
    recovered: &'a [String],
}

pub(crate) fn run(_args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let info = store.info().map_err(failed("tell about the store"))?;
    let report = Report { root: store.root(), info: &info, recovered: store.recovered() };
    session.print(&report, |out| write_text(out, &store, &info))
}

fn write_text(out: &mut dyn Write, store: &Store, info: &Info) -> io::Result<()> {
    writeln!(out, "Images: {}", info.images)?;
    writeln!(out, " Names: {}", info.names)?;
    writeln!(out, "Containers: {}", info.containers)?;
    writeln!(out, " Mounted: {}", info.mounted)?;
    writeln!(out, "Layers: {}", info.layers)?;
    write!(out, "{}", info.status)?;
    write_capabilities(out, &info.capabilities)?;
    writeln!(out, "Layerstack Root Dir: {}", store.root().display())?;
    writeln!(out, " Database: {} (schema {})", info.database.display(), info.schema)?;
    writeln!(out, "Mended on Open: {}", store.recovered().len())?;
    store.recovered().iter().try_for_each(|mended| writeln!(out, " {mended}"))
}

fn write_capabilities(out: &mut dyn Write, capabilities: &Capabilities) -> io::Result<()> {
    writeln!(out, "Capabilities:")?;
    for (name, feature) in capabilities.features() {
        writeln!(out, " {name}: {feature}")?;
    }
    let depth = capabilities.max_depth.map_or_else(|| "unlimited".to_owned(), |depth| depth.to_string());
    writeln!(out, " max-depth: {depth}")?;
    writeln!(out, " max-name: {} bytes", capabilities.max_name)?;
    writeln!(out, " xattrs: {}", capabilities.xattrs.join(" "))
}
