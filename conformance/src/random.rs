//! Random edits of a tree. The same seed makes the same edits, so that a failure can be had again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::case::Verdict;
use crate::files;
use crate::scene::{edit, grow, id, sealed};
use crate::subject::Subject;

/// Does something with each seed from 0; where it fails the error names the seed.
///
/// # Errors
/// The first that `work` gives.
pub fn with_each_seed(seeds: u64, work: impl Fn(u64) -> Verdict) -> Verdict {
    for seed in 0..seeds {
        work(seed).map_err(|stop| stop.within(format_args!("seed {seed}")))?;
    }
    Ok(())
}

/// Makes a sealed layer of two and a writable one on it, each with random content, and gives the names of the
/// upper two.
///
/// # Errors
/// Where that fails.
pub fn layers(layers: &dyn Subject, seed: u64) -> Verdict<(String, String)> {
    let mut random = Rng::with_seed(seed);
    let [lowest, base, top] = ["lowest", "base", "top"].map(|name| format!("{name}-{seed}"));
    sealed(layers, &lowest, None, |root| edits(root, &mut random, 60))?;
    sealed(layers, &base, Some(&lowest), |root| edits(root, &mut random, 30))?;
    grow(layers, &top, Some(&base), |root| edits(root, &mut random, 25))?;
    // What was changed in an earlier mount is no different from what is changed in a later one.
    edit(layers, &top, |root| edits(root, &mut random, 15))?;
    layers.layer(&id(&top))?;
    Ok((base, top))
}

/// Does random edits to a tree.
///
/// # Errors
/// What the kernel gives, where the edit is one that must work.
pub fn edits(root: &Path, random: &mut Rng, count: usize) -> Verdict {
    for _ in 0..count {
        edit_once(root, random)?;
    }
    Ok(())
}

fn edit_once(root: &Path, random: &mut Rng) -> Verdict {
    let mut directories = vec![root.to_owned()];
    let mut others = Vec::new();
    collect(root, &mut directories, &mut others)?;
    let parent = directories[random.usize(..directories.len())].clone();
    let new = parent.join(format!("n{}", random.u8(..24)));
    let some = |random: &mut Rng, of: &[PathBuf]| of.get(random.usize(..of.len().max(1))).cloned();
    let file = some(random, &others).filter(|path| path.is_file() && !path.is_symlink());
    match random.u8(..16) {
        0..=2 if !exists(&new) => files::write(&new, bytes(random)),
        3..=4 if !exists(&new) => files::directory(&new),
        5 if !exists(&new) => Ok(symlink(format!("../target{}", random.u8(..)), &new)?),
        6 if !exists(&new) => match file {
            Some(file) => Ok(fs::hard_link(file, new)?),
            None => Ok(()),
        },
        7 if !exists(&new) => match random.u8(..3) {
            0 => files::special(&new, rustix::fs::FileType::Fifo, 0),
            1 => files::special(&new, rustix::fs::FileType::Socket, 0),
            _ => files::special(&new, rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 7)),
        },
        8 => match file {
            Some(file) => files::write(&file, bytes(random)),
            None => Ok(()),
        },
        9 => match file {
            // Length and time stay, the content does not.
            Some(file) => {
                let mut content = fs::read(&file)?;
                let time = fs::metadata(&file)?.modified()?;
                if let Some(first) = content.first_mut() {
                    *first = first.wrapping_add(1);
                }
                files::write(&file, content)?;
                Ok(fs::File::open(&file)?.set_modified(time)?)
            }
            None => Ok(()),
        },
        10 => match some(random, &others) {
            Some(other) => Ok(fs::remove_file(other)?),
            None => Ok(()),
        },
        11 if parent != root => Ok(fs::remove_dir_all(parent)?),
        12 => match some(random, &others) {
            Some(other) if !exists(&new) => Ok(fs::rename(other, new)?),
            _ => Ok(()),
        },
        13 => {
            let mode = [0o700, 0o755, 0o711, 0o1777, 0o4755][random.usize(..5)];
            files::mode(&file.unwrap_or(parent), mode)
        }
        14 => files::owner(&some(random, &others).unwrap_or(parent), random.u32(..3), random.u32(..70_000)),
        15 => match file {
            Some(file) => files::xattr(&file, "user.random", [random.u8(..)]),
            None => Ok(()),
        },
        // The name was taken.
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn bytes(random: &mut Rng) -> Vec<u8> {
    let length = [0, 1, 10, 4096, 5000][random.usize(..5)];
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

fn collect(directory: &Path, directories: &mut Vec<PathBuf>, others: &mut Vec<PathBuf>) -> Verdict {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    // The order of a directory is its file system's; the edits must not depend on it.
    paths.sort();
    for path in paths {
        if path.symlink_metadata()?.is_dir() {
            collect(&path, directories, others)?;
            directories.push(path);
        } else {
            others.push(path);
        }
    }
    Ok(())
}
