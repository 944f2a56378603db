//! Several stores on one root at once.

use layerstack::ErrorKind;
use layerstack_store::{CreateContainer, RemoveContainer, RemoveImage};

use crate::fixture::{DRIVERS, Packing, Picture, Scene, layout, to_directory};

/// Each thread opens the root on its own, as a process would; locks do not tell them apart from processes, since every
/// opened file has its own.
#[test]
fn loading_and_removing_at_once_never_makes_a_broken_image() {
    for driver in DRIVERS {
        let scene = Scene::new(driver);
        let pictures = [Picture::new("pic:1", Packing::Gzip), Picture::sibling("other:1", Packing::Plain)];
        for (index, picture) in pictures.iter().enumerate() {
            to_directory(&layout(std::slice::from_ref(picture)), &scene.path(&format!("layout{index}")));
        }
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let scene = &scene;
                scope.spawn(move || {
                    let store = scene.again();
                    let which = worker % 2;
                    let name = ["pic:1", "other:1"][which];
                    for _ in 0..6 {
                        let path = scene.path(&format!("layout{which}"));
                        let source = layerstack_store::LoadSource::Path(&path);
                        store.load(source, &Default::default(), &layerstack_store::Silent).unwrap();
                        match store.create_container(name, &CreateContainer::default()) {
                            Ok(container) => {
                                store
                                    .remove_container(container.id.as_str(), &RemoveContainer::default())
                                    .unwrap();
                            }
                            // The other thread removed the image.
                            Err(error) => assert!(
                                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt),
                                "{error:?}"
                            ),
                        }
                        match store.remove_image(name, &RemoveImage::default()) {
                            Ok(_) => {}
                            // The other thread removed it, or has a container on it.
                            Err(error) => assert!(
                                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InUse),
                                "{error:?}"
                            ),
                        }
                        for image in store.images().unwrap() {
                            drop(image);
                        }
                    }
                });
            }
        });
        scene.assert_clean();
        for image in scene.store.images().unwrap() {
            scene.store.remove_image(image.id.as_str(), &RemoveImage::default()).unwrap();
        }
        assert_eq!(scene.store.layers().list().unwrap(), []);
        scene.assert_clean();
    }
}
