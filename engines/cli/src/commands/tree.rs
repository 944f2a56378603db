//! `layerstack tree`

use std::io::{self, Write};

use layerstack::LayerId;
use layerstack_store::{LayerKind, LayerNode};

use crate::failure::{Done, failed};
use crate::session::{Session, shown_id};
use crate::{text, units};

/// Show all layers as a tree, with their sizes and the images and containers whose they are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
}

/// A layer in the JSON output. The list is flat: a chain of layers can be deeper than JSON parsers go.
#[derive(serde::Serialize)]
struct Listed<'a> {
    id: &'a LayerId,
    parent: Option<&'a LayerId>,
    kind: LayerKind,
    size: u64,
    images: &'a [String],
    containers: &'a [String],
}

pub(crate) fn run(args: &Args, session: &Session) -> Done {
    let store = session.open()?;
    let roots = store.tree().map_err(failed("show the layers"))?;
    session.print(&flat(&roots), |out| roots.iter().try_for_each(|root| write_tree(out, root, args.no_trunc)))
}

/// All layers, each one after its parent.
fn flat(roots: &[LayerNode]) -> Vec<Listed<'_>> {
    let mut waiting: Vec<_> = roots.iter().rev().map(|root| (None, root)).collect();
    let mut list = Vec::new();
    while let Some((parent, LayerNode { id, kind, size, images, containers, children, .. })) = waiting.pop() {
        list.push(Listed { id, parent, kind: *kind, size: *size, images, containers });
        waiting.extend(children.iter().rev().map(|child| (Some(id), child)));
    }
    list
}

/// Writes a layer and all that stands on it.
///
/// A chain can be hundreds of layers deep, so this does not recurse, and an only child stands below its parent in the
/// same column; but what stands on a root is always indented, so that roots can be told from it.
fn write_tree(out: &mut dyn Write, root: &LayerNode, whole: bool) -> io::Result<()> {
    // Each entry: what stands before its line, what stands before the lines below it, the layer.
    let mut waiting = vec![(String::new(), String::new(), root)];
    while let Some((before, below, node)) = waiting.pop() {
        writeln!(out, "{before}{}", describe(node, whole))?;
        if let [only] = node.children.as_slice()
            && !std::ptr::eq(node, root)
        {
            waiting.push((below.clone(), below, only));
            continue;
        }
        let last = node.children.len().saturating_sub(1);
        for (index, child) in node.children.iter().enumerate().rev() {
            let (branch, rest) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            waiting.push((format!("{below}{branch}"), format!("{below}{rest}"), child));
        }
    }
    Ok(())
}

fn describe(node: &LayerNode, whole: bool) -> String {
    let mut line = format!("{} {:>7}", shown_id(&node.id, whole), units::size(node.size));
    if node.kind == LayerKind::Unreferenced {
        line.push_str("  (unreferenced)");
    }
    for image in &node.images {
        line.push_str("  image ");
        line.push_str(image);
    }
    for container in &node.containers {
        line.push_str("  container ");
        line.push_str(container);
    }
    text::one_line(&line).into_owned()
}
