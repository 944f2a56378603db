//! The process is killed at every point of an operation; the next opening finds a whole store.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use layerstack_store::{
    CommitRequest, CreateContainer, LoadRequest, LoadSource, RemoveContainer, RemoveImage, Silent,
};

use crate::fixture::{DRIVERS, Packing, Picture, Scene, assert_clean, layout, open, to_directory};

const ROOT: &str = "LAYERSTACK_TEST_ROOT";
const DRIVER: &str = "LAYERSTACK_TEST_DRIVER";

/// Not a test of its own: what the killed process does. Without the environment it does nothing.
#[test]
fn child() {
    let (Ok(root), Ok(driver)) = (std::env::var(ROOT), std::env::var(DRIVER)) else { return };
    let scratch = Path::new(&root).parent().unwrap().to_owned();
    let store = open(Path::new(&root), &driver).unwrap();
    let load = |name: &str| {
        let path = scratch.join(name);
        store.load(LoadSource::Path(&path), &LoadRequest::default(), &Silent).unwrap();
    };
    load("one");
    load("two");
    let mut request = CreateContainer::default();
    request.name = Some("c".into());
    store.create_container("pic:1", &request).unwrap();
    let mut request = CommitRequest::default();
    request.name = Some("committed:1".into());
    store.commit("c", &request, &Silent).unwrap();
    store.remove_container("c", &RemoveContainer::default()).unwrap();
    store.remove_image("committed:1", &RemoveImage::default()).unwrap();
    store.remove_image("pic:1", &RemoveImage::default()).unwrap();
}

fn child_command(scene: &Scene, driver: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child"]).env(ROOT, scene.root()).env(DRIVER, driver);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn prepared(driver: &'static str) -> Scene {
    let scene = Scene::new(driver);
    to_directory(&layout(&[Picture::new("pic:1", Packing::Gzip)]), &scene.path("one"));
    to_directory(&layout(&[Picture::sibling("other:1", Packing::Plain)]), &scene.path("two"));
    scene
}

/// After the kill: the store opens, all is whole, and the work can be done again.
fn assert_recovers(scene: &Scene, driver: &str, killed: &str) {
    let store = scene.again();
    assert_clean(&store);
    for image in store.images().unwrap() {
        assert_eq!(image.broken, None, "{killed}");
    }
    for container in store.containers().unwrap() {
        assert_eq!(container.broken, None, "{killed}");
        store.remove_container(container.id.as_str(), &RemoveContainer::default()).unwrap();
    }
    for image in store.images().unwrap() {
        store.remove_image(image.id.as_str(), &RemoveImage::default()).unwrap();
    }
    assert_eq!(store.layers().list().unwrap(), [], "{killed}");
    drop(store);
    let status = child_command(scene, driver).status().unwrap();
    assert!(status.success(), "after {killed} the same work fails: {status}");
}

#[test]
fn killed_at_every_point() {
    for driver in DRIVERS {
        let log = {
            let scene = prepared(driver);
            let log = scene.path("log");
            let status = child_command(&scene, driver).env("LAYERSTACK_KILL_LOG", &log).status().unwrap();
            assert!(status.success());
            std::fs::read_to_string(log).unwrap()
        };
        let mut passes: HashMap<&str, u32> = HashMap::new();
        let mut points = Vec::new();
        for name in log.lines() {
            let pass = passes.entry(name).or_insert(0);
            *pass += 1;
            // Of the store's own points the second pass too: with nothing there, and with something. The others are
            // the conformance suite's.
            if *pass == 1 || (*pass == 2 && name.starts_with("store.")) {
                points.push(format!("{name}:{pass}"));
            }
        }
        assert!(points.iter().any(|point| point.starts_with("store.load.brought")), "{points:?}");
        for point in points {
            let scene = prepared(driver);
            let status = child_command(&scene, driver).env("LAYERSTACK_KILL_AT", &point).status().unwrap();
            assert_eq!(status.signal(), Some(9), "{point}: {status}");
            assert_recovers(&scene, driver, &point);
        }
    }
}

/// What a dead process still claims keeps an image's top layer; when that goes, those below it go as well.
#[test]
fn an_image_is_removed_while_a_dead_process_claims_its_top_layer() {
    for driver in DRIVERS {
        let scene = prepared(driver);
        let status =
            child_command(&scene, driver).env("LAYERSTACK_KILL_AT", "store.container.made:1").status();
        assert_eq!(status.unwrap().signal(), Some(9));
        for image in ["pic:1", "other:1"] {
            scene.store.remove_image(image, &RemoveImage::default()).unwrap();
        }
        let left = scene.store.layers().list().unwrap().len();
        assert!(left >= 3, "the container's layer and the image's below it, not {left}");
        let store = scene.again();
        assert_eq!(store.layers().list().unwrap(), []);
        assert_clean(&store);
    }
}

#[test]
fn killed_at_random_moments() {
    for driver in DRIVERS {
        for round in 0..12_u64 {
            let scene = prepared(driver);
            let mut child = child_command(&scene, driver).spawn().unwrap();
            // Spread over the few hundred milliseconds that the work takes.
            std::thread::sleep(Duration::from_millis(20 + round * 37 % 400));
            let _ = child.kill();
            child.wait().unwrap();
            assert_recovers(&scene, driver, &format!("round {round}"));
        }
    }
}
