//! `layerstack commit`

use layerstack_store::CommitRequest;

use crate::failure::Done;
use crate::session::Session;

/// Make an image of a container: its image's layers, and one more with what it changed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container: its name, its id or the start of its id
    container: String,

    /// The new image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,

    /// What the history says of the change
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,

    /// Who made the change
    #[arg(long, short, value_name = "TEXT")]
    author: Option<String>,

    /// A line of a Dockerfile that changes the image's settings, such as 'ENV A=b'. May be given several times
    #[arg(long = "change", short, value_name = "LINE")]
    changes: Vec<String>,
}

pub(crate) fn run(args: Args, session: &Session) -> Done {
    let store = session.open()?;
    let mut request = CommitRequest::default();
    request.name = args.name;
    request.message = args.message;
    request.author = args.author;
    request.changes = args.changes;
    let watch = session.watch()?;
    let image = store.commit(&args.container, &request, &watch);
    let image = watch.end(format!("commit the container {}", args.container), image)?;
    session.print(&image, |out| writeln!(out, "{}", image.id))
}
