//! Random layers on random parents: the forms agree with each other, and the tar with its split.

use super::*;
use crate::archive::{Recorder, reassemble};

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn path(&mut self) -> String {
        let names = ["a", "b", "c"];
        (0..=self.below(3)).map(|_| names[self.below(3)]).collect::<Vec<_>>().join("/")
    }

    /// Many of the same few names, so that they meet.
    fn item(&mut self) -> Item {
        let path = self.path();
        let (parent, name) = path.rsplit_once('/').map_or(("", &path[..]), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        let mut item = match self.below(12) {
            0..4 => file(&path, &"x".repeat(self.below(9))),
            4..7 => dir(&path),
            7 => symlink(&path, ["a", "b/c", "/c", "../b", "..", "/", "none"][self.below(7)]),
            8 => hardlink(&path, &self.path()),
            9 => gone(&format!("{parent}{slash}.wh..wh..opq")),
            10 => special(&path, EntryKind::Fifo),
            _ => gone(&format!("{parent}{slash}.wh.{name}")),
        };
        item.0.uid = self.below(3) as u32;
        item.0.mode = [0o644, 0o755, 0o2775, 0o700][self.below(4)];
        item.0.mtime.seconds = self.below(100) as i64;
        if self.below(4) == 0 && !matches!(item.0.kind, EntryKind::Symlink { .. } | EntryKind::Fifo) {
            item.0.xattrs = vec![(b"user.k".to_vec(), vec![b'0' + self.below(9) as u8])];
        }
        item
    }

    fn items(&mut self, most: usize) -> Vec<Item> {
        (0..=self.below(most)).map(|_| self.item()).collect()
    }
}

/// Unpacks and, if the split is said to be exact, puts the tar together again.
fn unpack_split(target: &Path, form: LayerForm, parent: &Path, tar: &[u8]) -> Result<Applied> {
    let mut recorder = Recorder::new(Vec::new());
    let mut view = || Ok(Some(Tree::from_fd(open(parent))));
    let request = ApplyRequest::new().with_observer(&mut recorder);
    let applied = apply(open(target), form, &mut view, &mut &tar[..], request)?;
    if !applied.overwritten {
        let tree = Tree::from_fd(open(target));
        let mut find = |path: &[u8]| tree.open_file(Path::new(OsStr::from_bytes(path)));
        let mut again = Vec::new();
        reassemble(&mut &recorder.finish().unwrap()[..], &mut find, &mut again).unwrap();
        assert!(again == tar, "the split is not exact");
    }
    Ok(applied)
}

/// Applies the layers one after the other, in each form on the same parent; the name of the first entry that is
/// refused, which must be the same in all.
fn try_all(parent: &[Item], layers: &[Vec<Item>]) -> Option<std::path::PathBuf> {
    let bench = Bench::new(&[]);
    // What cannot be unpacked is left out of the parent; it is the same for both.
    for item in parent {
        for name in ["parent", "whole"] {
            let _ = unpack(&bench.path(name), LayerForm::Whole, None, &tar(std::slice::from_ref(item)));
        }
    }
    // A driver gives the layer's root what the parent's has; whether that is so is not what is tried here.
    let root = tar(&[dir("./")]);
    for (name, form) in [("parent", LayerForm::Whole), ("whole", LayerForm::Whole), ("upper", OVERLAY)] {
        unpack(&bench.path(name), form, None, &root).unwrap();
    }
    for layer in layers {
        let tar = tar(layer);
        let results = [("whole", LayerForm::Whole), ("upper", OVERLAY), ("aufs", LayerForm::Aufs)]
            .map(|(name, form)| unpack_split(&bench.path(name), form, &bench.path("parent"), &tar));
        let outcomes = results.each_ref().map(|result| match result {
            Ok(applied) => format!("{applied:?}"),
            Err(error) => error.to_string(),
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?}");
        if let Err(error) = &results[0] {
            return Some(error.path().unwrap().to_owned());
        }
        assert_eq!(dump(&bench.merged()).unwrap(), dump(&bench.whole_tree()).unwrap());
    }
    None
}

fn round(seed: u64) {
    let mut random = Random(seed);
    let parent = random.items(12);
    // The second time the target is not empty any more.
    let mut layers = Vec::new();
    for _ in 0..2 {
        layers.push(random.items(14));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while let Some(refused) = try_all(&parent, &layers) {
                let last = layers.last_mut().unwrap();
                last.retain(|(entry, _)| entry.path != refused.as_os_str().as_bytes());
            }
        }));
        if let Err(panic) = result {
            for items in [std::slice::from_ref(&parent), &layers].concat() {
                println!("layer:");
                items.iter().for_each(|(entry, _)| println!("  {} {entry:?}", entry.shown().display()));
            }
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn all_forms_give_the_same_tree() {
    // More than this by hand: LAYERSTACK_TEST_ROUNDS.
    let rounds = std::env::var("LAYERSTACK_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    (1..=rounds.unwrap_or(30)).for_each(round);
}
