//! Processes that are killed: at every named point between two steps, and at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use layerstack_core::options::Options;

use crate::case::{Stop, Verdict, cases, check, check_eq};
use crate::errand::Step;
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, grow, id, must_be_clean, sealed, snapshot};
use crate::snapshot::Snapshot;
use crate::subject::Subject;
use crate::tarball::{Item, Tarball};

cases!("crash.rs":;
    alone:
    killed_while_creating,
    killed_while_importing,
    killed_while_applying,
    killed_while_sealing,
    killed_while_removing,
    killed_while_mounting,
    killed_while_mending,
    killed_at_any_moment,
    killed_while_importing_at_any_moment,
);

/// What may be there after a kill, by layer.
type Allowed = BTreeMap<&'static str, Vec<Option<Snapshot>>>;

/// A root with a sealed layer `base` and a tar at hand; on it each round makes what it needs and removes it again.
struct Ground<'a> {
    scene: &'a Scene,
    base: Snapshot,
    names: Vec<String>,
}

impl<'a> Ground<'a> {
    fn new(scene: &'a Scene) -> Verdict<Self> {
        let layers = scene.open()?;
        sealed(&*layers, "base", None, files::sample)?;
        // A second child, so that the records look alike before and after.
        sealed(&*layers, "other", Some("base"), |root| write(&root.join("other"), "o"))?;
        write(&scene.work().join("tar"), tar())?;
        let base = snapshot(&*layers, "base")?;
        Ok(Self { scene, base, names: scene.names()? })
    }

    /// The points that a process passes while it does the steps, in order, each as often as it is passed.
    fn points(&self, steps: &[Step]) -> Verdict<Vec<(String, usize)>> {
        let log = self.scene.work().join("log");
        let report = self.scene.errand(steps.to_vec()).logging_to(&log).run()?;
        report.must_be_well()?;
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        if text.is_empty() && !steps.is_empty() {
            return Err(Stop::not_run("built without the feature kill-points of layerstack-core"));
        }
        let mut passes: BTreeMap<&str, usize> = BTreeMap::new();
        Ok(text
            .lines()
            .map(|name| {
                let count = passes.entry(name).or_default();
                *count += 1;
                (name.to_owned(), *count)
            })
            .collect())
    }

    /// Kills the steps at each of their points, opens the root and looks. `prepare` makes what the steps need;
    /// `allowed` says what may be there afterwards.
    fn kill_at_each_point(
        &self,
        prepare: &dyn Fn(&dyn Subject) -> Verdict,
        steps: &[Step],
        allowed: &dyn Fn(&Self) -> Verdict<Allowed>,
    ) -> Verdict {
        let points = self.prepared(prepare, || self.points(steps))?;
        check!(points.len() >= 2, "only the points {points:?} are passed: there is nowhere to kill at");
        let allowed = allowed(self)?;
        for (point, nth) in points {
            let at = |stop: Stop| stop.within(format_args!("killed at {point}:{nth}"));
            self.prepared(prepare, || {
                let report = self.scene.errand(steps.to_vec()).killed_at(&point, nth).run()?;
                check!(report.was_killed(), "the process was not killed: {report:?}");
                self.must_be_whole(&*self.scene.open()?, &allowed)
            })
            .map_err(at)?;
        }
        Ok(())
    }

    /// Prepares, does the work, and removes every layer but those of the ground, after which nothing may be left.
    fn prepared<T>(
        &self,
        prepare: &dyn Fn(&dyn Subject) -> Verdict,
        work: impl FnOnce() -> Verdict<T>,
    ) -> Verdict<T> {
        prepare(&*self.scene.open()?)?;
        let done = work()?;
        let layers = self.scene.open()?;
        for name in ["on-layer", "layer"] {
            if layers.contains(&id(name))? {
                for mount in layers.mounts(Some(&id(name)))? {
                    layers.unmount(&id(name), Some(&mount.target))?;
                }
                layers.remove(&id(name))?;
            }
        }
        self.scene.must_have(&self.names)?;
        Ok(done)
    }

    /// After the next open every layer is whole or absent, and there are no orphans.
    fn must_be_whole(&self, layers: &dyn Subject, allowed: &Allowed) -> Verdict {
        must_be_clean(layers)?;
        snapshot(layers, "base")?.must_equal(&self.base, "the sealed layer below")?;
        let mounted = kernel::mounts_below(&self.scene.root())?.len();
        check_eq!(mounted, layers.mounts(None)?.len(), "the number of mounts against those that are listed");
        for found in layers.list()? {
            let known = ["base", "other"].contains(&found.as_str()) || allowed.contains_key(found.as_str());
            check!(known, "there is a layer {found}");
        }
        for (name, states) in allowed {
            let found = if layers.contains(&id(name))? { Some(seen(layers, name)?) } else { None };
            if !states.contains(&found) {
                let differences = match (&found, states.iter().flatten().next()) {
                    (Some(found), Some(wanted)) => found.differences(wanted).join("; "),
                    (None, _) => "it is absent".to_owned(),
                    (Some(_), None) => "it is there".to_owned(),
                };
                return Err(Stop::failed(format_args!(
                    "layer {name} is neither whole nor absent: {differences}"
                )));
            }
        }
        // Nothing is in the way of doing it again.
        let again = id("on-layer");
        if !layers.contains(&again)? {
            layers.create(&again, Some(&id("base")), &Options::new())?;
            layers.remove(&again)?;
        }
        Ok(())
    }
}

/// The tree of a layer, whether it is mounted or not.
fn seen(layers: &dyn Subject, name: &str) -> Verdict<Snapshot> {
    match layers.mounts(Some(&id(name)))?.first() {
        Some(mount) => Snapshot::read(&mount.target),
        None => snapshot(layers, name),
    }
}

fn tar() -> Vec<u8> {
    Tarball::of([
        Item::directory("etc").mode(0o750),
        Item::file("etc/passwd", "changed"),
        Item::file("etc/.wh.init", ""),
        Item::directory("new"),
        Item::file("new/file", vec![b'x'; 10_000]),
        Item::hardlink("new/same", "new/file"),
        Item::hardlink("also", "usr/bin/tool"),
        Item::symlink("new/link", "file"),
    ])
}

/// Kill -9 at any point of a creation: the layer is whole or absent; no orphans.
fn killed_while_creating(scene: &Scene) -> Verdict {
    let steps = [Step::Create(id("layer"), Some(id("base")))];
    Ground::new(scene)?.kill_at_each_point(&|_| Ok(()), &steps, &|ground| {
        Ok(Allowed::from([("layer", vec![None, Some(ground.base.clone())])]))
    })
}

/// Kill -9 at any point of an import: the layer is whole and sealed, or absent; no orphans.
fn killed_while_importing(scene: &Scene) -> Verdict {
    let steps = [Step::Import(id("layer"), Some(id("base")), scene.work().join("tar"))];
    let ground = Ground::new(scene)?;
    let whole = ground.prepared(&|_| Ok(()), || {
        scene.errand(steps.to_vec()).run()?.must_be_well()?;
        snapshot(&*scene.open()?, "layer")
    })?;
    ground.kill_at_each_point(&|_| Ok(()), &steps, &|_| {
        Ok(Allowed::from([("layer", vec![None, Some(whole.clone())])]))
    })
}

/// Kill -9 at any point of an apply: the layer is as before, as afterwards, or absent; no orphans.
fn killed_while_applying(scene: &Scene) -> Verdict {
    let steps = [Step::Apply(id("layer"), scene.work().join("tar"))];
    let ground = Ground::new(scene)?;
    let prepare =
        |layers: &dyn Subject| Ok(layers.create(&id("layer"), Some(&id("base")), &Options::new())?);
    let whole = ground.prepared(&prepare, || {
        scene.errand(steps.to_vec()).run()?.must_be_well()?;
        snapshot(&*scene.open()?, "layer")
    })?;
    ground.kill_at_each_point(&prepare, &steps, &|ground| {
        Ok(Allowed::from([("layer", vec![None, Some(ground.base.clone()), Some(whole.clone())])]))
    })
}

/// Makes a writable layer with a change, whose tree is the same in every round.
fn changed(layers: &dyn Subject) -> Verdict {
    grow(layers, "layer", Some("base"), |root| {
        write(&root.join("etc/passwd"), "changed")?;
        fs::remove_file(root.join("empty"))?;
        for path in ["etc/passwd", "etc", "."] {
            files::mtime(&root.join(path), 1_400_000_000, 0)?;
        }
        Ok(())
    })
}

/// The tree that [`changed`] makes.
fn changed_tree(ground: &Ground<'_>) -> Verdict<Snapshot> {
    ground.prepared(&changed, || snapshot(&*ground.scene.open()?, "layer"))
}

/// Kill -9 at any point of a sealing: the layer is whole, sealed or not; no orphans.
fn killed_while_sealing(scene: &Scene) -> Verdict {
    let steps = [Step::Seal(id("layer"))];
    Ground::new(scene)?.kill_at_each_point(&changed, &steps, &|ground| {
        Ok(Allowed::from([("layer", vec![Some(changed_tree(ground)?)])]))
    })
}

/// Kill -9 at any point of a removal: the layer is whole or absent; no orphans.
fn killed_while_removing(scene: &Scene) -> Verdict {
    let steps = [Step::Remove(id("layer"))];
    let prepare = |layers: &dyn Subject| {
        changed(layers)?;
        Ok(layers.seal(&id("layer"))?)
    };
    Ground::new(scene)?.kill_at_each_point(&prepare, &steps, &|ground| {
        Ok(Allowed::from([("layer", vec![None, Some(changed_tree(ground)?)])]))
    })
}

/// Kill -9 at any point of mounting and unmounting: the layer is whole; a mount is there and listed, or neither.
fn killed_while_mounting(scene: &Scene) -> Verdict {
    let steps = [Step::Write(id("layer"), 0), Step::Mount(id("layer")), Step::Unmount(id("layer"))];
    let ground = Ground::new(scene)?;
    let points = ground.prepared(&changed, || ground.points(&steps))?;
    check!(points.len() >= 2, "only the points {points:?} are passed: there is nowhere to kill at");
    for (point, nth) in points {
        ground.prepared(&changed, || {
            let report = scene.errand(steps.to_vec()).killed_at(&point, nth).run()?;
            check!(report.was_killed(), "at {point}:{nth}: the process was not killed: {report:?}");
            let layers = scene.open()?;
            must_be_clean(&*layers)?;
            let mounted = kernel::mounts_below(&scene.root())?.len();
            check_eq!(
                mounted,
                layers.mounts(None)?.len(),
                "the number of mounts after a kill at {point}:{nth}"
            );
            let tree = seen(&*layers, "layer")?;
            check!(
                tree.get("empty").is_none() && tree.get("usr/bin/tool").is_some(),
                "the layer is not whole"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Recovery is itself killed, at each of its points: the open after that finishes it.
fn killed_while_mending(scene: &Scene) -> Verdict {
    let ground = Ground::new(scene)?;
    let nothing: &dyn Fn(&dyn Subject) -> Verdict = &|_| Ok(());
    let import = [Step::Import(id("layer"), Some(id("base")), scene.work().join("tar"))];
    let remove = [Step::Remove(id("layer"))];
    let mut killed = 0;
    for (prepare, steps) in [(nothing, &import), (&changed as &dyn Fn(&dyn Subject) -> Verdict, &remove)] {
        for (first, nth) in ground.prepared(prepare, || ground.points(steps))? {
            let interrupt = || -> Verdict {
                let report = scene.errand(steps.to_vec()).killed_at(&first, nth).run()?;
                check!(report.was_killed(), "the process was not killed: {report:?}");
                Ok(())
            };
            let mending = ground.prepared(prepare, || {
                interrupt()?;
                ground.points(&[])
            })?;
            for (second, nth) in mending {
                ground.prepared(prepare, || {
                    interrupt()?;
                    let report = scene.errand([]).killed_at(&second, nth).run()?;
                    check!(
                        report.was_killed(),
                        "killed at {first}, then at {second}: it was not: {report:?}"
                    );
                    killed += 1;
                    must_be_clean(&*scene.open()?)
                })?;
            }
        }
    }
    check!(killed > 0, "opening a root after a kill passes no point");
    Ok(())
}

/// Kill -9 at any moment: every layer is whole or absent; no orphans; what was sealed is there.
fn killed_at_any_moment(scene: &Scene) -> Verdict {
    let ground = Ground::new(scene)?;
    let mut steps = Vec::new();
    for _ in 0..60 {
        steps.extend([
            Step::Create(id("layer"), Some(id("base"))),
            Step::Write(id("layer"), 5000),
            Step::Seal(id("layer")),
            Step::Create(id("on-layer"), Some(id("layer"))),
            Step::Remove(id("on-layer")),
            Step::Remove(id("layer")),
        ]);
    }
    random_kills(&ground, &steps, &|layers| {
        for name in ["layer", "on-layer"] {
            if layers.contains(&id(name))? {
                let tree = seen(layers, name)?;
                check!(tree.get("usr/bin/tool").is_some(), "layer {name} is not whole");
            }
        }
        Ok(())
    })
}

/// Kill -9 at any moment of an import: the layer is whole or absent; no orphans.
fn killed_while_importing_at_any_moment(scene: &Scene) -> Verdict {
    let ground = Ground::new(scene)?;
    write(
        &scene.work().join("tar"),
        Tarball::of((0..2000).map(|count| Item::file(format!("f{count}"), "x"))),
    )?;
    let import = Step::Import(id("layer"), Some(id("base")), scene.work().join("tar"));
    let steps: Vec<_> = (0..20).flat_map(|_| [import.clone(), Step::Remove(id("layer"))]).collect();
    random_kills(&ground, &steps, &|layers| {
        if layers.contains(&id("layer"))? {
            let count = snapshot(layers, "layer")?.paths().len();
            check_eq!(count, 2000 + files::SAMPLE.len(), "the number of files in the layer");
        }
        Ok(())
    })
}

fn random_kills(ground: &Ground<'_>, steps: &[Step], look: &dyn Fn(&dyn Subject) -> Verdict) -> Verdict {
    crate::random::with_each_seed(15, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        ground.prepared(&|_| Ok(()), || {
            let mut process = ground.scene.errand(steps.to_vec()).start()?;
            std::thread::sleep(Duration::from_micros(random.u64(3_000..150_000)));
            process.kill()?;
            process.finish()?;
            let layers = ground.scene.open()?;
            must_be_clean(&*layers)?;
            snapshot(&*layers, "base")?.must_equal(&ground.base, "the sealed layer below")?;
            let mounted = kernel::mounts_below(&ground.scene.root())?.len();
            check_eq!(
                mounted,
                layers.mounts(None)?.len(),
                "the number of mounts against those that are listed"
            );
            look(&*layers)
        })
    })
}
