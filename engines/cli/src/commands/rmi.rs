//! `layerstack rmi`

use layerstack::ErrorKind;
use layerstack_store::RemoveImage;

use crate::failure::{Done, Failure, failed};
use crate::session::Session;

/// Remove images
///
/// A name is taken from its image; the image goes with its last name. Layers that no other image has go with it. An
/// image on which containers stand stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The images: names, ids or starts of ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// Remove an image given by its id although it has several names
    #[arg(long, short)]
    force: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let mut request = RemoveImage::default();
    request.force = args.force;
    let (removed, outcome) = Failure::of_each(&args.images, |image| {
        store.remove_image(image, &request).map_err(|error| {
            failed(format!("remove the image {image}"))(error)
                .hint_on(ErrorKind::NotFound, "`layerstack images` lists them")
        })
    });
    session.print(&removed, |out| {
        for image in &removed {
            for name in image.untagged.iter().filter(|_| !session.quiet()) {
                writeln!(out, "Untagged: {name}")?;
            }
            match &image.deleted {
                Some(id) if session.quiet() => writeln!(out, "{id}")?,
                Some(id) => writeln!(out, "Deleted: {id}")?,
                None => {}
            }
            for layer in image.layers.iter().filter(|_| !session.quiet()) {
                writeln!(out, "Deleted layer: {layer}")?;
            }
        }
        Ok(())
    })?;
    outcome
}
