//! Several threads and several processes on one root.

use std::fs;
use std::io::Write;
use std::sync::Barrier;

use layerstack_core::ErrorKind;
use layerstack_core::layers::{LayerState, MountRequest};
use layerstack_core::options::Options;

use crate::case::{Stop, Verdict, cases, check, check_eq};
use crate::errand::{Done, Step};
use crate::files::{self, write};
use crate::kernel;
use crate::scene::{Scene, edit, grow, id, import, must_be_clean, sealed, snapshot};
use crate::subject::Subject;
use crate::tarball::{Item, Tarball};

cases!("concurrency.rs":
    threads_create_different_layers,
    threads_create_the_same_layer,
    threads_mount_the_same_layer,
    threads_remove_the_same_layer,
    a_child_is_created_while_its_parent_is_removed,
    layers_are_listed_while_they_come_and_go,
    sealed_layers_are_read_by_many;
    alone:
    processes_work_on_different_layers,
    processes_import_the_same_layer,
    processes_never_see_a_half_made_layer,
    another_process_that_is_at_work_is_left_alone,
    a_lock_of_a_dead_process_is_none,
);

const THREADS: usize = 6;

/// Does the same in several threads at once.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(number)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// Fails unless exactly one of several calls succeeded and all others were refused with one of `kinds`.
fn one_won<T>(results: Vec<layerstack_core::Result<T>>, kinds: &[ErrorKind]) -> Verdict {
    check_eq!(results.len(), THREADS, "the number of threads that ended");
    let mut won = 0;
    for result in results {
        match result {
            Ok(_) => won += 1,
            Err(error) => check!(kinds.contains(&error.kind()), "one was refused with: {error:?}"),
        }
    }
    check_eq!(won, 1, "the number of threads that succeeded");
    Ok(())
}

/// One root can be used by several threads: each has what it made.
fn threads_create_different_layers(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    for verdict in at_once(|number| -> Verdict {
        for round in 0..5 {
            let name = format!("layer-{number}-{round}");
            grow(&*layers, &name, Some("base"), |root| write(&root.join("own"), &name))?;
            if round % 2 == 0 {
                layers.remove(&id(&name))?;
            }
        }
        Ok(())
    }) {
        verdict?;
    }
    check_eq!(layers.list()?.len(), 1 + THREADS * 2, "the number of layers");
    for name in layers.children(&id("base"))? {
        check!(snapshot(&*layers, name.as_str())?.get("own").is_some(), "layer {name} has lost its file");
    }
    must_be_clean(&*layers)
}

/// Create an id that exists: `AlreadyExists`, also where it is just being made (`InUse`): one of several gets it.
fn threads_create_the_same_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let other = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    for round in 0..20 {
        let name = id(&format!("layer-{round}"));
        let results = at_once(|number| {
            let layers: &dyn Subject = if number % 2 == 0 { &*layers } else { &*other };
            layers.create(&name, Some(&id("base")), &Options::new())
        });
        one_won(results, &[ErrorKind::AlreadyExists, ErrorKind::InUse])?;
        let tree = snapshot(&*layers, name.as_str())?;
        tree.must_equal(&snapshot(&*layers, "base")?, "the layer that one thread made")?;
    }
    must_be_clean(&*layers)
}

/// Mount a writable layer twice: refused, `InUse`, also at the same moment.
fn threads_mount_the_same_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    layers.create(&id("layer"), Some(&id("base")), &Options::new())?;
    for _ in 0..10 {
        let results = at_once(|_| {
            let mount = layers.mount(&id("layer"), &MountRequest::default().persistent());
            mount.map(drop)
        });
        one_won(results, &[ErrorKind::InUse])?;
        check_eq!(kernel::mounts_below(&scene.root())?.len(), 1, "the number of mounts");
        layers.unmount(&id("layer"), None)?;
    }
    Ok(())
}

/// A layer is removed once: who comes later finds it unknown, or in use while it goes.
fn threads_remove_the_same_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    for round in 0..20 {
        let name = id(&format!("layer-{round}"));
        layers.create(&name, None, &Options::new())?;
        one_won(at_once(|_| layers.remove(&name)), &[ErrorKind::NotFound, ErrorKind::InUse])?;
        check!(!layers.contains(&name)?, "the layer is still there");
    }
    must_be_clean(&*layers)
}

/// Remove a layer with children: refused, also where the child comes at the same moment. Either the child is there
/// with its parent, or neither is.
fn a_child_is_created_while_its_parent_is_removed(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let mut children = 0;
    for round in 0..30 {
        let parent = format!("parent-{round}");
        sealed(&*layers, &parent, None, |root| write(&root.join("file"), "x"))?;
        let (parent, child) = (id(&parent), id(&format!("child-{round}")));
        at_once(|number| {
            if number % 2 == 0 {
                let _ = layers.remove(&parent);
            } else {
                let _ = layers.create(&child, Some(&parent), &Options::new());
            }
        });
        if layers.contains(&child)? {
            children += 1;
            check!(layers.contains(&parent)?, "the child is there without its parent");
            check!(snapshot(&*layers, child.as_str())?.get("file").is_some(), "the child is not whole");
        }
    }
    check!(children <= 30, "more children than rounds");
    must_be_clean(&*layers)
}

/// A list is of layers that are there, whatever comes and goes meanwhile.
fn layers_are_listed_while_they_come_and_go(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let verdicts = at_once(|number| -> Verdict {
        for round in 0..40 {
            if number == 0 {
                let ids = layers.list()?;
                check!(ids.contains(&id("base")), "a list lacks the layer that was always there: {ids:?}");
                must_be_clean(&*layers)?;
            } else {
                let name = id(&format!("layer-{number}-{round}"));
                layers.create(&name, Some(&id("base")), &Options::new())?;
                layers.remove(&name)?;
            }
        }
        Ok(())
    });
    verdicts.into_iter().collect::<Verdict<Vec<_>>>()?;
    check_eq!(layers.list()?, [id("base")], "the layers left");
    Ok(())
}

/// A sealed layer can be mounted, diffed and built upon by many at the same time.
fn sealed_layers_are_read_by_many(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    sealed(&*layers, "top", Some("base"), |root| write(&root.join("etc/passwd"), "changed"))?;
    let wanted = snapshot(&*layers, "top")?;
    let verdicts = at_once(|number| -> Verdict {
        for round in 0..5 {
            let target = scene.work().join(format!("at-{number}-{round}"));
            fs::create_dir(&target)?;
            let mount = layers.mount(&id("top"), &MountRequest::default().with_target(&target))?;
            crate::snapshot::Snapshot::read(mount.target())?.must_equal(&wanted, "a mount")?;
            mount.unmount()?;
            let changes = crate::scene::changes(&*layers, "top")?;
            check_eq!(changes, ["C /etc", "C /etc/passwd"], "the changes");
            grow(&*layers, &format!("on-{number}-{round}"), Some("top"), |root| write(&root.join("x"), "x"))?;
        }
        Ok(())
    });
    verdicts.into_iter().collect::<Verdict<Vec<_>>>()?;
    must_be_clean(&*layers)
}

/// Two processes on one root: serialised by locks.
fn processes_work_on_different_layers(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    sealed(&*layers, "base", None, files::sample)?;
    let tar = scene.work().join("tar");
    write(&tar, Tarball::of([Item::file("imported", "x")]))?;
    let mut running = Vec::new();
    for number in 0..4 {
        let mut steps = Vec::new();
        for round in 0..8 {
            let name = |what: &str| id(&format!("{what}-{number}-{round}"));
            steps.extend([
                Step::Create(name("created"), Some(id("base"))),
                Step::Write(name("created"), 100),
                Step::Import(name("imported"), Some(id("base")), tar.clone()),
                Step::Diff(name("created")),
                Step::Seal(name("created")),
                Step::Create(name("gone"), Some(name("imported"))),
                Step::Remove(name("gone")),
            ]);
        }
        running.push(scene.errand(steps).start()?);
    }
    for process in running {
        process.finish()?.must_be_well()?;
    }
    check_eq!(layers.list()?.len(), 1 + 4 * 8 * 2, "the number of layers");
    check!(
        snapshot(&*layers, "created-3-7")?.get("written").is_some(),
        "what another process wrote is missing"
    );
    must_be_clean(&*layers)
}

/// Two processes on one root: an image layer that several import at once is there once, whole.
fn processes_import_the_same_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = scene.work().join("tar");
    write(&tar, Tarball::of((0..300).map(|count| Item::file(format!("f{count}"), "x"))))?;
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(scene.errand([Step::Import(id("layer"), None, tar.clone())]).start()?);
    }
    let mut won = 0;
    for process in running {
        let report = process.finish()?;
        match &report.done[..] {
            [Done::Well] => won += 1,
            [Done::Refused(kind, _)]
                if [ErrorKind::AlreadyExists.as_str(), ErrorKind::InUse.as_str()]
                    .contains(&kind.as_str()) => {}
            _ => return Err(Stop::failed(format_args!("another process: {report:?}"))),
        }
    }
    check_eq!(won, 1, "the number of processes that succeeded");
    check_eq!(snapshot(&*layers, "layer")?.paths().len(), 300, "the number of files");
    must_be_clean(&*layers)
}

/// Two processes on one root: neither sees a half-made layer.
fn processes_never_see_a_half_made_layer(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let tar = scene.work().join("tar");
    write(&tar, Tarball::of((0..800).map(|count| Item::file(format!("f{count}"), "x"))))?;
    for round in 0..5 {
        let name = format!("layer-{round}");
        let process = scene.errand([Step::Import(id(&name), None, tar.clone())]).start()?;
        let patience = std::time::Instant::now();
        while !layers.contains(&id(&name))? {
            check!(patience.elapsed().as_secs() < 60, "the other process does not end");
            std::thread::yield_now();
        }
        // From the first moment at which it is there.
        check_eq!(layers.layer(&id(&name))?.state, LayerState::Sealed, "its state");
        check_eq!(snapshot(&*layers, &name)?.paths().len(), 800, "the number of files when it is first seen");
        process.finish()?.must_be_well()?;
    }
    Ok(())
}

/// Recovery looks at what was in flight; what another process is working on is not mended.
fn another_process_that_is_at_work_is_left_alone(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let pipe = scene.work().join("pipe");
    files::special(&pipe, rustix::fs::FileType::Fifo, 0)?;
    let process = scene.errand([Step::Import(id("layer"), None, pipe.clone())]).start()?;
    let mut end = fs::OpenOptions::new().write(true).open(&pipe)?;
    let tar = Tarball::of((0..20).map(|count| Item::file(format!("f{count}"), vec![b'x'; 100_000])));
    // More than a pipe holds: when it is written, the other process is within its import and reads.
    let (first, second) = tar.split_at(tar.len() / 2);
    end.write_all(first)?;
    for _ in 0..3 {
        let opened = scene.open()?;
        check!(!opened.contains(&id("layer"))?, "the layer is seen");
        must_be_clean(&*opened)?;
        check!(import(&*opened, "layer", None, &tar).is_err(), "the id is given away twice");
    }
    end.write_all(second)?;
    drop(end);
    process.finish()?.must_be_well()?;
    check_eq!(snapshot(&*layers, "layer")?.paths().len(), 20, "the number of files");
    must_be_clean(&*layers)
}

/// A lock that a dead process left is no lock: its half-made layer is out of the way at once.
fn a_lock_of_a_dead_process_is_none(scene: &Scene) -> Verdict {
    let layers = scene.open()?;
    let before = scene.names()?;
    let pipe = scene.work().join("pipe");
    files::special(&pipe, rustix::fs::FileType::Fifo, 0)?;
    let mut process = scene.errand([Step::Import(id("layer"), None, pipe.clone())]).start()?;
    let mut end = fs::OpenOptions::new().write(true).open(&pipe)?;
    // More than a pipe holds: when it is written, the process is within its import and reads.
    end.write_all(&Tarball::new().item(Item::file("half", vec![b'x'; 1 << 20])).unfinished())?;
    process.kill()?;
    check!(process.finish()?.was_killed(), "the process was not killed");
    check!(!layers.contains(&id("layer"))?, "its layer is there");
    layers.create(&id("layer"), None, &Options::new())?;
    edit(&*layers, "layer", |root| {
        check!(!root.join("half").exists(), "what the dead process wrote is in the new layer");
        Ok(())
    })?;
    layers.remove(&id("layer"))?;
    scene.must_have(&before)?;
    must_be_clean(&*layers)
}
