//! Images made by the tests themselves, and stores to load them into.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use layerstack::{Config, Result};
use layerstack_store::{Digest, LoadRequest, LoadSource, Loaded, Silent, Store, StoreConfig};
use serde_json::{Value, json};

/// The drivers that every test runs on.
pub(crate) const DRIVERS: [&str; 2] = ["vfs", "overlay2"];

/// A store in a directory that goes with it, its mounts with it.
pub(crate) struct Scene {
    pub(crate) store: Store,
    pub(crate) scratch: tempfile::TempDir,
    driver: &'static str,
}

impl Scene {
    pub(crate) fn new(driver: &'static str) -> Self {
        let scratch = tempfile::Builder::new().prefix("layerstack-store-").tempdir().unwrap();
        let store = open(&scratch.path().join("root"), driver).unwrap();
        Self { store, scratch, driver }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// The same root, opened once more.
    pub(crate) fn again(&self) -> Store {
        open(&self.root(), self.driver).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn load(&self, path: &Path) -> Result<Vec<Loaded>> {
        self.store.load(LoadSource::Path(path), &LoadRequest::default(), &Silent)
    }

    /// Asserts that a deep check finds nothing.
    pub(crate) fn assert_clean(&self) {
        assert_clean(&self.store);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for mount in self.store.layers().mounts(None).unwrap_or_default() {
            let _ = self.store.layers().unmount(&mount.layer, Some(&mount.target));
        }
    }
}

pub(crate) fn open(root: &Path, driver: &str) -> Result<Store> {
    Store::open(root, &StoreConfig::new(Config::new().with_driver(driver)))
}

pub(crate) fn assert_clean(store: &Store) {
    let mut request = layerstack_store::CheckRequest::default();
    request.deep = true;
    assert_eq!(store.check(&request, &Silent).unwrap(), []);
    let temporary: Vec<_> = fs::read_dir(store.root().join("store/tmp")).unwrap().collect();
    assert!(temporary.is_empty(), "{temporary:?}");
}

/// How a layer is compressed in an archive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub(crate) fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            // Two members, as pigz and pgzip write.
            Self::Gzip => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                [first, second]
                    .map(|half| {
                        let mut encoder =
                            flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                        encoder.write_all(half).unwrap();
                        encoder.finish().unwrap()
                    })
                    .concat()
            }
            Self::Zstd => {
                let (first, second) = bytes.split_at(bytes.len() / 2);
                [first, second].map(|half| zstd::encode_all(half, 1).unwrap()).concat()
            }
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Puts a layer tar together.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, 0o755, b"")
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, 0o644, content)
    }

    pub(crate) fn whiteout(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Regular, 0o644, b"")
    }

    pub(crate) fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An image to be written in some form.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) name: Option<String>,
    pub(crate) architecture: &'static str,
    pub(crate) layers: Vec<(Vec<u8>, Packing)>,
    pub(crate) marker: u32,
}

impl Picture {
    /// Three layers: a base, one that changes it, and one with whiteouts and an opaque directory.
    pub(crate) fn new(name: &str, packing: Packing) -> Self {
        let noise: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let base = Tar::new()
            .directory("etc")
            .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
            .file("etc/motd", b"hello\n")
            .directory("usr")
            .directory("usr/lib")
            .file("usr/lib/noise", &noise)
            .symlink("lib", "usr/lib")
            .directory("var")
            .directory("var/cache")
            .file("var/cache/old", b"old")
            .finish();
        let second = Tar::new().file("etc/motd", b"changed\n").file("usr/lib/new", &noise[..70_000]).finish();
        let third = Tar::new()
            .whiteout("etc/.wh.passwd")
            .directory("var/cache")
            .whiteout("var/cache/.wh..wh..opq")
            .file("var/cache/fresh", b"fresh")
            .finish();
        Self {
            name: Some(name.to_owned()),
            architecture: host(),
            layers: [base, second, third].map(|tar| (tar, packing)).into(),
            marker: 0,
        }
    }

    /// The same base, another top.
    pub(crate) fn sibling(name: &str, packing: Packing) -> Self {
        let mut picture = Self::new(name, packing);
        picture.layers.truncate(2);
        picture.layers.push((Tar::new().file("sibling", b"me").finish(), packing));
        picture
    }

    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|(tar, _)| Digest::of(tar)).collect()
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.diff_ids().iter().map(ToString::to_string).collect();
        let mut history =
            vec![json!({"created": "2024-01-02T03:04:05.5Z", "created_by": "nothing", "empty_layer": true})];
        history.extend(diff_ids.iter().enumerate().map(
            |(step, _)| json!({"created": "2024-01-02T03:04:06Z", "created_by": format!("step {step}")}),
        ));
        // With blanks and an unknown key: nothing that would survive being written anew.
        serde_json::to_string_pretty(&json!({
            "created": "2024-01-02T03:04:07Z", "architecture": self.architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}, "x-marker": self.marker,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        }))
        .unwrap()
        .into_bytes()
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config())
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(tar, packing)| {
                let blob = packing.pack(tar);
                json!({"mediaType": packing.media_type(), "digest": Digest::of(&blob), "size": blob.len()})
            })
            .collect();
        let config = self.config();
        serde_json::to_string_pretty(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config), "size": config.len(),
            },
            "layers": layers, "annotations": {"kept": "as it is"},
        }))
        .unwrap()
        .into_bytes()
    }

    /// The files of a layout with this image, without its index.
    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = vec![self.config(), self.manifest()];
        files.extend(self.layers.iter().map(|(tar, packing)| packing.pack(tar)));
        files.into_iter().map(|bytes| (blob(&Digest::of(&bytes)), bytes)).collect()
    }

    pub(crate) fn descriptor(&self) -> Value {
        let manifest = self.manifest();
        let mut descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest), "size": manifest.len(),
            "platform": {"os": "linux", "architecture": self.architecture},
        });
        if let Some(name) = &self.name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        descriptor
    }
}

pub(crate) fn host() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

pub(crate) fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The files of an OCI layout.
pub(crate) fn layout(pictures: &[Picture]) -> BTreeMap<String, Vec<u8>> {
    let descriptors: Vec<Value> = pictures.iter().map(Picture::descriptor).collect();
    let mut files: BTreeMap<String, Vec<u8>> = pictures.iter().flat_map(Picture::blobs).collect();
    let index = json!({"schemaVersion": 2, "manifests": descriptors});
    files.insert("index.json".into(), index.to_string().into_bytes());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec());
    files
}

/// The files of a docker archive.
pub(crate) fn docker(pictures: &[Picture]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut entries = Vec::new();
    for picture in pictures {
        let config = format!("{}.json", picture.id().hex());
        files.insert(config.clone(), picture.config());
        let mut layers = Vec::new();
        for (tar, packing) in &picture.layers {
            let name = format!("{}/layer.tar", Digest::of(tar).hex());
            files.insert(name.clone(), packing.pack(tar));
            layers.push(name);
        }
        entries.push(
            json!({"Config": config, "RepoTags": picture.name.iter().collect::<Vec<_>>(), "Layers": layers}),
        );
    }
    files.insert("manifest.json".into(), Value::from(entries).to_string().into_bytes());
    files
}

/// Writes files into a directory.
pub(crate) fn to_directory(files: &BTreeMap<String, Vec<u8>>, path: &Path) {
    for (name, bytes) in files {
        let path = path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The files as a tar archive.
pub(crate) fn to_tar(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    files.iter().fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes)).finish()
}

/// All regular files of a tar archive.
pub(crate) fn from_tar(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        files.insert(name, content);
    }
    files
}
