//! An image and its containers from `load` to `rmi`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use crate::archive::{Image, digests_of_layout};
use crate::root::on_each_driver;

#[test]
fn an_image_lives_from_load_to_rmi() {
    on_each_driver(|root| {
        let image = Image::new(100_000);
        let layout = root.file("layout");
        let manifest = image.write_layout(&layout, "demo:1");
        let loaded = root.run(&["load", layout.to_str().unwrap()]);
        let name = loaded.trim_end().strip_prefix("Loaded image: ").unwrap();
        assert_eq!(root.json(&["inspect", name])[0]["manifests"], json!([manifest]));

        let id = root.line(&["create", name, "--name", "web"]);
        assert_eq!(id.len(), 64);
        let mounted = root.line(&["mount", "web"]);
        assert_eq!(root.line(&["mount", "web"]), mounted, "a second mount is the first one");
        let tree = Path::new(&mounted);
        assert_eq!(fs::read_to_string(tree.join("etc/motd")).unwrap(), "hello\n");
        assert!(!tree.join("etc/hostname").exists());
        fs::write(tree.join("etc/new"), "new\n").unwrap();
        fs::write(tree.join("etc/motd"), "HELLO\n").unwrap();
        fs::remove_file(tree.join("usr/data")).unwrap();

        let changes = "C /etc\nC /etc/motd\nA /etc/new\nC /usr\nD /usr/data\n";
        assert_eq!(root.run(&["diff", "web"]), changes, "while it is mounted");
        assert!(root.run(&["ps"]).contains(&mounted));
        assert_eq!(root.line(&["umount", "web"]), "web");
        assert!(!tree.join("etc/motd").exists() || !root.run(&["ps"]).contains(&mounted));
        assert_eq!(root.run(&["diff", "web"]), changes, "after it was unmounted");

        let committed = root.line(&["commit", "-m", "why", "-a", "me", "-c", "ENV A=b", "web", "derived:1"]);
        let history = root.run(&["history", "derived:1"]);
        assert!(history.lines().nth(1).unwrap().contains("why"), "{history}");
        let inspected = root.json(&["inspect", "derived:1"]);
        assert_eq!(inspected[0]["id"], json!(committed));
        assert_eq!(inspected[0]["config"]["config"]["Env"], json!(["A=b"]));
        assert_eq!(inspected[0]["config"]["author"], json!("me"));
        let second = root.line(&["create", "derived:1", "--name", "second"]);
        let mounted = root.line(&["mount", &second[..12]]);
        assert_eq!(fs::read_to_string(Path::new(&mounted).join("etc/motd")).unwrap(), "HELLO\n");
        assert!(!Path::new(&mounted).join("usr/data").exists());
        assert_eq!(root.run(&["umount", "--all"]), "second\n");

        let (code, message) = root.fail(&["rmi", "derived:1"]);
        assert_eq!(code, 5, "{message}");
        assert!(message.contains("second"), "the message names the container: {message}");
        assert_eq!(root.run(&["rm", "web", "second"]), "web\nsecond\n");
        root.assert_clean();

        let saved = root.file("saved");
        root.run(&["save", name, "--dir", saved.to_str().unwrap()]);
        assert_eq!(digests_of_layout(&saved), digests_of_layout(&layout));

        assert!(root.run(&["rmi", "derived:1"]).contains(&format!("Deleted: {committed}")));
        root.run(&["rmi", &image.id()["sha256:".len()..][..12]]);
        let info = root.json(&["info"]);
        assert_eq!(
            (&info["images"], &info["containers"], &info["layers"]),
            (&json!(0), &json!(0), &json!(0))
        );
        root.assert_clean();
    });
}

#[test]
fn archives_of_every_form_load_and_save_back() {
    on_each_driver(|root| {
        let image = Image::new(50_000);
        let archive = root.write("image.tar", &image.docker_archive("demo:1"));
        root.run(&["load", "-i", archive.to_str().unwrap()]);
        for form in ["oci", "docker"] {
            let out = root.file(form);
            root.run(&["save", "--type", form, "-o", out.to_str().unwrap(), "demo:1"]);
            let piped = root.command(&["save", "--type", form, "demo:1"]).output().unwrap();
            assert_eq!(piped.stdout, fs::read(&out).unwrap(), "a pipe gets what a file gets");
            let output = root.feed(&["load", "-q", "--name", "again:1"], &piped.stdout);
            assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), image.id());
        }
        assert_eq!(root.json(&["images"]).as_array().unwrap().len(), 1, "it is one image all the time");
        assert_eq!(root.json(&["images"])[0]["names"], json!(["again:1", "demo:1"]));
    });
}

#[test]
fn a_mount_outlives_the_command_and_one_that_was_taken_away_is_noticed() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(100).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        root.run(&["create", "demo:1", "-n", "web"]);
        let target = root.file("target");
        fs::create_dir(&target).unwrap();
        let target = target.to_str().unwrap();
        assert_eq!(root.line(&["mount", "web", target]), target);
        assert_eq!(root.run(&["mount"]), format!("web {target}\n"));
        assert!(Path::new(target).join("etc/motd").exists());
        let (code, message) = root.fail(&["rm", "web"]);
        assert_eq!(code, 5, "{message}");

        rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty()).unwrap();
        let output = root.command(&["mount"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "nothing is mounted");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("layerstack: mended: ") && said.contains(target), "{said}");
        let (code, message) = root.fail(&["umount", "web"]);
        assert_eq!(code, 3, "{message}");
        assert_eq!(root.line(&["mount", "web", target]), target);
        assert_eq!(root.run(&["rm", "--force", "web"]), "web\n");
        assert!(!Path::new(target).join("etc").exists());
        root.assert_clean();
    });
}

#[test]
fn a_mount_in_use_stays_until_it_is_not() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(100).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        root.run(&["create", "demo:1", "-n", "web"]);
        let mounted = root.line(&["mount", "web"]);
        let open = fs::File::open(Path::new(&mounted).join("etc/motd")).unwrap();
        let (code, message) = root.fail(&["umount", "web"]);
        assert_eq!(code, 5, "{message}");
        assert!(message.contains("a process has files open in it"), "{message}");
        drop(open);
        assert_eq!(root.run(&["umount", "web"]), "web\n");
    });
}

#[test]
fn names_that_are_not_utf_8_are_told_byte_by_byte() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(100).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        root.run(&["create", "demo:1", "-n", "web"]);
        let mounted = root.line(&["mount", "web"]);
        let name = std::ffi::OsStr::from_bytes(b"a\xff\nb");
        fs::write(Path::new(&mounted).join(name), "").unwrap();
        let output = root.command(&["diff", "web"]).output().unwrap();
        assert_eq!(output.stdout, b"A /a\xff\nb\n");
        let changes = root.json(&["diff", "web"]);
        assert_eq!(changes, json!([{"kind": "A", "path": "/a\u{fffd}\nb", "path_hex": "2f61ff0a62"}]));
        let tar = root.command(&["diff", "--tar", "web"]).output().unwrap().stdout;
        assert!(tar.windows(4).any(|bytes| bytes == b"a\xff\nb"));
    });
}
