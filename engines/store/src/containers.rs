//! Containers: a writable layer on an image's topmost one.

use std::io::Write;
use std::path::{Path, PathBuf};

use layerstack::diff::{Change, DiffSummary};
use layerstack::driver::Usage;
use layerstack::layers::{Base, MountRequest};
use layerstack::{Error, ErrorKind, LayerId, Result};

use crate::db::{ContainerRow, Item, Work};
use crate::model::{Container, CreateContainer, RemoveContainer};
use crate::name::check_container;
use crate::owner::random_hex;
use crate::store::Store;

impl Store {
    /// Makes a container of an image.
    ///
    /// # Errors
    /// `NotFound` for the image, `AlreadyExists` for the name, `InvalidInput` for an option, `Corrupt` where the
    /// driver lacks a layer of the image.
    pub fn create_container(&self, image: &str, request: &CreateContainer) -> Result<Container> {
        let id = LayerId::new(random_hex::<32>()?)?;
        let name = match &request.name {
            Some(name) => {
                check_container(name)?;
                name.clone()
            }
            None => id.as_str()[..12].to_owned(),
        };
        let (resolved, rows) = self.database.read(|tx| {
            tx.check_container_name(&name)?;
            let resolved = tx.resolve(image)?;
            let rows = tx.image_layers(&resolved.image.id)?;
            Ok((resolved, rows))
        })?;
        let top = rows.last().map(|row| row.layer.clone()).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("image {} has no layers", resolved.image.id))
        })?;
        self.operation(|owner| {
            let layer = Item::Layer(id.clone());
            // With both claims the layer cannot lose its parent meanwhile, nor be left behind.
            self.claim_use(owner, &[Item::Layer(top.clone())])?;
            self.claim_making(owner, &layer)?;
            if !self.layers.contains(&top)? {
                return Err(self.missing_layer(&top));
            }
            self.layers.create(&id, Some(&top), &request.options)?;
            layerstack::kill_point!("store.container.made");
            self.database.write(|tx| {
                tx.add_container(&ContainerRow {
                    id: id.clone(),
                    name: name.clone(),
                    image: resolved.image.id.clone(),
                    driver: self.layers.driver_name().to_owned(),
                    created: tx.now()?,
                    options: request.options.clone(),
                })
            })
        })?;
        self.container(id.as_str())
    }

    /// All containers, the newest first.
    ///
    /// # Errors
    /// Where the database or the driver's records cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let rows = self.database.read(|tx| tx.containers())?;
        rows.into_iter().map(|row| self.describe_container(row)).collect()
    }

    /// The container of this name or id, or whose id starts so.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where several ids start so.
    pub fn container(&self, reference: &str) -> Result<Container> {
        let row = self.database.read(|tx| tx.container(reference))?;
        self.describe_container(row)
    }

    fn describe_container(&self, row: ContainerRow) -> Result<Container> {
        let image_name = self.database.read(|tx| tx.names(&row.image))?.into_iter().next();
        let mut mounts = Vec::new();
        let mut broken = None;
        if row.driver != self.layers.driver_name() {
            broken = Some(format!("its layer is kept by the driver {}", row.driver));
        } else if self.layers.contains(&row.id)? {
            mounts = self.layers.mounts(Some(&row.id))?.into_iter().map(|mount| mount.target).collect();
        } else {
            broken = Some("its layer is missing".to_owned());
        }
        Ok(Container {
            id: row.id,
            name: row.name,
            image: row.image,
            image_name,
            driver: row.driver,
            created_unix: row.created,
            options: row.options,
            mounts,
            broken,
        })
    }

    /// A container whose layer this driver has.
    pub(crate) fn own_container(&self, reference: &str) -> Result<ContainerRow> {
        let row = self.database.read(|tx| tx.container(reference))?;
        if row.driver == self.layers.driver_name() {
            return Ok(row);
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "container {} is kept by the driver {}; open the root with that one",
                row.name, row.driver
            ),
        ))
    }

    /// Mounts a container for as long as the host runs, and says where. One that is mounted already stays where it is.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where it is mounted at another place than `target`; what the kernel gives.
    pub fn mount(&self, container: &str, target: Option<&Path>) -> Result<PathBuf> {
        let row = self.own_container(container)?;
        if let Some(mount) = self.layers.mounts(Some(&row.id))?.into_iter().next() {
            return match target {
                Some(target) if std::path::absolute(target).ok().as_ref() != Some(&mount.target) => {
                    Err(Error::new(
                        ErrorKind::InUse,
                        format!("container {} is mounted on {} already", row.name, mount.target.display()),
                    ))
                }
                _ => Ok(mount.target),
            };
        }
        let mut request = MountRequest::new().persistent();
        if let Some(target) = target {
            request = request.with_target(target);
        }
        Ok(self.layers.mount(&row.id, &request)?.target().to_owned())
    }

    /// Unmounts a container.
    ///
    /// # Errors
    /// `NotFound` where it is not mounted; `InUse` where a process works in it.
    pub fn umount(&self, container: &str) -> Result<()> {
        let row = self.own_container(container)?;
        self.layers.unmount(&row.id, None)
    }

    /// What a container changed, sorted by path.
    ///
    /// # Errors
    /// `NotFound`; what reading the layers gives.
    pub fn diff(&self, container: &str) -> Result<Vec<Change>> {
        let row = self.own_container(container)?;
        self.layers.changes(&row.id, Base::Parent)
    }

    /// Writes what a container changed as an OCI layer tar.
    ///
    /// # Errors
    /// `NotFound`; what reading the layers or writing to `out` gives.
    pub fn diff_tar(&self, container: &str, out: &mut dyn Write) -> Result<DiffSummary> {
        let row = self.own_container(container)?;
        self.layers.diff(&row.id, Base::Parent, out)
    }

    /// What a container's layer occupies.
    ///
    /// # Errors
    /// `NotFound`; what the driver gives.
    pub fn usage(&self, container: &str) -> Result<Usage> {
        let row = self.own_container(container)?;
        self.layers.usage(&row.id)
    }

    /// Removes a container; gives its id.
    ///
    /// # Errors
    /// `NotFound`; `InUse` where it is mounted, or with `force` where a process works in it.
    pub fn remove_container(&self, container: &str, request: &RemoveContainer) -> Result<LayerId> {
        let row = self.own_container(container)?;
        for mount in self.layers.mounts(Some(&row.id))? {
            if !request.force {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!(
                        "container {} is mounted on {}; unmount it first, or force it",
                        row.name,
                        mount.target.display()
                    ),
                ));
            }
            self.layers.unmount(&row.id, Some(&mount.target))?;
        }
        self.operation(|owner| {
            let layer = Item::Layer(row.id.clone());
            // The row goes after the layer, so that a failure leaves the container as it was. Should the process be
            // killed in between, the claim says that the container is to go, and the next opening goes on.
            let other = self.database.write(|tx| tx.claim_work(owner.name(), &layer, Work::Remove))?;
            if other.is_some() {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("container {} is being removed by another process", row.name),
                ));
            }
            match self.layers.remove(&row.id) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    self.database.write(|tx| tx.release_work(owner.name(), &layer))?;
                    return Err(error);
                }
            }
            layerstack::kill_point!("store.container.removed");
            self.database.write(|tx| {
                tx.delete_container(&row.id)?;
                tx.forget(&layer)?;
                tx.release(owner.name(), std::slice::from_ref(&layer))
            })
        })?;
        Ok(row.id)
    }

    pub(crate) fn missing_layer(&self, layer: &LayerId) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            "the driver lacks this layer of the image; load the image again to mend it",
        )
        .with_layer(layer)
        .with_driver(self.layers.driver_name())
    }
}
