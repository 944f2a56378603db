//! Commands that are killed, interrupted, or run at the same time.

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::archive::Image;
use crate::root::{Root, on_each_driver};

#[test]
fn after_a_kill_at_any_moment_of_a_load_the_store_is_clean() {
    on_each_driver(|root| {
        let image = Image::new(3_000_000);
        let archive = root.write("image.tar", &image.docker_archive("demo:1"));
        let load = ["load", archive.to_str().unwrap()];
        let begun = Instant::now();
        root.run(&load);
        let whole = begun.elapsed();
        root.run(&["rmi", "demo:1"]);
        let mut killed = 0;
        for round in 0..12 {
            let mut child = root.command(&load).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * round / 12);
            child.kill().unwrap();
            killed += u32::from(!child.wait().unwrap().success());
            assert_consistent(root, &image);
        }
        assert!(killed > 0, "no load was still running when it was killed");
        root.run(&load);
        assert_eq!(root.json(&["images"])[0]["id"], json!(image.id()));
        root.assert_clean();
    });
}

/// Asserts that the store is clean, and that the image is there with all its layers or not at all; removes it.
fn assert_consistent(root: &Root, image: &Image) {
    let check = root.command(&["check", "--deep"]).output().unwrap();
    let said = String::from_utf8(check.stderr).unwrap();
    assert!(check.status.success(), "{said}");
    assert!(said.lines().all(|line| line.starts_with("layerstack: mended: ")), "{said}");
    let images = root.json(&["images"]);
    let layers = root.json(&["info"])["layers"].clone();
    if images == json!([]) {
        assert_eq!(layers, json!(0), "layers without an image are left");
    } else {
        assert_eq!((&images[0]["id"], layers), (&json!(image.id()), json!(2)));
        root.run(&["rmi", "demo:1"]);
    }
}

#[test]
fn an_interrupted_load_leaves_nothing() {
    on_each_driver(|root| {
        let image = Image::new(2_000_000);
        let archive = image.docker_archive("demo:1");
        for signal in [Signal::INT, Signal::TERM] {
            let mut command = root.command(&["load"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&archive[..archive.len() / 2]).unwrap();
            // All that fits neither the pipe nor the program's memory is read: the load is under way.
            kill_process(pid(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            drop(stdin);
            assert_eq!(output.status.code(), Some(130));
            assert_eq!(String::from_utf8(output.stderr).unwrap(), "layerstack: interrupted\n");
            let left: Vec<_> = fs::read_dir(root.path().join("store/tmp"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let archive = root.write("image.tar", &archive);
        let child = root.command(&["load", archive.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15));
        kill_process(pid(&child), Signal::INT).unwrap();
        let _ = child.wait_with_output().unwrap();
        assert_consistent(root, &image);
    });
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

#[test]
fn two_processes_load_the_same_image_at_once() {
    on_each_driver(|root| {
        let image = Image::new(1_000_000);
        let archive = root.write("image.tar", &image.docker_archive("demo:1"));
        let load =
            || root.command(&["load", archive.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
        for mut child in [load(), load(), load()] {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(root.json(&["images"]).as_array().unwrap().len(), 1);
        assert_eq!(root.json(&["info"])["layers"], json!(2));
        root.assert_clean();
    });
}

#[test]
fn many_processes_create_mount_and_remove_at_once() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(1000).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || {
                    let name = format!("c{number}");
                    run_amid_others(root, &["create", "demo:1", "-n", &name]);
                    let mounted = run_amid_others(root, &["mount", &name]);
                    fs::write(format!("{}/own", mounted.trim_end()), &name).unwrap();
                    assert_eq!(run_amid_others(root, &["diff", &name]), "A /own\n");
                    run_amid_others(root, &["umount", &name]);
                    run_amid_others(root, &["rm", &name]);
                });
            }
        });
        assert_eq!(root.json(&["ps"]), json!([]));
        assert_eq!(root.json(&["info"])["layers"], json!(2));
        root.assert_clean();
    });
}

/// What a command prints. It may say that it found a mount gone: that of a process which is just unmounting.
fn run_amid_others(root: &Root, arguments: &[&str]) -> String {
    let output = root.command(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    assert!(said.lines().all(|line| line.contains(": its mount on ")), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
