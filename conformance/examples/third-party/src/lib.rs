//! A storage driver as somebody outside the workspace would write it: every layer is a directory, and starts as a copy
//! of its parent's. It can do nothing else, and says so; core and the suite ask no more of a driver.
//!
//! ```text
//! <home>/<id>          a layer
//! <home>/.new.<id>     one that is being made
//! <home>/.gone.<id>    one that is being removed
//! <home>/.mnt.<id>     where it is mounted
//! ```
//! Names with a dot first are no layer's, so a layer is there whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use layerstack_core::capability::Capabilities;
use layerstack_core::driver::{ApplyTarget, Candidates, CtimeWindow, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::fs::{Reflink, copy_tree, remove_tree, sync_file_system, tree_usage};
use layerstack_core::mount::{Access, MountPlan};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Driver, Error, ErrorKind, LayerId, Result, kill_point};

layerstack_core::register_driver! {
    name: "plain",
    summary: "a directory a layer",
    rank: 1000,
    options: &[],
    layer_options: &[],
    probe: |_| Ok(()),
    open: open,
}

/// The driver, opened on a home.
#[derive(Debug)]
pub struct Plain {
    home: PathBuf,
    capabilities: Capabilities,
}

fn open(request: &OpenRequest<'_>) -> Result<Box<dyn Driver>> {
    // Closed to others: a layer may hold setuid programs.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(request.home)
        .map_err(|error| Error::from_io(error, "make the home").with_path(request.home))?;
    let capabilities = Capabilities::none("this driver only copies directories");
    Ok(Box::new(Plain { home: request.home.to_owned(), capabilities }))
}

impl Plain {
    fn path(&self, prefix: &str, id: &LayerId) -> PathBuf {
        self.home.join(format!("{prefix}{id}"))
    }

    fn existing(&self, id: &LayerId) -> Result<PathBuf> {
        let path = self.path("", id);
        if path.is_dir() {
            return Ok(path);
        }
        Err(Error::new(ErrorKind::Corrupt, "the directory of the layer is missing").with_path(path))
    }
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |error| Error::from_io(error, what).with_path(path)
}

impl Driver for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn home(&self) -> &Path {
        &self.home
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn why_full(&self) -> Option<String> {
        None
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let new = self.path(".new.", layer.id);
        fs::create_dir(&new).map_err(failed("make the directory", &new))?;
        if let Some(parent) = layer.parent {
            let parent = self.existing(parent)?;
            let from = File::open(&parent).map_err(failed("open", &parent))?;
            let to = File::open(&new).map_err(failed("open", &new))?;
            copy_tree(&from, &to, &parent, Reflink::Auto)?;
        } else {
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
                .map_err(failed("set the mode of", &new))?;
        }
        kill_point!("plain.create.copied");
        fs::rename(&new, self.path("", layer.id)).map_err(failed("rename", &new))
    }

    fn seal(&self, _id: &LayerId, durable: bool) -> Result<()> {
        if durable { sync_file_system(&self.home) } else { Ok(()) }
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let home = File::open(&self.home).map_err(failed("open", &self.home))?;
        let take = |prefix: &str| remove_tree(&home, format!("{prefix}{id}").as_ref(), &self.home);
        take(".gone.")?;
        match fs::rename(self.path("", id), self.path(".gone.", id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("rename", &self.path("", id))(error));
            }
            _ => {}
        }
        kill_point!("plain.remove.renamed");
        take(".gone.")?;
        take(".new.")?;
        take(".mnt.")
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.home).map_err(failed("list", &self.home))? {
            let name = entry.map_err(failed("list", &self.home))?.file_name();
            ids.extend(name.to_str().and_then(|name| LayerId::new(name).ok()));
        }
        Ok(ids)
    }

    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        // A copy does not tell of what, nor for what.
        Ok(self.path("", id).is_dir().then_some(FoundLayer { parent: None, sealed: None }))
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        Ok(MountPlan::bind(self.existing(id)?, access, self.path(".mnt.", id)))
    }

    fn unmounted(&self, _id: &LayerId) -> Result<()> {
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        Ok(ApplyTarget { plan: self.mount_plan(id, Access::ReadWrite)?, form: LayerForm::Whole })
    }

    fn candidates(&self, _id: &LayerId) -> Result<Candidates> {
        // Nothing is noted of the copy, so that every file's content has to be compared.
        Ok(Candidates::All { untouched: Some(CtimeWindow::NEVER) })
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let path = self.existing(id)?;
        tree_usage(File::open(&path).map_err(failed("open", &path))?, &path)
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let path = self.existing(id)?;
        Ok(BTreeMap::from([("Dir".to_owned(), path.display().to_string())]))
    }
}
