-- The store's database. It is the truth about names; the driver's root is the truth about layers.
-- Digests are `sha256:HEX`; layer ids are chain ids without the algorithm, or a container's 64 random digits.

CREATE TABLE images (
    id     TEXT PRIMARY KEY,             -- the digest of the config
    config BLOB NOT NULL,                -- byte for byte as it came
    loaded INTEGER NOT NULL              -- seconds since the epoch
) STRICT, WITHOUT ROWID;

CREATE TABLE image_layers (
    image    TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    position INTEGER NOT NULL,           -- 0 is the lowest
    layer    TEXT NOT NULL,              -- chain id
    diff_id  TEXT NOT NULL,              -- the digest of the plain tar
    size     INTEGER NOT NULL,           -- bytes of the files
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);
CREATE INDEX image_layers_by_diff_id ON image_layers (diff_id);

CREATE TABLE manifests (
    digest     TEXT PRIMARY KEY,
    image      TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    media_type TEXT NOT NULL,
    body       BLOB NOT NULL,            -- byte for byte as it came
    loaded     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX manifests_by_image ON manifests (image);

CREATE TABLE manifest_blobs (
    manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE,
    position INTEGER NOT NULL,
    blob     TEXT NOT NULL,              -- equal to the diff id where the layer is a plain tar
    PRIMARY KEY (manifest, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blobs_by_blob ON manifest_blobs (blob);

-- What is kept beside the layers so that a blob can be written out bit for bit.
CREATE TABLE blobs (
    digest   TEXT PRIMARY KEY,
    diff_id  TEXT NOT NULL,              -- the digest of the tar that it holds
    size     INTEGER NOT NULL,           -- bytes of the blob
    tar_size INTEGER NOT NULL,           -- bytes of the tar
    -- blob: as it came; tar: the plain tar, compressed; split: what the plain tar has beyond the files of a layer
    form     TEXT NOT NULL CHECK (form IN ('blob', 'tar', 'split')),
    kept     INTEGER NOT NULL            -- bytes of the file
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_diff_id ON blobs (diff_id);

CREATE TABLE names (
    name     TEXT PRIMARY KEY,           -- repository:tag
    manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_manifest ON names (manifest);

CREATE TABLE containers (
    id      TEXT PRIMARY KEY,            -- also the id of its layer
    name    TEXT NOT NULL UNIQUE,
    image   TEXT NOT NULL REFERENCES images,
    driver  TEXT NOT NULL,               -- which driver has its layer
    created INTEGER NOT NULL,
    options TEXT NOT NULL                -- JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers (image);

-- Layers that the store made. A layer that is in the driver and not here belongs to somebody else.
CREATE TABLE layers (
    driver TEXT NOT NULL,
    id     TEXT NOT NULL,
    PRIMARY KEY (driver, id)
) STRICT, WITHOUT ROWID;

-- Who is working on what. An owner is a running operation; it holds the lock on `tmp/OWNER.lock`.
-- `use`: it must not go away. `make` and `remove`: nobody else may make or remove it.
CREATE TABLE claims (
    item  TEXT NOT NULL,                 -- layer:DRIVER:ID or blob:DIGEST
    owner TEXT NOT NULL,
    kind  TEXT NOT NULL CHECK (kind IN ('use', 'make', 'remove')),
    PRIMARY KEY (item, owner, kind)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_worker ON claims (item) WHERE kind <> 'use';
CREATE INDEX claims_by_owner ON claims (owner);
