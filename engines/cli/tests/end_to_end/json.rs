//! The JSON output is what `README.md` says.

use serde_json::Value;

use crate::archive::Image;
use crate::root::on_each_driver;

/// The keys of an object, or of an array's first element, in order.
fn keys(value: &Value) -> String {
    let object = value.as_array().map_or(value, |array| &array[0]);
    object.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_prints_the_documented_keys() {
    let readme = include_str!("../../README.md");
    on_each_driver(|root| {
        let assert_documented = |command: &str, value: &Value| {
            let keys = keys(value);
            let row = format!("| `{command}` |");
            let line =
                readme.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no {row}"));
            let documented: Vec<_> = line.split('`').skip(3).step_by(2).collect();
            let mut sorted = documented.clone();
            sorted.sort_unstable();
            let mut found: Vec<_> = keys.split(' ').collect();
            found.sort_unstable();
            assert_eq!(found, sorted, "{command}");
        };
        let archive = root.write("image.tar", &Image::new(1000).docker_archive("demo:1"));
        assert_documented("load", &root.json(&["load", archive.to_str().unwrap()]));
        assert_documented("info", &root.json(&["info"]));
        let drivers = root.json(&["drivers"]);
        let works = |driver: &&Value| driver["available"] == "yes";
        assert_documented("drivers", drivers.as_array().unwrap().iter().find(works).unwrap());
        assert_documented("images", &root.json(&["images"]));
        assert_documented("tag", &root.json(&["tag", "demo:1", "demo:2"]));
        assert_documented("history", &root.json(&["history", "demo:1"]));
        assert_documented("create", &root.json(&["create", "demo:1", "-n", "web"]));
        assert_documented("ps", &root.json(&["ps"]));
        let mounted = root.json(&["mount", "web"]);
        assert_documented("mount", &mounted);
        std::fs::write(format!("{}/new", mounted["path"].as_str().unwrap()), "").unwrap();
        assert_documented("inspect CONTAINER", &root.json(&["inspect", "web"]));
        assert_documented("inspect IMAGE", &root.json(&["inspect", "demo:1"]));
        let layer = root.json(&["tree"])[0]["id"].as_str().unwrap().to_owned();
        assert_documented("inspect LAYER", &root.json(&["inspect", &layer]));
        assert_eq!(root.json(&["umount", "web"]), serde_json::json!(["web"]));
        assert_documented("diff", &root.json(&["diff", "web"]));
        assert_documented("commit", &root.json(&["commit", "web", "new:1"]));
        let out = root.file("out.tar");
        assert_documented("save", &root.json(&["save", "-o", out.to_str().unwrap(), "demo:1"]));
        assert_documented("tree", &root.json(&["tree"]));
        assert_documented("df", &root.json(&["df"]));
        assert_eq!(root.json(&["check"]), serde_json::json!([]));
        assert_eq!(root.json(&["rm", "web"]).as_array().unwrap().len(), 1);
        assert_documented("rmi", &root.json(&["rmi", "new:1"]));
        assert_documented("prune", &root.json(&["prune", "--force"]));
    });
}
