//! Applying records, idempotently, and writing them out again.

use std::collections::BTreeSet;

use access::Principal;
use config::{Metadata, Record, RepositorySpec, Visibility};
use model::{RefName, RepoName, Timestamp};
use serde::Serialize;
use source::HostedRepo;

use crate::targets::{self, ConfiguredTarget};
use crate::{Pipeline, PipelineError};

/// What became of an applied record.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Whether anything changed.
    pub changed: bool,
}

impl Pipeline {
    /// Applies records in their order, on behalf of `by`. A record that is as it should be already is left alone.
    ///
    /// # Errors
    /// When one names what is neither there nor made by a record before it: then nothing is applied. When the records
    /// cannot be written; then those before it are.
    pub async fn apply(&self, records: Vec<Record>, by: &Principal) -> Result<Vec<Applied>, PipelineError> {
        self.refuse_what_dangles(&records).await?;
        let mut applied = Vec::with_capacity(records.len());
        for record in records {
            let changed = self.apply_one(&record, by).await?;
            applied.push(Applied { kind: record.kind(), name: record.name().to_owned(), changed });
        }
        Ok(applied)
    }

    /// Looks at all records before the first is applied.
    async fn refuse_what_dangles(&self, records: &[Record]) -> Result<(), PipelineError> {
        let (mut owners, mut repositories) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            match record {
                Record::Organisation(_) | Record::User(_) => drop(owners.insert(record.name())),
                Record::Repository(it) => {
                    let owner = it.metadata.name.split('/').next().unwrap_or_default();
                    if !owners.contains(owner) && self.rooms.access.owner(owner).await?.is_none() {
                        let message = format!("there is no user or organisation {owner:?} to own {}", it.metadata.name);
                        return Err(PipelineError::Refused(message));
                    }
                    repositories.insert(it.metadata.name.as_str());
                }
                Record::Target(it) => {
                    let wanted = &it.spec.repository;
                    let made = repositories.contains(wanted.to_string().as_str());
                    if !made && self.rooms.hosting.find(wanted).await?.is_none() {
                        let message = format!("target {}: repository {wanted} does not exist", it.metadata.name);
                        return Err(PipelineError::Refused(message));
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply_one(&self, record: &Record, by: &Principal) -> Result<bool, PipelineError> {
        let access = &self.rooms.access;
        match record {
            Record::Organisation(it) => {
                if access.owner(&it.metadata.name).await?.is_some() {
                    return Ok(false);
                }
                let manager =
                    by.user().ok_or_else(|| PipelineError::Refused("only a person makes organisations".into()))?;
                access.create_organisation(&it.metadata.name, manager.id()).await?;
                Ok(true)
            }
            Record::User(it) => match access.find_user(&it.metadata.name).await? {
                None => access.create_user(&it.metadata.name, it.spec.admin).await.map(|_| true).map_err(Into::into),
                Some(user) if user.admin == it.spec.admin => Ok(false),
                Some(user) => access.set_admin(user.id, it.spec.admin).await.map(|()| true).map_err(Into::into),
            },
            Record::Target(it) => Ok(targets::put(&self.rooms.records, &it.metadata.name, &it.spec).await?.1),
            Record::Repository(it) => {
                let name = it.metadata.name.parse::<RepoName>();
                let name = name.map_err(|error| PipelineError::Refused(error.to_string()))?;
                self.apply_repository(&name, &it.spec).await
            }
        }
    }

    async fn apply_repository(&self, name: &RepoName, spec: &RepositorySpec) -> Result<bool, PipelineError> {
        let public = spec.visibility == Visibility::Public;
        let Some(found) = self.rooms.hosting.find(name).await? else {
            self.create_repository(name, &spec.default_branch, public).await?;
            return Ok(true);
        };
        let mut changed = false;
        if found.default_branch != spec.default_branch {
            let branch = RefName::branch(&spec.default_branch);
            let branch = branch.map_err(|error| PipelineError::Refused(error.to_string()))?;
            self.rooms.hosting.set_default_branch(found.id, &branch).await?;
            changed = true;
        }
        if self.rooms.access.is_public(name).await? != Some(public) {
            self.rooms.access.put_repository(name, public).await?;
            changed = true;
        }
        Ok(changed)
    }

    /// Makes a repository whose owner exists.
    ///
    /// # Errors
    /// When the owner does not exist or the name is taken.
    pub async fn create_repository(
        &self,
        name: &RepoName,
        default_branch: &str,
        public: bool,
    ) -> Result<HostedRepo, PipelineError> {
        if self.rooms.access.owner(name.owner()).await?.is_none() {
            let message = format!("there is no user or organisation {:?} to own {name}", name.owner());
            return Err(PipelineError::Refused(message));
        }
        let now = Timestamp::from(std::time::SystemTime::now());
        let repo = self.rooms.hosting.create(name, default_branch, now).await?;
        self.rooms.access.put_repository(name, public).await?;
        Ok(repo)
    }

    /// Gives a repository another name; rights and runs go with it. Its targets must name the new one before.
    ///
    /// # Errors
    /// When a target names it, or the new name is taken.
    pub async fn rename_repository(&self, from: &RepoName, to: &RepoName) -> Result<(), PipelineError> {
        self.refuse_if_targeted(from).await?;
        self.rooms.hosting.rename(from, to).await?;
        Ok(self.rooms.access.rename_repository(from, to).await?)
    }

    /// Removes a repository with its git data.
    ///
    /// # Errors
    /// When a target names it, or it cannot be removed.
    pub async fn remove_repository(&self, name: &RepoName) -> Result<(), PipelineError> {
        self.refuse_if_targeted(name).await?;
        self.rooms.hosting.remove(name).await?;
        Ok(self.rooms.access.remove_repository(name).await?)
    }

    async fn refuse_if_targeted(&self, name: &RepoName) -> Result<(), PipelineError> {
        match targets::of_repository(&self.rooms.records, name).await?.first() {
            None => Ok(()),
            Some(target) => Err(PipelineError::Refused(format!("target {} stands on repository {name}", target.name))),
        }
    }

    /// Removes a target and stops what it runs.
    ///
    /// # Errors
    /// When the records cannot be written or the site cannot be stopped.
    pub async fn remove_target(&self, target: &ConfiguredTarget) -> Result<(), PipelineError> {
        targets::remove(&self.rooms.records, &target.name).await?;
        self.rooms.local.stop(target.id).await.map_err(|error| PipelineError::Refused(error.to_string()))
    }

    /// All records, in an order in which they can be applied again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn export(&self) -> Result<Vec<Record>, PipelineError> {
        let api_version = config::API_VERSION.to_owned();
        let metadata = |name: String| Metadata { name };
        let mut records = Vec::new();
        for organisation in self.rooms.access.list_organisations().await? {
            let (api_version, kind) = (api_version.clone(), "Organisation".to_owned());
            records.push(Record::Organisation(config::Organisation {
                api_version,
                kind,
                metadata: metadata(organisation.name),
            }));
        }
        for user in self.rooms.access.list_users().await? {
            let spec = config::UserSpec { admin: user.admin };
            let (api_version, kind) = (api_version.clone(), "User".to_owned());
            records.push(Record::User(config::User { api_version, kind, metadata: metadata(user.name), spec }));
        }
        for repo in self.rooms.hosting.list().await? {
            let public = self.rooms.access.is_public(&repo.name).await?.unwrap_or(false);
            let visibility = if public { Visibility::Public } else { Visibility::Private };
            let spec = config::RepositorySpec { default_branch: repo.default_branch, visibility };
            let (api_version, kind) = (api_version.clone(), "Repository".to_owned());
            let metadata = metadata(repo.name.to_string());
            records.push(Record::Repository(config::Repository { api_version, kind, metadata, spec }));
        }
        for target in targets::list(&self.rooms.records).await? {
            let (api_version, kind) = (api_version.clone(), "Target".to_owned());
            let metadata = metadata(target.name);
            let target = config::Target { api_version, kind, metadata, spec: target.spec };
            records.push(Record::Target(Box::new(target)));
        }
        Ok(records)
    }
}
