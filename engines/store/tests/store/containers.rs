//! The life of a container, from an image and back to one.

use std::fs;

use layerstack::ErrorKind;
use layerstack_store::{
    CommitRequest, CreateContainer, LayerKind, LayerNode, LoadSource, PruneRequest, RemoveContainer,
    RemoveImage, SaveRequest, SaveTarget, Silent,
};

use crate::fixture::{DRIVERS, Packing, Picture, Scene, layout, to_directory};

fn scene(driver: &'static str, pictures: &[Picture]) -> Scene {
    let scene = Scene::new(driver);
    to_directory(&layout(pictures), &scene.path("layout"));
    scene.load(&scene.path("layout")).unwrap();
    scene
}

fn create(scene: &Scene, name: &str) {
    let mut request = CreateContainer::default();
    request.name = Some(name.into());
    scene.store.create_container("pic:1", &request).unwrap();
}

#[test]
fn a_container_is_made_changed_committed_and_removed() {
    for driver in DRIVERS {
        let scene = scene(driver, &[Picture::new("pic:1", Packing::Gzip)]);
        let store = &scene.store;
        let before = store.image("pic:1").unwrap();
        create(&scene, "one");
        create(&scene, "two");
        let mut taken = CreateContainer::default();
        taken.name = Some("one".into());
        assert_eq!(store.create_container("pic:1", &taken).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(store.layers().list().unwrap().len(), 5, "three of the image, one a container");

        let target = store.mount("one", None).unwrap();
        assert_eq!(fs::read(target.join("etc/motd")).unwrap(), b"changed\n");
        fs::write(target.join("etc/motd"), "mine\n").unwrap();
        fs::write(target.join("added"), "new").unwrap();
        fs::remove_file(target.join("var/cache/fresh")).unwrap();
        // The mount outlives the store that made it.
        let again = scene.again();
        assert_eq!(again.container("one").unwrap().mounts, std::slice::from_ref(&target));
        assert_eq!(again.mount("one", None).unwrap(), target);
        let changes: Vec<String> = again.diff("one").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            ["A /added", "C /etc", "C /etc/motd", "C /var", "C /var/cache", "D /var/cache/fresh"],
            "{driver}"
        );
        assert!(store.diff("two").unwrap().is_empty());

        let mut request = CommitRequest::default();
        request.name = Some("next:2".into());
        request.message = Some("changed".into());
        request.changes = vec!["CMD [\"run\"]".into(), "ENV A=1".into()];
        let image = store.commit("one", &request, &Silent).unwrap();
        assert_eq!(image.names, ["next:2"]);
        assert_eq!(image.layers.len(), 4);
        assert_eq!(image.layers[2].chain_id, before.layers[2].chain_id);
        let config = store.image_config("next:2").unwrap();
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["run"]));
        assert_eq!(config["config"]["Env"], serde_json::json!(["PATH=/bin", "A=1"]));
        let history = store.history("next:2").unwrap();
        assert_eq!(history.len(), 5);
        assert_eq!(history[0].comment.as_deref(), Some("changed"));
        assert_eq!(history[0].layer.as_ref(), Some(&image.layers[3].chain_id));
        assert!(history[4].empty_layer);
        scene.assert_clean();

        // Another store, on the other driver, makes the same of it.
        let file = scene.path("next.tar");
        store.save(&["next:2"], &SaveRequest::default(), SaveTarget::File(&file), &Silent).unwrap();
        let other = Scene::new(if driver == "vfs" { "overlay2" } else { "vfs" });
        let loaded = other.load(&file).unwrap();
        assert_eq!(loaded[0].image, image.id);
        let made = other.store.create_container("next:2", &CreateContainer::default()).unwrap();
        let there = other.store.mount(made.id.as_str(), None).unwrap();
        assert_eq!(fs::read(there.join("etc/motd")).unwrap(), b"mine\n");
        assert!(!there.join("var/cache/fresh").exists());
        other.store.umount(made.id.as_str()).unwrap();
        assert_eq!(other.store.umount(made.id.as_str()).unwrap_err().kind(), ErrorKind::NotFound);

        let error = store.remove_container("one", &RemoveContainer::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("mounted"), "{error}");
        let mut force = RemoveContainer::default();
        force.force = true;
        store.remove_container("one", &force).unwrap();
        store.remove_container("two", &force).unwrap();
        assert_eq!(store.containers().unwrap().len(), 0);
        let after = store.image("pic:1").unwrap();
        assert_eq!(after.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>().len(), 3);
        // A deep check compares every digest: the image is unchanged.
        scene.assert_clean();
    }
}

#[test]
fn an_image_goes_with_its_last_name_and_not_under_a_container() {
    for driver in DRIVERS {
        let pictures = [Picture::new("pic:1", Packing::Gzip), Picture::sibling("other:1", Packing::Plain)];
        let scene = scene(driver, &pictures);
        let store = &scene.store;
        create(&scene, "c");
        let error = store.remove_image("pic:1", &RemoveImage::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("containers c"), "{error}");
        store.remove_container("c", &RemoveContainer::default()).unwrap();

        store.tag("pic:1", "again").unwrap();
        let id = store.image("pic:1").unwrap().id;
        let error = store.remove_image(id.short(), &RemoveImage::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        let removed = store.remove_image("again", &RemoveImage::default()).unwrap();
        assert_eq!((removed.untagged, removed.deleted), (vec!["again:latest".to_owned()], None));
        let removed = store.remove_image("pic:1", &RemoveImage::default()).unwrap();
        assert_eq!(removed.deleted, Some(id));
        assert_eq!(removed.layers.len(), 1, "the other image has the lower two");
        scene.assert_clean();
        store.remove_image("other:1", &RemoveImage::default()).unwrap();
        assert_eq!(store.layers().list().unwrap(), []);
        for kept in ["store/blobs/sha256", "store/tars"] {
            assert_eq!(fs::read_dir(scene.root().join(kept)).unwrap().count(), 0, "{kept}");
        }
        scene.assert_clean();
    }
}

/// The plain tar of a layer can be had from a blob of another image: it must stay for as long as that is so.
#[test]
fn a_blob_stays_while_its_tar_is_needed() {
    let pictures = [Picture::new("gz:1", Packing::Gzip)];
    let scene = scene("overlay2", &pictures);
    let mut plain = Picture::sibling("plain:1", Packing::Plain);
    plain.marker = 7;
    to_directory(&layout(&[plain]), &scene.path("plain"));
    assert_eq!(scene.load(&scene.path("plain")).unwrap()[0].layers_shared, 2);
    scene.store.remove_image("gz:1", &RemoveImage::default()).unwrap();
    scene.assert_clean();
    let mut out = Vec::new();
    scene.store.save(&["plain:1"], &SaveRequest::default(), SaveTarget::Stream(&mut out), &Silent).unwrap();
    scene.store.remove_image("plain:1", &RemoveImage::default()).unwrap();
    assert_eq!(fs::read_dir(scene.root().join("store/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn the_tree_and_the_disk_usage_tell_who_uses_what() {
    for driver in DRIVERS {
        let pictures = [Picture::new("pic:1", Packing::Gzip), Picture::sibling("other:1", Packing::Gzip)];
        let scene = scene(driver, &pictures);
        create(&scene, "c");
        let tree = scene.store.tree().unwrap();
        assert_eq!(tree.len(), 1);
        let second: &LayerNode = &tree[0].children[0];
        assert_eq!(second.children.len(), 2);
        let top = second.children.iter().find(|node| node.images == ["pic:1"]).unwrap();
        assert_eq!(top.kind, LayerKind::Image);
        assert_eq!(top.children[0].kind, LayerKind::Container);
        assert_eq!(top.children[0].containers, ["c"]);

        let usage = scene.store.disk_usage().unwrap();
        let of = |name: &str| usage.images.iter().find(|image| image.names == [name]).unwrap();
        assert_eq!(of("pic:1").containers, 1);
        assert_eq!(of("pic:1").size, of("pic:1").shared + of("pic:1").unique);
        assert_eq!(of("pic:1").shared, of("other:1").shared);
        assert!(of("pic:1").shared >= 370_000);
        assert!(usage.blobs > 0);
        assert_eq!(usage.unreferenced, 0);
        assert!(usage.reclaimable > 0 && usage.reclaimable < usage.layers + usage.blobs);
        assert_eq!(scene.store.info().unwrap().containers, 1);
    }
}

#[test]
fn prune_takes_what_nobody_needs_and_leaves_what_others_made() {
    for driver in DRIVERS {
        let pictures = [Picture::new("pic:1", Packing::Gzip), Picture::sibling("other:1", Packing::Plain)];
        let scene = scene(driver, &pictures);
        let store = &scene.store;
        let strange = layerstack::LayerId::new("strange").unwrap();
        store.layers().create(&strange, None, &layerstack::options::Options::new()).unwrap();
        // The name goes to another image: this one has none then.
        let mut replacing = Picture::sibling("other:1", Packing::Gzip);
        replacing.marker = 9;
        to_directory(&layout(&[replacing]), &scene.path("replacing"));
        scene.load(&scene.path("replacing")).unwrap();
        create(&scene, "c");

        let pruned = store.prune(&PruneRequest::default()).unwrap();
        assert_eq!(pruned.images.len(), 1);
        assert_eq!(pruned.layers.len(), 0, "the image that took the name has the same layers");
        let mut all = PruneRequest::default();
        all.all = true;
        let pruned = store.prune(&all).unwrap();
        assert_eq!(pruned.images.len(), 1);
        assert_eq!(pruned.layers.len(), 1);
        assert!(pruned.reclaimed > 0);
        assert_eq!(store.images().unwrap().len(), 1);
        assert!(store.layers().contains(&strange).unwrap());
        assert!(store.prune(&all).unwrap().images.is_empty());
        scene.assert_clean();
    }
}

#[test]
fn an_image_whose_layer_is_gone_is_broken_and_loading_it_again_mends_it() {
    for driver in DRIVERS {
        let scene = scene(driver, &[Picture::new("pic:1", Packing::Gzip)]);
        let store = &scene.store;
        let image = store.image("pic:1").unwrap();
        store.layers().remove(&image.layers[2].chain_id).unwrap();
        let kept = scene.root().join("store/blobs/sha256");
        for blob in fs::read_dir(&kept).unwrap() {
            fs::remove_file(blob.unwrap().path()).unwrap();
        }
        assert!(store.image("pic:1").unwrap().broken.unwrap().contains("lacks 1 of its 3 layers"));
        let findings = store.check(&layerstack_store::CheckRequest::default(), &Silent).unwrap();
        assert_eq!(findings.len(), 4, "{findings:?}");
        let error = store.create_container("pic:1", &CreateContainer::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let path = scene.path("layout");
        let request = layerstack_store::LoadRequest::default();
        let loaded = store.load(LoadSource::Path(&path), &request, &Silent).unwrap();
        assert_eq!((loaded[0].layers_new, loaded[0].layers_shared), (1, 2));
        scene.assert_clean();
    }
}
