//! `layerstack create`

use layerstack::ErrorKind;
use layerstack::layers::CORE_OPTIONS;
use layerstack::options::Options;
use layerstack_store::CreateContainer;

use crate::failure::{Done, failed};
use crate::session::Session;

/// Create a container: a writable layer on top of an image
///
/// `--storage-opt` takes options of the container's layer here too, such as `size=10G`: those without a dot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: its name, its id or the start of its id
    image: String,

    /// The container's name; the first digits of its id without it
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
}

pub(crate) fn run(args: Args, session: &Session) -> Done {
    let (of_store, of_layer) = split(&session.options()?);
    let store = session.open_with(&of_store)?;
    let mut request = CreateContainer::default();
    request.name = args.name;
    request.options = of_layer;
    let container = store.create_container(&args.image, &request).map_err(|error| {
        failed("create the container")(error)
            .hint_on(ErrorKind::NotFound, "`layerstack images` lists the images")
    })?;
    session.print(&container, |out| writeln!(out, "{}", container.id))
}

/// Takes the options of the store and its driver, `driver.key` and core's own, apart from those of the layer.
fn split(options: &Options) -> (Options, Options) {
    let (mut of_store, mut of_layer) = (Options::new(), Options::new());
    for (key, value) in options.iter() {
        let is_stores = key.contains('.') || CORE_OPTIONS.iter().any(|option| option.name == key);
        if is_stores { &mut of_store } else { &mut of_layer }.set(key, value);
    }
    (of_store, of_layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_layer_have_no_dot() {
        let options = Options::parse(["size=1G", "vfs.reflink=never", "sync=none"]).unwrap();
        let (of_store, of_layer) = split(&options);
        assert_eq!(of_layer.iter().collect::<Vec<_>>(), [("size", "1G")]);
        assert_eq!(of_store.iter().collect::<Vec<_>>(), [("sync", "none"), ("vfs.reflink", "never")]);
    }
}
