//! What is no image, or a damaged one, is refused with the reason and leaves nothing.

use std::collections::BTreeMap;

use layerstack::ErrorKind;
use layerstack_store::{Digest, LoadRequest, LoadSource, Silent};
use serde_json::{Value, json};

use crate::fixture::{DRIVERS, Packing, Picture, Scene, Tar, blob, docker, layout, to_directory, to_tar};

type Files = BTreeMap<String, Vec<u8>>;

/// Loads the files as a directory; asserts that nothing of it stays, and that the message has all of `words`.
fn refuse(scene: &Scene, files: &Files, kind: ErrorKind, words: &[&str]) {
    let path = tempfile::tempdir_in(scene.scratch.path()).unwrap();
    to_directory(files, path.path());
    let error = scene.load(path.path()).unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    assert_eq!(scene.store.images().unwrap().len(), 0, "{text}");
    assert_eq!(scene.store.layers().list().unwrap(), [], "{text}");
    scene.assert_clean();
}

/// The layout of a picture whose manifest was changed, all digests above it made right again.
fn with_manifest(picture: &Picture, change: impl FnOnce(&mut Value)) -> Files {
    let mut files = layout(std::slice::from_ref(picture));
    let mut manifest: Value = serde_json::from_slice(&picture.manifest()).unwrap();
    change(&mut manifest);
    let bytes = manifest.to_string().into_bytes();
    let mut index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    index["manifests"][0]["digest"] = Digest::of(&bytes).as_str().into();
    index["manifests"][0]["size"] = bytes.len().into();
    if let Some(media_type) = manifest.get("mediaType") {
        index["manifests"][0]["mediaType"] = media_type.clone();
    }
    files.insert(blob(&Digest::of(&bytes)), bytes);
    files.insert("index.json".into(), index.to_string().into_bytes());
    files
}

#[test]
fn damaged_layers() {
    for driver in DRIVERS {
        let scene = Scene::new(driver);
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let picture = Picture::new("a:1", packing);
            // The last layer, so that good ones come before it.
            let packed = packing.pack(&picture.layers[2].0);
            let name = blob(&Digest::of(&packed));
            let good = layout(std::slice::from_ref(&picture));
            for at in [packed.len() / 2, packed.len() - 2] {
                let mut files = good.clone();
                files.get_mut(&name).unwrap()[at] ^= 1;
                refuse(&scene, &files, ErrorKind::InvalidInput, &[&name]);
            }
            let mut files = good.clone();
            files.get_mut(&name).unwrap().truncate(packed.len() / 2);
            refuse(&scene, &files, ErrorKind::InvalidInput, &[&name, "descriptor"]);
            let mut files = good;
            files.remove(&name);
            refuse(&scene, &files, ErrorKind::NotFound, &[&name]);
        }
    }
}

#[test]
fn a_wrong_diff_id() {
    for driver in DRIVERS {
        let scene = Scene::new(driver);
        let picture = Picture::new("a:1", Packing::Gzip);
        // The blob is what its descriptor says, but not the layer that the config means.
        let other = Packing::Gzip.pack(&Tar::new().file("other", b"x").finish());
        let files = with_manifest(&picture, |manifest| {
            manifest["layers"][1]["digest"] = Digest::of(&other).as_str().into();
            manifest["layers"][1]["size"] = other.len().into();
        });
        let mut files = files;
        files.insert(blob(&Digest::of(&other)), other.clone());
        let name = blob(&Digest::of(&other));
        refuse(&scene, &files, ErrorKind::InvalidInput, &[&name, "diff id", picture.diff_ids()[1].as_str()]);

        let mut files = docker(&[picture]);
        let layer = files.keys().find(|name| name.ends_with("layer.tar")).unwrap().clone();
        files.insert(layer.clone(), Tar::new().file("other", b"x").finish());
        refuse(&scene, &files, ErrorKind::InvalidInput, &[&layer, "diff id"]);
    }
}

#[test]
fn damaged_documents() {
    let scene = Scene::new("vfs");
    let picture = Picture::new("a:1", Packing::Plain);
    for document in [picture.config(), picture.manifest()] {
        let name = blob(&Digest::of(&document));
        let mut files = layout(std::slice::from_ref(&picture));
        files.get_mut(&name).unwrap()[10] ^= 1;
        refuse(&scene, &files, ErrorKind::InvalidInput, &[&name, "digest"]);
    }
    let mut files = layout(std::slice::from_ref(&picture));
    files.insert("index.json".into(), b"{".to_vec());
    refuse(&scene, &files, ErrorKind::InvalidInput, &["index.json"]);
    let mut files = docker(std::slice::from_ref(&picture));
    let config = format!("{}.json", picture.id().hex());
    files.get_mut(&config).unwrap()[10] ^= 1;
    refuse(&scene, &files, ErrorKind::InvalidInput, &[&config, "digest"]);
    files.remove(&config);
    refuse(&scene, &files, ErrorKind::NotFound, &[&config]);
}

#[test]
fn what_images_may_hold_but_is_not_read_here() {
    let scene = Scene::new("vfs");
    let picture = Picture::new("a:1", Packing::Gzip);
    let layer_type = |media_type: &'static str| {
        with_manifest(&picture, |manifest| manifest["layers"][1]["mediaType"] = media_type.into())
    };
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    refuse(&scene, &layer_type(encrypted), ErrorKind::Unsupported, &["encrypted"]);
    refuse(&scene, &layer_type("text/plain"), ErrorKind::InvalidInput, &["text/plain"]);

    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut files = with_manifest(&picture, |manifest| {
        manifest["layers"][1]["mediaType"] = foreign.into();
        manifest["layers"][1]["urls"] = json!(["https://example.org/layer"]);
    });
    files.remove(&blob(&Digest::of(&Packing::Gzip.pack(&picture.layers[1].0))));
    refuse(&scene, &files, ErrorKind::Unsupported, &["https://example.org/layer"]);

    let artifact = with_manifest(&picture, |manifest| {
        manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    });
    refuse(&scene, &artifact, ErrorKind::InvalidInput, &["helm"]);
    let schema1 = with_manifest(&picture, |manifest| {
        manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v1+prettyjws".into();
    });
    refuse(&scene, &schema1, ErrorKind::Unsupported, &["schema 1"]);
    let fewer = with_manifest(&picture, |manifest| {
        manifest["layers"].as_array_mut().unwrap().pop();
    });
    refuse(&scene, &fewer, ErrorKind::InvalidInput, &["3 layers, the manifest 2"]);

    let sha512 = with_manifest(&picture, |manifest| {
        manifest["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into();
    });
    refuse(&scene, &sha512, ErrorKind::Unsupported, &["sha512"]);
    let outside = with_manifest(&picture, |manifest| {
        manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into();
    });
    refuse(&scene, &outside, ErrorKind::InvalidInput, &["digest"]);
}

#[test]
fn what_is_no_image() {
    let scene = Scene::new("vfs");
    refuse(&scene, &Files::from([("etc/passwd".into(), vec![])]), ErrorKind::InvalidInput, &["not an image"]);
    let old = Files::from([("repositories".into(), b"{}".to_vec())]);
    refuse(&scene, &old, ErrorKind::Unsupported, &["manifest.json"]);

    let whole = to_tar(&layout(&[Picture::new("a:1", Packing::Gzip)]));
    for (bytes, kind) in [
        (b"no archive at all".to_vec(), ErrorKind::InvalidInput),
        (whole[..whole.len() / 2].to_vec(), ErrorKind::InvalidInput),
        (Packing::Gzip.pack(&whole[..whole.len() / 2]), ErrorKind::InvalidInput),
        (Packing::Gzip.pack(&whole)[..whole.len() / 2].to_vec(), ErrorKind::InvalidInput),
        (Packing::Zstd.pack(&whole)[..whole.len() / 2].to_vec(), ErrorKind::InvalidInput),
        (Tar::new().directory("etc").finish(), ErrorKind::InvalidInput),
    ] {
        let path = scene.path("file");
        std::fs::write(&path, &bytes).unwrap();
        let error = scene.load(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.path().is_some(), "{error:?}");
        let mut stream = &bytes[..];
        let request = LoadRequest::default();
        let error = scene.store.load(LoadSource::Stream(&mut stream), &request, &Silent).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        scene.assert_clean();
    }
    let error = scene.load(&scene.path("absent")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// A link in a layout must not make the store read what is outside of it.
#[test]
fn a_layout_does_not_lead_out_of_itself() {
    let scene = Scene::new("vfs");
    let picture = Picture::new("a:1", Packing::Plain);
    let layer = blob(&picture.diff_ids()[0]);
    let mut files = layout(&[picture]);
    let outside = scene.path("outside");
    std::fs::write(&outside, files.remove(&layer).unwrap()).unwrap();
    let path = scene.path("layout");
    to_directory(&files, &path);
    std::os::unix::fs::symlink(&outside, path.join(&layer)).unwrap();
    assert_eq!(scene.load(&path).unwrap_err().kind(), ErrorKind::NotFound);
    scene.assert_clean();
}
