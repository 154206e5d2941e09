//! The tables.
//!
//! Names and tags are bytes: they are listed in the order of their bytes, and a database sorts texts by its locale.

/// Numbered steps; a released one is never changed.
pub(crate) const STEPS: &[&str] = &[
    "
CREATE TABLE registry_images (
    id BIGINT NOT NULL PRIMARY KEY,
    name BYTES NOT NULL UNIQUE,
    created BIGINT NOT NULL
);
CREATE TABLE registry_blobs (
    image BIGINT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    linked BIGINT NOT NULL,
    PRIMARY KEY (image, digest)
);
CREATE INDEX registry_blobs_by_digest ON registry_blobs (digest);
CREATE TABLE registry_manifests (
    image BIGINT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    pushed BIGINT NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT,
    content BYTES NOT NULL,
    PRIMARY KEY (image, digest)
);
CREATE INDEX registry_manifests_by_subject ON registry_manifests (image, subject, digest);
CREATE TABLE registry_references (
    image BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (image, manifest, digest)
);
CREATE INDEX registry_references_by_digest ON registry_references (image, digest);
CREATE TABLE registry_tags (
    image BIGINT NOT NULL,
    tag BYTES NOT NULL,
    digest TEXT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (image, tag)
);
CREATE INDEX registry_tags_by_digest ON registry_tags (image, digest);
CREATE TABLE registry_uploads (
    id TEXT NOT NULL PRIMARY KEY,
    image TEXT NOT NULL,
    subject TEXT NOT NULL,
    begun BIGINT NOT NULL
);
",
    "
CREATE INDEX registry_tags_by_time ON registry_tags (image, updated, tag);
",
    "
-- Which upstream an image is pulled through from, and when that last said what a tag points to.
ALTER TABLE registry_images ADD COLUMN upstream TEXT;
ALTER TABLE registry_tags ADD COLUMN checked BIGINT;
",
    "
ALTER TABLE registry_manifests ADD COLUMN renewed BIGINT;
CREATE INDEX registry_manifests_facts ON registry_manifests (image, digest, pushed, renewed, subject, size);
CREATE INDEX registry_references_children ON registry_references (image, manifest, digest) WHERE kind = 'manifest';
CREATE TABLE registry_pulls (
    image BIGINT NOT NULL,
    reference TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (image, reference)
);
CREATE TABLE registry_trash_tags (
    image BIGINT NOT NULL,
    tag BYTES NOT NULL,
    digest TEXT NOT NULL,
    updated BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (image, tag, deleted)
);
CREATE INDEX registry_trash_tags_by_digest ON registry_trash_tags (image, digest);
CREATE TABLE registry_trash_manifests (
    image BIGINT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    pushed BIGINT NOT NULL,
    subject TEXT,
    artifact_type TEXT,
    annotations TEXT,
    content BYTES NOT NULL,
    deleted BIGINT NOT NULL,
    why TEXT NOT NULL,
    PRIMARY KEY (image, digest)
);
CREATE INDEX registry_trash_manifests_by_subject ON registry_trash_manifests (image, subject);
CREATE TABLE registry_trash_references (
    image BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (image, manifest, digest)
);
CREATE INDEX registry_trash_references_by_digest ON registry_trash_references (image, digest);
CREATE TABLE registry_trash_blobs (
    image BIGINT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    PRIMARY KEY (image, digest)
);
CREATE INDEX registry_trash_blobs_by_digest ON registry_trash_blobs (digest);
CREATE TABLE registry_removals (
    digest TEXT NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE TABLE registry_freezes (
    images TEXT NOT NULL PRIMARY KEY,
    by_whom TEXT NOT NULL,
    since BIGINT NOT NULL,
    because TEXT NOT NULL
);
CREATE TABLE registry_quota_usage (
    images TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL
);
",
    "
-- What is to be replicated, and what a rule of replication has pushed. Images by their names: they may be gone.
CREATE TABLE registry_replication_rules (
    name TEXT NOT NULL PRIMARY KEY,
    place TEXT NOT NULL,
    selection TEXT NOT NULL,
    success BIGINT,
    error TEXT,
    error_at BIGINT,
    failures BIGINT NOT NULL,
    paused BIGINT NOT NULL
);
CREATE TABLE registry_replication_queue (
    rule TEXT NOT NULL,
    image BYTES NOT NULL,
    what BYTES NOT NULL,
    seq BIGINT NOT NULL,
    since BIGINT NOT NULL,
    due BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    PRIMARY KEY (rule, image, what)
);
CREATE INDEX registry_replication_queue_by_due ON registry_replication_queue (rule, due, seq);
CREATE TABLE registry_replicated_tags (
    rule TEXT NOT NULL,
    image BYTES NOT NULL,
    tag BYTES NOT NULL,
    digest TEXT,
    intended TEXT,
    updated BIGINT NOT NULL,
    own BIGINT NOT NULL,
    retired BIGINT NOT NULL,
    PRIMARY KEY (rule, image, tag)
);
CREATE TABLE registry_replicated_manifests (
    rule TEXT NOT NULL,
    image BYTES NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (rule, image, digest)
);
",
    "
-- Blobs that a process is about to store, for others that share the records and the bytes.
CREATE TABLE registry_holds (
    digest TEXT NOT NULL,
    holder TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (digest, holder)
);
",
    "
-- What upstreams last said of tags and digests whose manifest is not here. Images by their names: they may have no id.
CREATE TABLE registry_heads (
    image BYTES NOT NULL,
    reference BYTES NOT NULL,
    upstream TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size BIGINT,
    checked BIGINT NOT NULL,
    PRIMARY KEY (image, reference)
);
CREATE INDEX registry_heads_by_time ON registry_heads (upstream, checked);
CREATE INDEX registry_manifests_by_digest ON registry_manifests (digest);
",
];
