//! Images, their manifests, names and blobs in the database.

use layerstack::{Error, ErrorKind, LayerId};
use rusqlite::{OptionalExtension, Row, params};

use super::{Outcome, Transaction, parsed};
use crate::digest::Digest;
use crate::name::normalize;

/// An image as the database has it.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    pub(crate) id: Digest,
    pub(crate) config: Vec<u8>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct LayerRow {
    pub(crate) layer: LayerId,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
}

/// A manifest of an image.
#[derive(Debug, Clone)]
pub(crate) struct ManifestRow {
    pub(crate) digest: Digest,
    pub(crate) image: Digest,
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
}

/// What is kept so that a blob can be written out.
#[derive(Debug, Clone)]
pub(crate) struct BlobRow {
    pub(crate) digest: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) tar_size: u64,
    pub(crate) form: BlobForm,
    pub(crate) kept: u64,
}

/// In which form a blob is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobForm {
    /// As it came.
    Blob,
    /// A plain tar, compressed by us.
    Tar,
    /// What a plain tar has beyond the files of its layer.
    Split,
}

impl BlobForm {
    fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tar => "tar",
            Self::Split => "split",
        }
    }
}

/// An image that is to be added, or of which more is known than before.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) row: ImageRow,
    pub(crate) layers: Vec<LayerRow>,
    pub(crate) manifest: ManifestRow,
    /// The digests of the manifest's layers, lowest first.
    pub(crate) blobs: Vec<Digest>,
    /// What was stored for them.
    pub(crate) kept: Vec<BlobRow>,
    pub(crate) names: Vec<String>,
}

impl Transaction<'_> {
    /// All images, the last loaded first.
    pub(crate) fn images(&self) -> Outcome<Vec<ImageRow>> {
        let mut statement =
            self.sql.prepare_cached("SELECT id, config FROM images ORDER BY loaded DESC, id")?;
        Ok(statement.query_map([], image_row)?.collect::<Result<_, _>>()?)
    }

    /// The image with this id.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn image(&self, id: &Digest) -> Outcome<ImageRow> {
        let found = self
            .sql
            .query_row("SELECT id, config FROM images WHERE id = ?1", [id.as_str()], image_row)
            .optional()?;
        Ok(found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no image {id}")))?)
    }

    /// The image and the manifest that a reference means: a name, else the digest of a config or manifest, else
    /// the start of an image's id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where several ids start so.
    pub(crate) fn resolve(&self, reference: &str) -> Outcome<Resolved> {
        let name = normalize(reference).ok();
        if let Some(name) = name {
            let manifest = self
                .sql
                .query_row("SELECT manifest FROM names WHERE name = ?1", [&name], |row| parsed(row, 0))
                .optional()?;
            if let Some(manifest) = manifest {
                let manifest = self.manifest(&manifest)?;
                return Ok(Resolved { image: self.image(&manifest.image)?, manifest, name: Some(name) });
            }
        }
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        let is_hex = !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found: Vec<Digest> = Vec::new();
        if is_hex {
            let start = format!("sha256:{}", hex.to_ascii_lowercase());
            if hex.len() == 64
                && let Ok(digest) = start.parse()
                && let Ok(manifest) = self.manifest(&digest)
            {
                return Ok(Resolved { image: self.image(&manifest.image)?, manifest, name: None });
            }
            let mut statement = self
                .sql
                .prepare_cached("SELECT id FROM images WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2")?;
            found = statement.query_map([start], |row| parsed(row, 0))?.collect::<Result<_, _>>()?;
        }
        match found.as_slice() {
            [id] => Ok(Resolved { image: self.image(id)?, manifest: self.newest_manifest(id)?, name: None }),
            [] => {
                let shown: String = reference.chars().take(300).flat_map(char::escape_debug).collect();
                Err(Error::new(ErrorKind::NotFound, format!("no image \"{shown}\"")).into())
            }
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("several images have an id that starts with \"{hex}\""),
            )
            .into()),
        }
    }

    /// The layers of an image, lowest first.
    pub(crate) fn image_layers(&self, image: &Digest) -> Outcome<Vec<LayerRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT layer, diff_id, size FROM image_layers WHERE image = ?1 ORDER BY position",
        )?;
        let rows = statement.query_map([image.as_str()], |row| {
            Ok(LayerRow { layer: parsed(row, 0)?, diff_id: parsed(row, 1)?, size: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The layers of images that were made of the tar with this digest.
    pub(crate) fn layers_of(&self, diff_id: &Digest) -> Outcome<Vec<LayerId>> {
        let mut statement =
            self.sql.prepare_cached("SELECT DISTINCT layer FROM image_layers WHERE diff_id = ?1")?;
        Ok(statement.query_map([diff_id.as_str()], |row| parsed(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// The size of a layer's files, where an image has the layer.
    pub(crate) fn layer_size(&self, layer: &LayerId) -> Outcome<Option<u64>> {
        let sql = "SELECT size FROM image_layers WHERE layer = ?1 LIMIT 1";
        Ok(self.sql.query_row(sql, [layer.as_str()], |row| row.get(0)).optional()?)
    }

    /// The manifests of an image, the newest first.
    pub(crate) fn manifests(&self, image: &Digest) -> Outcome<Vec<Digest>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT digest FROM manifests WHERE image = ?1 ORDER BY loaded DESC, digest")?;
        Ok(statement.query_map([image.as_str()], |row| parsed(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// The manifest with this digest.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn manifest(&self, digest: &Digest) -> Outcome<ManifestRow> {
        let sql = "SELECT digest, image, media_type, body FROM manifests WHERE digest = ?1";
        let found = self.sql.query_row(sql, [digest.as_str()], manifest_row).optional()?;
        Ok(found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no manifest {digest}")))?)
    }

    /// The manifest by which an image came last.
    ///
    /// # Errors
    /// `Corrupt` where it has none.
    pub(crate) fn newest_manifest(&self, image: &Digest) -> Outcome<ManifestRow> {
        match self.manifests(image)?.first() {
            Some(digest) => self.manifest(digest),
            None => Err(Error::new(ErrorKind::Corrupt, format!("image {image} has no manifest")).into()),
        }
    }

    /// The digests of a manifest's layers, lowest first.
    pub(crate) fn manifest_blobs(&self, manifest: &Digest) -> Outcome<Vec<Digest>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT blob FROM manifest_blobs WHERE manifest = ?1 ORDER BY position")?;
        Ok(statement.query_map([manifest.as_str()], |row| parsed(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// What is kept of a blob: itself, or for a plain tar any blob that holds it.
    pub(crate) fn blob(&self, digest: &Digest) -> Outcome<Option<BlobRow>> {
        let sql = "SELECT digest, diff_id, size, tar_size, form, kept FROM blobs
                   WHERE digest = ?1 OR diff_id = ?1 ORDER BY digest = ?1 DESC LIMIT 1";
        Ok(self.sql.query_row(sql, [digest.as_str()], blob_row).optional()?)
    }

    /// The blobs that hold the tar with this digest.
    pub(crate) fn blobs_of(&self, diff_id: &Digest) -> Outcome<Vec<Digest>> {
        let mut statement = self.sql.prepare_cached("SELECT digest FROM blobs WHERE diff_id = ?1")?;
        Ok(statement.query_map([diff_id.as_str()], |row| parsed(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// All that is kept.
    pub(crate) fn blobs(&self) -> Outcome<Vec<BlobRow>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT digest, diff_id, size, tar_size, form, kept FROM blobs ORDER BY digest",
        )?;
        Ok(statement.query_map([], blob_row)?.collect::<Result<_, _>>()?)
    }

    /// Adds an image, or what is new of one that is there.
    pub(crate) fn add_image(&self, new: &NewImage) -> Outcome<()> {
        let NewImage { row, layers, manifest, blobs, kept, names } = new;
        let now = self.now()?;
        self.sql.execute(
            "INSERT INTO images (id, config, loaded) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![row.id.as_str(), row.config, now],
        )?;
        for (position, layer) in layers.iter().enumerate() {
            self.sql.execute(
                "INSERT INTO image_layers (image, position, layer, diff_id, size) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
                params![row.id.as_str(), position, layer.layer.as_str(), layer.diff_id.as_str(), layer.size],
            )?;
        }
        self.sql.execute(
            "INSERT INTO manifests (digest, image, media_type, body, loaded) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (digest) DO UPDATE SET loaded = excluded.loaded",
            params![manifest.digest.as_str(), row.id.as_str(), manifest.media_type, manifest.body, now],
        )?;
        for (position, blob) in blobs.iter().enumerate() {
            self.sql.execute(
                "INSERT INTO manifest_blobs (manifest, position, blob) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![manifest.digest.as_str(), position, blob.as_str()],
            )?;
        }
        for blob in kept {
            self.sql.execute(
                "INSERT OR REPLACE INTO blobs (digest, diff_id, size, tar_size, form, kept)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    blob.digest.as_str(),
                    blob.diff_id.as_str(),
                    blob.size,
                    blob.tar_size,
                    blob.form.as_str(),
                    blob.kept
                ],
            )?;
        }
        for name in names {
            self.set_name(name, &manifest.digest)?;
        }
        Ok(())
    }

    /// Removes an image with its manifests and names. What it alone referred to is garbage then.
    pub(crate) fn delete_image(&self, image: &Digest) -> Outcome<()> {
        self.sql.execute("DELETE FROM images WHERE id = ?1", [image.as_str()])?;
        Ok(())
    }

    /// Gives a name to the image of a manifest, taking it from another.
    pub(crate) fn set_name(&self, name: &str, manifest: &Digest) -> Outcome<()> {
        self.sql.execute(
            "INSERT OR REPLACE INTO names (name, manifest) VALUES (?1, ?2)",
            [name, manifest.as_str()],
        )?;
        Ok(())
    }

    /// Takes a name away.
    pub(crate) fn delete_name(&self, name: &str) -> Outcome<()> {
        self.sql.execute("DELETE FROM names WHERE name = ?1", [name])?;
        Ok(())
    }

    /// The names of an image, sorted.
    pub(crate) fn names(&self, image: &Digest) -> Outcome<Vec<String>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT name FROM names JOIN manifests ON digest = manifest WHERE image = ?1 ORDER BY name",
        )?;
        Ok(statement.query_map([image.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }
}

/// What a reference to an image means.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) image: ImageRow,
    pub(crate) manifest: ManifestRow,
    /// The name, where the reference is one.
    pub(crate) name: Option<String>,
}

fn image_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow { id: parsed(row, 0)?, config: row.get(1)? })
}

fn manifest_row(row: &Row<'_>) -> rusqlite::Result<ManifestRow> {
    Ok(ManifestRow {
        digest: parsed(row, 0)?,
        image: parsed(row, 1)?,
        media_type: row.get(2)?,
        body: row.get(3)?,
    })
}

fn blob_row(row: &Row<'_>) -> rusqlite::Result<BlobRow> {
    let form: String = row.get(4)?;
    let form = match form.as_str() {
        "blob" => BlobForm::Blob,
        "tar" => BlobForm::Tar,
        _ => BlobForm::Split,
    };
    Ok(BlobRow {
        digest: parsed(row, 0)?,
        diff_id: parsed(row, 1)?,
        size: row.get(2)?,
        tar_size: row.get(3)?,
        form,
        kept: row.get(5)?,
    })
}
