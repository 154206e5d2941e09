//! Who else may say who somebody is: providers through which people sign in, and issuers of workloads' tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::ImagePattern;
use serde::{Deserialize, Serialize};

use crate::SecretRef;

/// `spec.access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessSpec {
    /// Providers through which people sign in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oidc: Vec<OidcProvider>,
    /// Issuers whose tokens stand for workloads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadIssuer>,
}

/// A provider of OpenID Connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcProvider {
    /// What it is called in addresses: `a-z 0-9 -`.
    pub name: String,
    /// Its address, as it calls itself.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// Our secret with it, by reference; none for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// What we ask for.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim that holds the user's name.
    #[serde(default = "username_claim")]
    pub username_claim: String,
    /// The claim that holds their groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// Which group at the provider is which here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupMapping>,
    /// Whether somebody who was never here becomes a user.
    #[serde(default = "yes")]
    pub create_users: bool,
    /// How many hours a token lasts that a login gives.
    #[serde(default = "hours")]
    pub token_hours: u32,
    /// Further roots to trust when it is asked, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// A group at a provider, and what it is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupMapping {
    /// Its name at the provider.
    pub claim: String,
    /// `ORGANISATION/GROUP`.
    pub group: String,
}

/// An issuer whose tokens stand for workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadIssuer {
    /// What we call it: `a-z 0-9 -`.
    pub name: String,
    /// Its address, which its tokens carry as `iss`.
    pub issuer: String,
    /// Whom its tokens must be for.
    pub audience: String,
    /// Where its keys are; found by discovery if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Further roots to trust when it is asked, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What its tokens get; the first rule that fits decides.
    pub rules: Vec<WorkloadRule>,
}

/// What tokens with these claims may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadRule {
    /// Claims with what they must be; `*` stands for any text. All must fit.
    pub claims: BTreeMap<String, String>,
    /// Which images.
    pub images: Vec<ImagePattern>,
    /// What with them.
    pub actions: Vec<ImageAction>,
}

/// Something that is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageAction {
    /// Pull.
    Pull,
    /// Push, and so pull.
    Push,
    /// Delete.
    Delete,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email", "groups"].map(str::to_owned).into()
}

fn username_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

const fn yes() -> bool {
    true
}

const fn hours() -> u32 {
    12
}

impl AccessSpec {
    /// What is wrong with it, with its place.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (index, provider) in self.oidc.iter().enumerate() {
            let at = format!("spec.access.oidc[{index}]");
            let names = self.oidc[..index].iter().map(|it| &it.name);
            check_issuer(&at, &provider.name, &provider.issuer, names)?;
            if !provider.scopes.iter().any(|scope| scope == "openid") {
                return Err(format!("{at}.scopes: openid must be among them"));
            }
            if !(1..=720).contains(&provider.token_hours) {
                return Err(format!("{at}.tokenHours: {} is not from 1 to 720", provider.token_hours));
            }
            for mapping in &provider.groups {
                if mapping.group.split('/').filter(|part| !part.is_empty()).count() != 2 {
                    return Err(format!("{at}.groups: {:?} is not ORGANISATION/GROUP", mapping.group));
                }
            }
        }
        for (index, workloads) in self.workloads.iter().enumerate() {
            let at = format!("spec.access.workloads[{index}]");
            let names = self.workloads[..index].iter().map(|it| &it.name);
            check_issuer(&at, &workloads.name, &workloads.issuer, names)?;
            if let Some(jwks) = &workloads.jwks {
                check_address(&format!("{at}.jwks"), jwks)?;
            }
            if workloads.audience.is_empty() {
                return Err(format!("{at}.audience: a token for anybody is a token for nobody"));
            }
            for rule in &workloads.rules {
                if rule.claims.is_empty() || rule.images.is_empty() || rule.actions.is_empty() {
                    return Err(format!("{at}.rules: each needs claims, images and actions"));
                }
            }
        }
        Ok(())
    }
}

fn check_issuer<'a>(
    at: &str,
    name: &str,
    issuer: &str,
    mut others: impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
        return Err(format!("{at}.name: {name:?} is not 1 to 40 of a-z 0-9 -"));
    }
    if others.any(|other| other == name) {
        return Err(format!("{at}.name: {name:?} is there twice"));
    }
    check_address(&format!("{at}.issuer"), issuer)
}

/// What an issuer says decides who somebody is: it is asked over TLS, or on this machine.
fn check_address(at: &str, url: &str) -> Result<(), String> {
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let is_local =
        |prefix: &str| url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']));
    if url.starts_with("https://") || local.into_iter().any(is_local) {
        Ok(())
    } else {
        Err(format!("{at}: {url:?} does not begin with https://"))
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_server;

    fn parse(access: &str) -> Result<crate::ServerSpec, String> {
        let text = format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  access:\n{access}");
        parse_server("towpath.yaml", &text).map_err(|error| error.message)
    }

    const WORKLOADS: &str = "    workloads:
      - name: github
        issuer: https://token.actions.githubusercontent.com
        audience: registry.example
        rules:
          - claims: {repository: acme/app}
            images: ['acme/app/**']
            actions: [push]
";

    const OIDC: &str = "    oidc:
      - name: corp
        issuer: https://id.example
        clientId: towpath
        clientSecret: env:OIDC_SECRET
        groups: [{claim: builders, group: acme/builders}]
";

    #[test]
    fn providers_and_issuers_with_their_defaults() {
        let spec = parse(&format!("{WORKLOADS}{OIDC}")).unwrap();
        let access = spec.access.unwrap();
        assert_eq!(access.oidc[0].username_claim, "preferred_username");
        assert_eq!((access.oidc[0].token_hours, access.oidc[0].create_users), (12, true));
        assert_eq!(access.workloads[0].rules[0].images[0].as_str(), "acme/app/**");
    }

    #[test]
    fn what_would_trust_too_many_is_refused() {
        for (from, to, wanted) in [
            ("https://token", "http://token", "https://"),
            ("https://token", "http://localhost.evil", "https://"),
            ("audience: registry.example", "audience: ''", "audience"),
            ("claims: {repository: acme/app}", "claims: {}", "rules"),
            ("name: github", "name: Git Hub", "name"),
        ] {
            let error = parse(&WORKLOADS.replace(from, to)).unwrap_err();
            assert!(error.contains(wanted), "{to}: {error}");
        }
        for (from, to, wanted) in [
            ("clientSecret: env:OIDC_SECRET", "clientSecret: hunter2", "secret reference"),
            ("clientId: towpath", "clientId: towpath\n        scopes: [profile]", "openid"),
            ("clientId: towpath", "clientId: towpath\n        tokenHours: 0", "tokenHours"),
            ("group: acme/builders", "group: builders", "ORGANISATION/GROUP"),
        ] {
            let error = parse(&OIDC.replace(from, to)).unwrap_err();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{to}: {error}");
        }
    }
}
