//! The tables. Names are looked up in lower case (`folded`), so that no two differ by case alone and an image, whose name
//! is in lower case, finds its repository.

use store::{Records, RecordsError};

const STEPS: &[&str] = &[
    "CREATE TABLE owners (
        id BIGINT NOT NULL PRIMARY KEY,
        folded TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        admin BIGINT NOT NULL,
        created BIGINT NOT NULL);
    CREATE TABLE members (
        organisation BIGINT NOT NULL REFERENCES owners (id),
        member BIGINT NOT NULL REFERENCES owners (id),
        role TEXT NOT NULL,
        PRIMARY KEY (organisation, member));
    CREATE TABLE repository_access (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        public BIGINT NOT NULL,
        PRIMARY KEY (owner, name));
    CREATE TABLE collaborators (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        collaborator BIGINT NOT NULL REFERENCES owners (id),
        role TEXT NOT NULL,
        PRIMARY KEY (owner, name, collaborator));
    CREATE TABLE tokens (
        id BIGINT NOT NULL PRIMARY KEY,
        holder BIGINT NOT NULL REFERENCES owners (id),
        name TEXT NOT NULL,
        lookup BIGINT NOT NULL,
        hash BYTES NOT NULL,
        scopes TEXT NOT NULL,
        created BIGINT NOT NULL,
        expires BIGINT,
        UNIQUE (holder, name));
    CREATE INDEX tokens_by_lookup ON tokens (lookup);
    CREATE TABLE job_tokens (
        job BIGINT NOT NULL PRIMARY KEY,
        run BIGINT NOT NULL,
        repository TEXT NOT NULL,
        contents TEXT NOT NULL,
        packages TEXT NOT NULL,
        lookup BIGINT NOT NULL,
        hash BYTES NOT NULL,
        expires BIGINT NOT NULL);
    CREATE INDEX job_tokens_by_lookup ON job_tokens (lookup);
    CREATE TABLE signing_keys (name TEXT NOT NULL PRIMARY KEY, secret TEXT NOT NULL)",
    "ALTER TABLE signing_keys ADD COLUMN created BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE signing_keys ADD COLUMN retired BIGINT;
    ALTER TABLE tokens ADD COLUMN used BIGINT;
    CREATE TABLE robots (
        id BIGINT NOT NULL PRIMARY KEY,
        owner BIGINT REFERENCES owners (id),
        login TEXT NOT NULL UNIQUE,
        images TEXT NOT NULL,
        actions TEXT NOT NULL,
        lookup BIGINT NOT NULL,
        hash BYTES NOT NULL,
        created BIGINT NOT NULL,
        expires BIGINT NOT NULL,
        used BIGINT);
    CREATE INDEX robots_by_lookup ON robots (lookup);
    CREATE TABLE access_groups (
        id BIGINT NOT NULL PRIMARY KEY,
        organisation BIGINT NOT NULL REFERENCES owners (id),
        folded TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (organisation, folded));
    CREATE TABLE access_group_members (
        grouping BIGINT NOT NULL REFERENCES access_groups (id),
        member BIGINT NOT NULL REFERENCES owners (id),
        source TEXT NOT NULL,
        PRIMARY KEY (grouping, member, source));
    CREATE INDEX access_group_members_by_member ON access_group_members (member);
    CREATE TABLE access_group_grants (
        grouping BIGINT NOT NULL REFERENCES access_groups (id),
        pattern TEXT NOT NULL,
        role TEXT NOT NULL,
        PRIMARY KEY (grouping, pattern));
    CREATE TABLE passwords (
        holder BIGINT NOT NULL PRIMARY KEY REFERENCES owners (id),
        token BIGINT NOT NULL,
        hash TEXT NOT NULL,
        changed BIGINT NOT NULL);
    CREATE TABLE identities (
        provider TEXT NOT NULL,
        subject TEXT NOT NULL,
        holder BIGINT NOT NULL REFERENCES owners (id),
        PRIMARY KEY (provider, subject))",
];

pub(crate) async fn install(records: &Records) -> Result<(), RecordsError> {
    records.migrate("access", STEPS).await
}

/// How a name is looked up.
pub(crate) fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}
