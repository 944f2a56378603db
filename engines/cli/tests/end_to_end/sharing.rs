//! What containers and images share.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::archive::{Image, digests_of_layout};
use crate::root::on_each_driver;

#[test]
fn containers_of_an_image_share_its_layers() {
    on_each_driver(|root| {
        let archive = root.write("image.tar", &Image::new(300_000).docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        let before = root.json(&["df"]);
        root.run(&["create", "demo:1", "-n", "one"]);
        root.run(&["create", "demo:1", "-n", "two"]);
        assert_eq!(root.json(&["df"])["layers"], before["layers"], "no image layer came with the containers");
        assert_eq!(root.json(&["info"])["layers"], json!(4), "two layers, two containers");

        let layers = root.json(&["tree"]);
        assert_eq!(layers[0]["parent"], Value::Null);
        assert_eq!(layers[1]["images"], json!(["demo:1"]));
        for container in [&layers[2], &layers[3]] {
            assert_eq!(container["parent"], layers[1]["id"]);
            assert_eq!(container["kind"], "container");
        }
        let text = root.run(&["tree"]);
        let ends: Vec<_> = text.lines().map(|line| line.split("  ").last().unwrap_or_default()).collect();
        assert!(ends[1].contains("image demo:1"), "{text}");
        assert!(ends[2].contains("container") && ends[3].contains("container"), "{text}");
    });
}

#[test]
fn what_one_container_writes_no_other_sees_and_it_goes_with_the_container() {
    on_each_driver(|root| {
        let image = Image::new(1000);
        let layout = root.file("layout");
        image.write_layout(&layout, "demo:1");
        root.run(&["load", layout.to_str().unwrap(), "--name", "demo:1"]);
        root.run(&["create", "demo:1", "-n", "one"]);
        root.run(&["create", "demo:1", "-n", "two"]);
        let one = root.line(&["mount", "one"]);
        let two = root.line(&["mount", "two"]);
        fs::write(Path::new(&one).join("etc/motd"), "changed").unwrap();
        fs::remove_dir_all(Path::new(&one).join("usr")).unwrap();
        assert_eq!(fs::read_to_string(Path::new(&two).join("etc/motd")).unwrap(), "hello\n");
        assert_eq!(root.run(&["diff", "two"]), "");
        root.run(&["rm", "-f", "one", "two"]);

        let saved = root.file("saved");
        root.run(&["save", "demo:1", "--dir", saved.to_str().unwrap()]);
        assert_eq!(digests_of_layout(&saved), digests_of_layout(&layout), "the image is as it was");
        root.run(&["create", "demo:1", "-n", "three"]);
        let three = root.line(&["mount", "three"]);
        assert_eq!(fs::read_to_string(Path::new(&three).join("etc/motd")).unwrap(), "hello\n");
        assert!(Path::new(&three).join("usr/data").exists());
        root.assert_clean();
    });
}

#[test]
fn images_with_a_layer_in_common_keep_it_once() {
    on_each_driver(|root| {
        let image = Image::new(200_000);
        let short = Image::of_layers(vec![image.layers[0].clone()]);
        let archive = root.write("image.tar", &image.docker_archive("long:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        let archive = root.write("image.tar", &short.docker_archive("short:1"));
        let loaded = root.json(&["load", archive.to_str().unwrap()]);
        assert_eq!((&loaded[0]["layers_new"], &loaded[0]["layers_shared"]), (&json!(0), &json!(1)));
        assert_eq!(root.json(&["info"])["layers"], json!(2));
        root.run(&["rmi", "long:1"]);
        assert_eq!(root.json(&["info"])["layers"], json!(1), "the layer in common stays");
        root.assert_clean();
    });
}

#[test]
fn prune_removes_what_nothing_needs() {
    on_each_driver(|root| {
        let image = Image::new(1000);
        let archive = root.write("image.tar", &image.docker_archive("demo:1"));
        root.run(&["load", archive.to_str().unwrap()]);
        let (code, message) = root.fail(&["prune"]);
        assert_eq!(code, 2, "it cannot ask: {message}");
        assert_eq!(root.json(&["prune", "--force"])["images"], json!([]), "the image has a name");
        root.run(&["create", "demo:1", "-n", "web"]);
        assert_eq!(
            root.json(&["prune", "--force", "--all"])["images"],
            json!([]),
            "a container stands on it"
        );
        root.run(&["rm", "web"]);
        assert_eq!(root.json(&["prune", "--force", "--all"])["images"], json!([image.id()]));
        assert_eq!(root.json(&["info"])["layers"], json!(0));
        root.assert_clean();
    });
}
