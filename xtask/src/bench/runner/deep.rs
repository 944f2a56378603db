//! Mounting a long chain of layers, against the bare system calls for the same mount.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use layerstack::LayerId;
use layerstack::apply::ApplyRequest;
use layerstack::archive::{Entry, EntryKind, Timestamp, Writer};
use layerstack::layers::{Config, Durability, Layers, MountRequest};
use layerstack::mount::{Access, MountOption, MountPlan};
use layerstack::options::Options;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// Microseconds an operation, one for each time that it was done.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Deep {
    mount: Vec<f64>,
    unmount: Vec<f64>,
    bare_mount: Vec<f64>,
    bare_unmount: Vec<f64>,
}

/// Mounts and unmounts a writable layer on `depth` others, `count` times each way.
pub(crate) fn run(layers: &Layers, depth: u32, count: u32) -> Result<Deep> {
    let top = chain(layers, depth)?;
    let plan = layers.mount_plan(&top, Access::ReadWrite)?;
    let target = layers.root().join("bare");
    std::fs::create_dir_all(&target)?;
    let mut deep = Deep::default();
    let micros = |start: Instant| start.elapsed().as_secs_f64() * 1e6;
    for _ in 0..count {
        let start = Instant::now();
        let mount = layers.mount(&top, &MountRequest::new())?;
        deep.mount.push(micros(start));
        let start = Instant::now();
        mount.unmount()?;
        deep.unmount.push(micros(start));
        let start = Instant::now();
        bare(&plan, &target)?;
        deep.bare_mount.push(micros(start));
        let start = Instant::now();
        unmount(&target, UnmountFlags::empty())?;
        deep.bare_unmount.push(micros(start));
    }
    Ok(deep)
}

/// A writable layer on `depth` layers of 10 small files each.
fn chain(layers: &Layers, depth: u32) -> Result<LayerId> {
    // Nothing here has to survive: without the flushes the chain is made sooner.
    let config = Config::new().with_driver(layers.driver_name()).with_durability(Durability::Never);
    let layers = Layers::open(layers.root(), &layerstack::registry()?, &config)?;
    let mut parent: Option<LayerId> = None;
    for level in 0..depth {
        let id = LayerId::new(format!("level{level}"))?;
        if !layers.contains(&id)? {
            let tar = small_layer(level)?;
            layers.import(&id, parent.as_ref(), &Options::new(), &mut &tar[..], ApplyRequest::new())?;
        }
        parent = Some(id);
    }
    let top = LayerId::new(format!("top{depth}"))?;
    layers.create(&top, parent.as_ref(), &Options::new())?;
    Ok(top)
}

fn small_layer(level: u32) -> Result<Vec<u8>> {
    let mut tar = Writer::new(Vec::new());
    for number in 0..10 {
        let entry = Entry {
            path: format!("level{level}-file{number}").into_bytes(),
            kind: EntryKind::File { size: 8 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 1_704_067_200, nanoseconds: 0 },
            xattrs: Vec::new(),
        };
        tar.append(&entry, Some(&mut &b"content\n"[..]))?;
    }
    Ok(tar.finish()?)
}

/// What the kernel has to be told in any case, and nothing else.
fn bare(plan: &MountPlan, target: &Path) -> Result<()> {
    let absolute = |path: &PathBuf| plan.base.as_ref().map_or_else(|| path.clone(), |base| base.join(path));
    let context = fsopen(plan.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in &plan.options {
        match option {
            MountOption::Layers(key, paths) => {
                let key = format!("{key}+");
                for path in paths {
                    fsconfig_set_string(&context, key.as_str(), absolute(path))?;
                }
            }
            MountOption::Path(key, path) => fsconfig_set_string(&context, key.as_str(), absolute(path))?,
            MountOption::Value(key, value) => {
                fsconfig_set_string(&context, key.as_str(), value.as_str())?;
            }
            MountOption::Flag(key) => bail!("the plan has the flag {key}, which this does not expect"),
        }
    }
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&mount, "", rustix::fs::CWD, target, flags)?)
}
