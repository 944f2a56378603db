//! Whether a chain of layers holds files of which overlayfs copied only the metadata.
//!
//! overlayfs writes such files where it is mounted with `metacopy=on`, and refuses to read them where it is not. That is
//! a matter of the layer and not of the host: a layer that Docker made on a host where `metacopy` is on stays readable
//! here, and no layer of ours gets such files unless `overlay2.mountopt` asks for it.
//!
//! The file `metacopy` in a layer's directory says what is known of the layer and all below it. Layers made here have
//! none, so that the common case costs one look:
//!
//! | file | meaning |
//! |---|---|
//! | absent | none of them holds such a file |
//! | `yes` | one of them does, or may |
//! | empty | not known: the layer was not made here; found out when it is first needed, and written down |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstack_core::Result;
use rustix::fs::FileType;

use crate::layout::{Home, Link};
use crate::sys::Directory;

const FILE: &str = "metacopy";
const YES: &[u8] = b"yes";

/// Notes that a layer holds such files, or may.
pub(crate) fn note(layer: &Directory) -> Result<()> {
    layer.write(FILE, YES)
}

/// Notes of a layer that was not made here that nothing is known of it.
pub(crate) fn note_unknown(layer: &Directory) -> Result<()> {
    if layer.exists(FILE)? { Ok(()) } else { layer.write(FILE, b"") }
}

/// Whether a layer or one of those below it, the nearest first, holds such files.
pub(crate) fn in_chain(home: &Home, layer: &Directory, below: &[Link]) -> Result<bool> {
    if let Some(known) = known(layer)? {
        return Ok(known);
    }
    // What is known of a layer holds for all below it, so only those above the first such one are looked through.
    let mut unknown = Vec::new();
    let mut found = false;
    for link in below {
        let lower = home.layer_of_link(link)?;
        if let Some(known) = known(&lower)? {
            found = known;
            break;
        }
        unknown.push(lower);
    }
    for layer in unknown.iter().rev().chain([layer]) {
        found = found || is_in(layer)?;
        if found {
            note(layer)?;
        } else {
            layer.unlink(FILE)?;
        }
    }
    Ok(found)
}

fn known(layer: &Directory) -> Result<Option<bool>> {
    Ok(match layer.read(FILE)?.as_deref() {
        None => Some(false),
        Some(YES) => Some(true),
        Some(_) => None,
    })
}

/// Looks through the layer's upper directory.
fn is_in(layer: &Directory) -> Result<bool> {
    let Some(root) = layer.enter("diff")? else { return Ok(false) };
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let below;
        let directory = if path.as_os_str().is_empty() {
            &root
        } else {
            match root.descend(&path)? {
                Some(found) => below = found,
                None => continue,
            }
            &below
        };
        for (name, kind) in directory.entries()? {
            match kind {
                FileType::Directory => open.push(path.join(OsStr::from_bytes(name.to_bytes()))),
                FileType::RegularFile if directory.has_attribute(&name, c"trusted.overlay.metacopy")? => {
                    return Ok(true);
                }
                _ => {}
            }
        }
    }
    Ok(false)
}
