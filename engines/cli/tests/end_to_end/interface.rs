//! Exit codes, messages, options, and what the program does with its standard streams.

use std::fs::File;
use std::process::Stdio;

use serde_json::json;

use crate::archive::{Image, tar};
use crate::root::{on_each_driver, program};

#[test]
fn failures_have_a_message_in_one_line_and_a_code_of_their_kind() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(100).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        root.run(&["create", "demo:1", "-n", "web"]);
        let other = root.write("other.tar", &tar(&[("a", Some(b"x"))]));
        for (arguments, code, words) in [
            (&["create", "nosuch"][..], 3, "failed to create the container"),
            (&["rm", "nosuch"], 3, "failed to remove the container nosuch: "),
            (&["rmi", "nosuch"], 3, "failed to remove the image nosuch: "),
            (&["history", "nosuch"], 3, "no image"),
            (&["inspect", "nosuch", "--type", "layer"], 3, "no such layer"),
            (&["load", "/nosuch/file"], 3, "/nosuch/file"),
            (&["create", "demo:1", "--name", "web"], 4, "web"),
            (&["rmi", "demo:1"], 5, "web"),
            (&["umount", "web"], 3, "not mounted"),
            (&["load", other.to_str().unwrap()], 1, "other.tar"),
            (&["images", "--storage-opt", "nonsense=1"], 1, "unknown option"),
            (&["images", "--storage-opt", "nonsense"], 1, "key=value"),
            (&["commit", "web", "BAD NAME"], 1, "BAD NAME"),
            (&["images", "--driver", "nosuch"], 3, "nosuch"),
        ] {
            let output = root.command(arguments).output().unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
            assert!(message.starts_with("layerstack: failed to "), "{arguments:?}: {message}");
            assert!(message.contains(words), "{arguments:?}: {message}");
            assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
        }
        root.assert_clean();
    });
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["nosuch"][..],
        &[],
        &["create"],
        &["rm"],
        &["save", "--type", "zip", "x"],
        &["load", "--platform", "x", "f"],
        &["load", "a", "-i", "b"],
        &["images", "--format", "yaml"],
        &["umount"],
    ] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn one_of_several_failing_does_not_keep_the_others() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(100).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        root.run(&["create", "demo:1", "-n", "a"]);
        root.run(&["create", "demo:1", "-n", "b"]);
        let output = root.command(&["rm", "a", "x", "b", "y"]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\nb\n");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 2);
        assert_eq!(root.json(&["ps"]), json!([]));
    });
}

#[test]
fn a_damaged_archive_leaves_nothing() {
    on_each_driver(|root| {
        let image = Image::new(100_000);
        let whole = image.docker_archive("demo:1");
        let mut flipped = whole.clone();
        flipped[60_000] ^= 1;
        for (bytes, what) in [(&flipped[..], "a flipped bit"), (&whole[..70_000], "an archive cut off")] {
            let output = root.feed(&["load"], bytes);
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(matches!(output.status.code(), Some(1 | 9)), "{what}: {message}");
            assert!(message.starts_with("layerstack: failed to load: "), "{what}: {message}");
            assert_eq!(root.json(&["info"])["layers"], json!(0), "{what}");
            root.assert_clean();
        }
    });
}

#[test]
fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(1_000_000).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        for arguments in [&["images"][..], &["info"], &["save", "demo:1"], &["inspect", "demo:1"]] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let output = root.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
            assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
            assert_eq!(output.status.code(), Some(141), "{arguments:?}");

            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = root.command(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(message.starts_with("layerstack: failed to write to standard output: "), "{message}");
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
    });
}

#[test]
fn the_tables_are_dockers() {
    on_each_driver(|root| {
        let image = Image::new(100);
        let archive = root.write("image.tar", &image.docker_archive("localhost:5000/demo:1"));
        assert_eq!(root.run(&["load", archive.to_str().unwrap()]), "Loaded image: localhost:5000/demo:1\n");
        let images = root.run(&["images"]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = images.lines().map(words).collect();
        assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
        assert_eq!(lines[1][..3], ["localhost:5000/demo", "1", &image.id()[7..19]]);
        assert_eq!(root.line(&["images", "-q", "--no-trunc"]), image.id());
        assert_eq!(root.run(&["images", "-q", "nosuch"]), "");
        assert_eq!(root.line(&["images", "-q", "localhost:5000/demo"]), image.id()[7..19]);

        root.run(&["tag", "localhost:5000/demo:1", "other"]);
        assert_eq!(root.run(&["images"]).lines().count(), 3, "a line a name");
        assert_eq!(root.run(&["rmi", "other"]), "Untagged: other:latest\n");

        let history = root.run(&["history", "localhost:5000/demo:1"]);
        assert!(history.contains("a command \\u{1b}[2J"), "nothing commands the terminal: {history}");
        let info = root.run(&["info"]);
        for start in
            ["Images: 1\n", "Storage Driver: ", " Root Dir: ", " Backing Filesystem: ", "Layers: 2\n"]
        {
            assert!(info.contains(start), "{start}: {info}");
        }
    });
}

#[test]
fn root_and_driver_come_from_the_environment_or_a_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("daemon.json");
    std::fs::write(&config, r#"{"storage-driver": "vfs", "storage-opts": ["sync=none"], "debug": true}"#)
        .unwrap();
    let root = directory.path().join("root");
    let info = |command: &mut std::process::Command| -> serde_json::Value {
        let output = command.args(["info", "--format", "json"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let from_environment = info(program().env("LAYERSTACK_ROOT", &root).env("LAYERSTACK_DRIVER", "vfs"));
    let from_file = info(program().env("LAYERSTACK_CONFIG", &config).arg("--root").arg(&root));
    assert_eq!(from_environment["status"]["driver"], "vfs");
    assert_eq!(from_environment, from_file);
    let output =
        program().arg("--root").arg(&root).arg("--config").arg("/nosuch").arg("ps").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn help_names_the_exit_codes_and_every_shell_has_completions() {
    let output = program().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Exit codes:") && help.contains("LAYERSTACK_ROOT"), "{help}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("layerstack") && script.contains("storage-opt"), "{shell}");
    }
}
