//! Layers mounted with `volatile`, of which nothing is flushed.
//!
//! overlayfs leaves `work/work/incompat/volatile` in a layer so mounted, and refuses to mount it again: if the host
//! crashed, files may be lost. If it did not, the page cache has them all, and the mark may go
//! (Documentation/filesystems/overlayfs.rst, "volatile mount"). So the layer's file `volatile` says in which boot of
//! the host it was mounted. After a crash the layer is lost; it can be removed, and nothing else.

use layerstack_core::{Error, ErrorKind, Result, fs};

use crate::sys::Directory;

/// The name of the mark, a directory, and of the layer's file.
const FILE: &str = "volatile";
const MARKS: &str = "work/work/incompat";

/// Makes a layer ready to be mounted for writing, `volatile` or not.
pub(crate) fn prepare(layer: &Directory, volatile: bool) -> Result<()> {
    let marks = match layer.enter(MARKS)? {
        Some(marks) if marks.exists(FILE)? => Some(marks),
        _ if volatile => None,
        _ => return Ok(()),
    };
    let boot = this_boot()?;
    if let Some(marks) = marks {
        if layer.read(FILE)?.as_deref() != Some(boot.as_slice()) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the host went down while the layer was mounted with \"volatile\", so files in it may be lost: \
                 remove the layer",
            ));
        }
        if !volatile {
            fs::sync_file_system(layer.path())?;
        }
        fs::remove_tree(&marks, FILE.as_ref(), marks.path())?;
    }
    if volatile { layer.write(FILE, &boot) } else { layer.unlink(FILE) }
}

fn this_boot() -> Result<Vec<u8>> {
    let path = "/proc/sys/kernel/random/boot_id";
    std::fs::read(path).map_err(|error| Error::from_io(error, "find the number of this boot").with_path(path))
}
