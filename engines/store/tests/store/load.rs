//! Loading in every form, and saving back bit for bit.

use std::collections::BTreeMap;

use crate::fixture::{
    DRIVERS, Packing, Picture, Scene, Tar, blob, docker, from_tar, layout, to_directory, to_tar,
};
use layerstack_store::{Digest, LoadRequest, LoadSource, SaveFormat, SaveRequest, SaveTarget, Silent, Store};

const PACKINGS: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

fn save(store: &Store, format: SaveFormat, references: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut request = SaveRequest::default();
    request.format = format;
    let mut bytes = Vec::new();
    store.save(references, &request, SaveTarget::Stream(&mut bytes), &Silent).unwrap();
    from_tar(&bytes)
}

/// What the topmost layer shows.
fn assert_content(scene: &Scene, reference: &str) {
    let image = scene.store.image(reference).unwrap();
    assert_eq!(image.broken, None);
    let top = &image.layers.last().unwrap().chain_id;
    let tree = scene.store.layers().tree(top).unwrap();
    let read = |path: &str| {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut tree.open_file(path.as_ref()).unwrap(), &mut text).unwrap();
        text
    };
    assert_eq!(read("etc/motd"), b"changed\n");
    assert_eq!(read("usr/lib/noise").len(), 300_000);
    assert_eq!(read("var/cache/fresh"), b"fresh");
    assert!(tree.metadata("etc/passwd".as_ref()).unwrap().is_none());
    assert!(tree.metadata("var/cache/old".as_ref()).unwrap().is_none());
}

#[test]
fn a_layout_saves_back_with_every_blob_bit_for_bit() {
    for driver in DRIVERS {
        for packing in PACKINGS {
            let scene = Scene::new(driver);
            let picture = Picture::new("local/pic:1", packing);
            let files = layout(std::slice::from_ref(&picture));
            to_directory(&files, &scene.path("layout"));
            let loaded = scene.load(&scene.path("layout")).unwrap();
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].image, picture.id());
            assert_eq!(loaded[0].manifest, Digest::of(&picture.manifest()));
            assert_eq!(loaded[0].names, ["local/pic:1"]);
            assert_eq!((loaded[0].layers_new, loaded[0].layers_shared, loaded[0].already), (3, 0, false));
            assert_content(&scene, "local/pic:1");

            let saved = save(&scene.store, SaveFormat::Oci, &["local/pic:1"]);
            for (name, bytes) in picture.blobs() {
                assert_eq!(saved.get(&name), Some(&bytes), "{driver} {packing:?} {name}");
            }
            let docker = save(&scene.store, SaveFormat::Docker, &["local/pic:1"]);
            assert_eq!(docker[&format!("{}.json", picture.id().hex())], picture.config());
            for (tar, _) in &picture.layers {
                assert_eq!(&docker[&format!("{}.tar", Digest::of(tar).hex())], tar);
            }
            scene.assert_clean();
        }
    }
}

#[test]
fn a_docker_archive_saves_back_and_becomes_a_layout() {
    for driver in DRIVERS {
        for packing in PACKINGS {
            let scene = Scene::new(driver);
            let picture = Picture::new("docker.io/library/pic:1", packing);
            std::fs::write(scene.path("a.tar"), to_tar(&docker(std::slice::from_ref(&picture)))).unwrap();
            let loaded = scene.load(&scene.path("a.tar")).unwrap();
            assert_eq!(loaded[0].image, picture.id());
            assert_eq!(loaded[0].names, ["pic:1"]);
            assert_content(&scene, "pic:1");
            let again = save(&scene.store, SaveFormat::Docker, &["pic:1"]);
            for (tar, _) in &picture.layers {
                assert_eq!(&again[&format!("{}.tar", Digest::of(tar).hex())], tar);
            }
            let layout = save(&scene.store, SaveFormat::Oci, &["pic:1"]);
            assert_eq!(layout[&blob(&picture.id())], picture.config());
            let other = Scene::new(driver);
            to_directory(&layout, &other.path("layout"));
            assert_eq!(other.load(&other.path("layout")).unwrap()[0].image, picture.id());
            scene.assert_clean();
            other.assert_clean();
        }
    }
}

#[test]
fn every_way_in_gives_the_same_image() {
    let picture = Picture::new("local/pic:1", Packing::Gzip);
    for files in [layout(std::slice::from_ref(&picture)), docker(std::slice::from_ref(&picture))] {
        let tar = to_tar(&files);
        for whole in PACKINGS {
            let scene = Scene::new("overlay2");
            let packed = whole.pack(&tar);
            std::fs::write(scene.path("archive"), &packed).unwrap();
            assert_eq!(scene.load(&scene.path("archive")).unwrap()[0].image, picture.id());
            scene.assert_clean();

            let scene = Scene::new("overlay2");
            let mut stream = &packed[..];
            let request = LoadRequest::default();
            let loaded = scene.store.load(LoadSource::Stream(&mut stream), &request, &Silent).unwrap();
            assert_eq!(loaded[0].image, picture.id());
            assert_content(&scene, "local/pic:1");
            scene.assert_clean();
        }
    }
}

#[test]
fn loading_twice_does_nothing_and_shared_layers_are_kept_once() {
    for driver in DRIVERS {
        let scene = Scene::new(driver);
        let (one, two) =
            (Picture::new("one:latest", Packing::Gzip), Picture::sibling("two:latest", Packing::Gzip));
        to_directory(&layout(&[one.clone(), two.clone()]), &scene.path("both"));
        let loaded = scene.load(&scene.path("both")).unwrap();
        assert_eq!((loaded[0].layers_new, loaded[0].layers_shared), (3, 0));
        assert_eq!((loaded[1].layers_new, loaded[1].layers_shared), (1, 2));
        assert_eq!(scene.store.layers().list().unwrap().len(), 4);
        let again = scene.load(&scene.path("both")).unwrap();
        assert!(again.iter().all(|loaded| loaded.already && loaded.layers_new == 0));

        // The same layers in another packing: nothing is unpacked, but what saves them back is kept.
        let plain = Picture::new("plain:latest", Packing::Plain);
        assert_eq!(plain.id(), one.id());
        to_directory(&layout(std::slice::from_ref(&plain)), &scene.path("plain"));
        let loaded = scene.load(&scene.path("plain")).unwrap();
        assert_eq!((loaded[0].layers_new, loaded[0].already), (0, false));
        let saved = save(&scene.store, SaveFormat::Oci, &["plain"]);
        assert!(plain.blobs().iter().all(|(name, bytes)| saved.get(name) == Some(bytes)));
        let saved = save(&scene.store, SaveFormat::Oci, &["one"]);
        assert!(one.blobs().iter().all(|(name, bytes)| saved.get(name) == Some(bytes)));
        let image = scene.store.image("one").unwrap();
        assert_eq!(image.manifests.len(), 2);
        assert_eq!(image.names, ["one:latest", "plain:latest"]);
        scene.assert_clean();
    }
}

/// Where the layer does not hold all that its tar had, the tar is kept as a whole.
#[test]
fn a_tar_that_overwrites_itself_saves_back_too() {
    for driver in DRIVERS {
        let scene = Scene::new(driver);
        let mut picture = Picture::new("twice:latest", Packing::Plain);
        let tar = Tar::new()
            .file("f", &[1; 5000])
            .file("f", &[2; 5000])
            .file("g", &[3; 700])
            .whiteout(".wh.g")
            .file("h", &[4; 600])
            .directory("h")
            .finish();
        picture.layers = vec![(tar, Packing::Plain)];
        std::fs::write(scene.path("a.tar"), to_tar(&layout(std::slice::from_ref(&picture)))).unwrap();
        scene.load(&scene.path("a.tar")).unwrap();
        let saved = save(&scene.store, SaveFormat::Oci, &["twice"]);
        assert!(picture.blobs().iter().all(|(name, bytes)| saved.get(name) == Some(bytes)));
        scene.assert_clean();
    }
}

#[test]
fn an_index_is_chosen_from_by_platform() {
    let foreign = |name: &str, architecture| {
        let mut picture = Picture::new(name, Packing::Gzip);
        picture.architecture = architecture;
        picture
    };
    let (host, other) = (Picture::new("multi:1", Packing::Gzip), foreign("multi:1", "riscv64"));
    let scene = Scene::new("vfs");
    to_directory(&layout(&[other.clone(), host.clone()]), &scene.path("multi"));
    assert_eq!(scene.load(&scene.path("multi")).unwrap()[0].image, host.id());

    let mut request = LoadRequest::default();
    request.platform = Some("linux/riscv64".parse().unwrap());
    let path = scene.path("multi");
    let loaded = scene.store.load(LoadSource::Path(&path), &request, &Silent).unwrap();
    assert_eq!(loaded[0].image, other.id());
    assert_eq!(
        scene.store.image("multi:1").unwrap().id,
        other.id(),
        "the name went to the image loaded last"
    );

    request.platform = Some("linux/s390x".parse().unwrap());
    let error = scene.store.load(LoadSource::Path(&path), &request, &Silent).unwrap_err();
    assert!(error.to_string().contains("linux/riscv64"), "{error}");

    // One image alone is taken whatever its platform.
    to_directory(&layout(&[foreign("alone", "s390x")]), &scene.path("alone"));
    assert_eq!(scene.load(&scene.path("alone")).unwrap().len(), 1);

    // An index in the index, with an attestation beside the images.
    let mut files = layout(&[foreign("nested", "riscv64"), Picture::new("nested", Packing::Gzip)]);
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let mut inner = index.clone();
    inner["mediaType"] = "application/vnd.docker.distribution.manifest.list.v2+json".into();
    inner["manifests"].as_array_mut().unwrap().push(serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
        "digest": Digest::of(b"absent"), "platform": {"os": "unknown", "architecture": "unknown"},
    }));
    let inner = inner.to_string().into_bytes();
    let outer = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "digest": Digest::of(&inner), "size": inner.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/nested:7"},
    }]});
    files.insert(blob(&Digest::of(&inner)), inner);
    files.insert("index.json".into(), outer.to_string().into_bytes());
    to_directory(&files, &scene.path("nested"));
    let loaded = scene.load(&scene.path("nested")).unwrap();
    assert_eq!(loaded[0].image, Picture::new("nested", Packing::Gzip).id());
    assert_eq!(loaded[0].names, ["nested:7"]);
}

#[test]
fn names_come_from_the_request_or_the_archive() {
    let scene = Scene::new("vfs");
    let picture = Picture::new("v1", Packing::Plain);
    std::fs::write(scene.path("tool.tar"), to_tar(&layout(std::slice::from_ref(&picture)))).unwrap();
    assert_eq!(scene.load(&scene.path("tool.tar")).unwrap()[0].names, ["tool:v1"], "a tag alone");
    let mut request = LoadRequest::default();
    request.name = Some("mine".into());
    let path = scene.path("tool.tar");
    let loaded = scene.store.load(LoadSource::Path(&path), &request, &Silent).unwrap();
    assert_eq!(loaded[0].names, ["mine:latest"]);
    let id = picture.id();
    for reference in
        ["mine", "tool:v1", id.as_str(), id.hex(), id.short(), &id.hex()[..3], loaded[0].manifest.as_str()]
    {
        assert_eq!(scene.store.image(reference).unwrap().id, id, "{reference}");
    }
    assert!(scene.store.image("tool").is_err());
    assert!(scene.store.image("").is_err());
}

/// `docker save` once wrote a layer that occurs twice as a symbolic link.
#[test]
fn layers_that_are_links_are_followed() {
    let scene = Scene::new("overlay2");
    let mut picture = Picture::new("linked", Packing::Plain);
    let tar = picture.layers[0].0.clone();
    picture.layers = vec![(tar.clone(), Packing::Plain), (tar.clone(), Packing::Plain)];
    let entries = serde_json::json!([{
        "Config": format!("{}.json", picture.id().hex()), "RepoTags": null,
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    let archive = Tar::new()
        .file("one/layer.tar", &tar)
        .symlink("two/layer.tar", "../one/layer.tar")
        .file(&format!("{}.json", picture.id().hex()), &picture.config())
        .file("manifest.json", entries.to_string().as_bytes())
        .finish();
    std::fs::write(scene.path("a.tar"), archive).unwrap();
    let loaded = scene.load(&scene.path("a.tar")).unwrap();
    assert_eq!(loaded[0].names, Vec::<String>::new());
    assert_eq!(scene.store.image(picture.id().short()).unwrap().layers.len(), 2);
    scene.assert_clean();
}

#[test]
fn a_layout_in_a_directory_grows() {
    let scene = Scene::new("vfs");
    let (one, two) =
        (Picture::new("one:latest", Packing::Gzip), Picture::sibling("two:latest", Packing::Gzip));
    to_directory(&layout(&[one.clone(), two.clone()]), &scene.path("both"));
    scene.load(&scene.path("both")).unwrap();
    let target = scene.path("grown");
    for name in ["one", "two", "one"] {
        let request = SaveRequest::default();
        scene.store.save(&[name], &request, SaveTarget::Directory(&target), &Silent).unwrap();
    }
    let other = Scene::new("overlay2");
    let loaded = other.load(&target).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].names, ["two:latest"]);
    assert_eq!(loaded[1].image, one.id());
    let file = scene.path("file.tar");
    scene.store.save(&["one", "two"], &SaveRequest::default(), SaveTarget::File(&file), &Silent).unwrap();
    assert!(other.load(&file).unwrap().iter().all(|loaded| loaded.already));
    let names: Vec<_> =
        std::fs::read_dir(scene.scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{names:?}");
}
