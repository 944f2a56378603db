//! The driver: what overlayfs needs for each of the contract's primitives.

use std::collections::BTreeMap;
use std::path::Path;

use layerstack_core::capability::{Capabilities, Feature, QuotaKind};
use layerstack_core::driver::{ApplyTarget, Candidates, FoundLayer, LayerForm, NewLayer, Usage};
use layerstack_core::fs::{self, FileSystemType};
use layerstack_core::mount::{Access, MountOption, MountPlan, appends_layers};
use layerstack_core::quota::{Limits, ProjectQuota};
use layerstack_core::registry::OpenRequest;
use layerstack_core::{Driver, Error, ErrorKind, LayerId, Result, kill_point};

use crate::candidates::Upper;
use crate::layout::{Home, Parent, read_link, read_lower};
use crate::options::{self, Settings};
use crate::probe::in_user_namespace;
use crate::{metacopy, probe, volatile};

/// The driver's name.
pub const NAME: &str = "overlay2";

layerstack_core::register_driver! {
    name: NAME,
    summary: "layers stacked by the kernel's overlayfs on ext4, xfs or btrfs",
    rank: 10,
    options: options::DRIVER,
    layer_options: options::LAYER,
    probe: probe::probe,
    open: |request| Ok(Box::new(Overlay2::open(request)?)),
}

/// A home of this driver, opened.
#[derive(Debug)]
pub struct Overlay2 {
    home: Home,
    settings: Settings,
    userxattr: bool,
    /// Where the file system has it; the capability says why not.
    quota: Option<ProjectQuota>,
    capabilities: Capabilities,
}

impl Overlay2 {
    /// Opens a home, making it where it is absent. A new one is made only where overlayfs works.
    ///
    /// # Errors
    /// `Unavailable` where overlayfs does not work there, `InvalidInput` for an option's value.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        let userxattr = in_user_namespace();
        let settings = Settings::parse(request.options, userxattr)?;
        if !request.home.join("l").is_dir() {
            probe::probe(request)?;
        }
        let home = Home::open(request.home)?;
        let mut capabilities = Capabilities::none("overlayfs does not offer it");
        capabilities.native_diff = Feature::Yes;
        capabilities.independent_layers = Feature::Yes;
        capabilities.shares_blocks = Feature::Yes;
        capabilities.usage_without_walk =
            Feature::no("what is in the upper directory is counted file by file");
        // overlayfs' own limit; without "lowerdir+", as many as fit into the options of mount(2).
        capabilities.max_depth = Some(if appends_layers() { 500 } else { 128 });
        if userxattr {
            capabilities.xattrs.retain(|space| *space != "trusted.");
        }
        let quota = match ProjectQuota::probe(home.path()) {
            Ok(quota) => {
                capabilities.quota = Feature::Yes;
                capabilities.quota_kind = Some(QuotaKind::Added);
                Some(quota)
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                capabilities.quota = Feature::no(error.message());
                None
            }
            Err(error) => return Err(error),
        };
        if settings.size.is_some() {
            quota_or_reason(quota.as_ref(), &capabilities)?;
        }
        Ok(Self { home, settings, userxattr, quota, capabilities })
    }

    fn check_depth(&self, parent: &Parent) -> Result<()> {
        let depth = parent.stack.len() + 1;
        match self.capabilities.max_depth {
            Some(most) if depth > most as usize => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the chain would have {depth} layers, and overlayfs stacks at most {most} here"),
            )),
            _ => Ok(()),
        }
    }
}

/// Project quota, or why there is none.
fn quota_or_reason<'a>(
    quota: Option<&'a ProjectQuota>,
    capabilities: &Capabilities,
) -> Result<&'a ProjectQuota> {
    quota.ok_or_else(|| {
        let reason = capabilities.quota.reason().unwrap_or_default();
        Error::new(ErrorKind::Unsupported, format!("a size cannot be set: {reason}"))
    })
}

impl Driver for Overlay2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let kind = FileSystemType::of(self.home.path())?.name();
        Ok([
            ("Backing Filesystem", kind.as_str()),
            // The probe refuses a file system without.
            ("Supports d_type", "true"),
            ("Using metacopy", if self.settings.metacopy { "true" } else { "false" }),
            ("Native Overlay Diff", "true"),
            ("userxattr", if self.userxattr { "true" } else { "false" }),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec())
    }

    fn why_full(&self) -> Option<String> {
        // What is full shows in `df`.
        None
    }

    fn create(&self, layer: &NewLayer<'_>) -> Result<()> {
        let limit = match layer.options.size("size")?.or(self.settings.size) {
            // As with Docker, no limit.
            None | Some(0) => None,
            Some(bytes) => {
                Some((quota_or_reason(self.quota.as_ref(), &self.capabilities)?, Limits::of_bytes(bytes)))
            }
        };
        let parent = layer.parent.map(|parent| self.home.parent(parent)).transpose()?;
        let mut metacopy = self.settings.metacopy;
        if let Some(parent) = &parent {
            self.check_depth(parent)?;
            metacopy = metacopy || metacopy::in_chain(&self.home, &parent.directory, &parent.stack[1..])?;
        }
        self.home.make(layer.id, parent.as_ref(), |directory| {
            if let Some((quota, limits)) = limit {
                quota.assign(directory, layer.id.as_str(), limits)?;
            }
            if metacopy { metacopy::note(directory) } else { Ok(()) }
        })
    }

    fn seal(&self, id: &LayerId, durable: bool) -> Result<()> {
        let layer = self.home.layer(id)?;
        layer.write("committed", b"")?;
        kill_point!("overlay2.seal.committed");
        if durable { fs::sync_file_system(layer.path()) } else { Ok(()) }
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let Some(quota) = &self.quota else { return self.home.remove(id) };
        let project = match self.home.remains(id)? {
            Some(layer) => quota.project_of(&layer)?,
            None => None,
        };
        self.home.remove(id)?;
        project.map_or(Ok(()), |project| quota.clear(project))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.home.list()
    }

    fn find(&self, id: &LayerId) -> Result<Option<FoundLayer>> {
        let Some(found) = self.home.find(id)? else { return Ok(None) };
        if !self.userxattr {
            metacopy::note_unknown(&found.directory)?;
        }
        // Docker writes the mark when a layer gets its first child: without it a layer may be an image's or a container's.
        Ok(Some(FoundLayer { parent: found.parent, sealed: found.sealed.then_some(true) }))
    }

    fn mount_plan(&self, id: &LayerId, access: Access) -> Result<MountPlan> {
        let layer = self.home.layer(id)?;
        let diff = layer.path().join("diff");
        if !layer.exists("diff")? {
            return Err(Error::new(ErrorKind::Corrupt, "a piece of the layer is missing").with_path(diff));
        }
        let mut stack = read_lower(&layer)?;
        let mut plan = MountPlan::bind(diff, access, layer.path().join("merged"));
        if stack.is_empty() {
            return Ok(plan);
        }
        let metacopy = metacopy::in_chain(&self.home, &layer, &stack)?;
        let own = Path::new(id.as_str());
        match access {
            Access::ReadOnly => stack.insert(0, read_link(&layer)?),
            Access::ReadWrite => {
                volatile::prepare(&layer, self.settings.volatile)?;
                plan.options.push(MountOption::Path("upperdir".to_owned(), own.join("diff")));
                plan.options.push(MountOption::Path("workdir".to_owned(), own.join("work")));
            }
        }
        let stack = stack.iter().map(|link| link.as_path()).collect();
        plan.options.insert(0, MountOption::Layers("lowerdir".to_owned(), stack));
        plan.options.extend(self.settings.mount_options(access, metacopy, self.userxattr));
        plan.fstype = "overlay".to_owned();
        plan.source = "overlay".into();
        plan.base = Some(self.home.path().to_owned());
        Ok(plan)
    }

    fn unmounted(&self, _id: &LayerId) -> Result<()> {
        // A plan prepares nothing, and the directory that core mounts on goes with the mount.
        Ok(())
    }

    fn apply_target(&self, id: &LayerId) -> Result<ApplyTarget> {
        let layer = self.home.layer(id)?;
        let plan = MountPlan::bind(layer.path().join("diff"), Access::ReadWrite, layer.path().join("merged"));
        let form = if layer.exists("lower")? {
            LayerForm::Overlay { userxattr: self.userxattr }
        } else {
            LayerForm::Whole
        };
        Ok(ApplyTarget { plan, form })
    }

    fn candidates(&self, id: &LayerId) -> Result<Candidates> {
        let layer = self.home.layer(id)?;
        let Some(diff) = layer.enter("diff")? else {
            let path = layer.path().join("diff");
            return Err(Error::new(ErrorKind::Corrupt, "a piece of the layer is missing").with_path(path));
        };
        Ok(Candidates::Paths(Box::new(Upper::new(diff, self.userxattr))))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let layer = self.home.layer(id)?;
        let diff = layer.path().join("diff");
        match layer.enter("diff")? {
            Some(open) => {
                let usage = fs::tree_usage(&open, &diff)?;
                Ok(usage.with_exclusive(usage.bytes))
            }
            None => Err(Error::new(ErrorKind::Corrupt, "a piece of the layer is missing").with_path(diff)),
        }
    }

    fn inspect(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let layer = self.home.layer(id)?;
        if layer.enter("diff")?.is_none() {
            return Err(Error::new(ErrorKind::Corrupt, "the directory of the layer's files is missing")
                .with_path(layer.path().join("diff")));
        }
        let shown = |name: &str| layer.path().join(name).display().to_string();
        let mut pieces = BTreeMap::from([
            ("MergedDir".to_owned(), shown("merged")),
            ("UpperDir".to_owned(), shown("diff")),
            ("WorkDir".to_owned(), shown("work")),
        ]);
        let lower = read_lower(&layer)?;
        if !lower.is_empty() {
            let paths: Vec<_> =
                self.home.paths(&lower)?.iter().map(|path| path.display().to_string()).collect();
            pieces.insert("LowerDir".to_owned(), paths.join(":"));
        }
        Ok(pieces)
    }
}
