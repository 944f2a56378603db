//! `layerstack tag`

use crate::failure::{Done, failed};
use crate::session::Session;

/// Give an image one more name; another image that has the name loses it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: its name, its id or the start of its id
    image: String,

    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    store.tag(&args.image, &args.name).map_err(failed("name the image"))?;
    let image = store.image(&args.image).map_err(failed("look up the image"))?;
    session.print(&image, |_| Ok(()))
}
