//! Who else may say who somebody is, from the server's file to the gate.

use access::{GroupMapping, Identities, IssuerConfig, LoginConfig, RobotAction, WorkloadConfig, WorkloadRule};
use config::{ImageAction, OidcProvider, ServerSpec, WorkloadIssuer};

use crate::OpenError;

/// Reads what the file only refers to.
pub(crate) fn identities(spec: &ServerSpec) -> Result<Identities, OpenError> {
    let Some(spec) = &spec.access else { return Ok(Identities::default()) };
    Ok(Identities {
        logins: spec.oidc.iter().map(login).collect::<Result<_, _>>()?,
        workloads: spec.workloads.iter().map(workload).collect::<Result<_, _>>()?,
    })
}

fn roots(file: Option<&std::path::PathBuf>) -> Result<Vec<Vec<u8>>, OpenError> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let read = std::fs::read(path);
    Ok(vec![read.map_err(|error| OpenError::Room { what: "caFile", message: format!("{}: {error}", path.display()) })?])
}

fn login(it: &OidcProvider) -> Result<LoginConfig, OpenError> {
    let secret = it.client_secret.as_ref().map(config::SecretRef::resolve).transpose()?;
    let mapping = |it: &config::GroupMapping| {
        let (organisation, group) = it.group.split_once('/')?;
        let (organisation, group) = (organisation.to_owned(), group.to_owned());
        Some(GroupMapping { claim: it.claim.clone(), organisation, group })
    };
    Ok(LoginConfig {
        issuer: IssuerConfig {
            name: it.name.clone(),
            issuer: it.issuer.clone(),
            jwks: None,
            roots: roots(it.ca_file.as_ref())?,
        },
        client_id: it.client_id.clone(),
        client_secret: secret.map(|secret| secret.as_str().into()),
        scopes: it.scopes.clone(),
        username_claim: it.username_claim.clone(),
        groups_claim: it.groups_claim.clone(),
        groups: it.groups.iter().filter_map(mapping).collect(),
        create_users: it.create_users,
        hours: it.token_hours,
    })
}

fn workload(it: &WorkloadIssuer) -> Result<WorkloadConfig, OpenError> {
    let action = |action: &ImageAction| match action {
        ImageAction::Pull => RobotAction::Pull,
        ImageAction::Push => RobotAction::Push,
        ImageAction::Delete => RobotAction::Delete,
    };
    let rules = it.rules.iter().map(|rule| WorkloadRule {
        claims: rule.claims.clone(),
        images: rule.images.clone(),
        actions: rule.actions.iter().map(action).collect(),
    });
    Ok(WorkloadConfig {
        issuer: IssuerConfig {
            name: it.name.clone(),
            issuer: it.issuer.clone(),
            jwks: it.jwks.clone(),
            roots: roots(it.ca_file.as_ref())?,
        },
        audience: it.audience.clone(),
        rules: rules.collect(),
    })
}
