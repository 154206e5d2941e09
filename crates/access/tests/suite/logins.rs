//! Signing in through a provider of identities in this process.

use std::collections::BTreeMap;

use access::{
    Access, AccessError, Action, GroupMapping, Identities, LoggedIn, LoginConfig, LoginError, LoginStart, Principal,
    Resource, Role,
};
use model::Timestamp;
use serde_json::{Value, json};

use crate::issuer::TestIssuer;
use crate::{Place, sign_in};

const REDIRECT: &str = "https://towpath.example/towpath/v1/login/oidc/corp/callback";

fn config(issuer: &TestIssuer, name: &str) -> LoginConfig {
    LoginConfig {
        issuer: issuer.config(name),
        client_id: "towpath".to_owned(),
        client_secret: Some("hush".into()),
        scopes: vec!["openid".to_owned(), "groups".to_owned()],
        username_claim: "preferred_username".to_owned(),
        groups_claim: "groups".to_owned(),
        groups: vec![GroupMapping {
            claim: "corp-builders".to_owned(),
            organisation: "acme".to_owned(),
            group: "builders".to_owned(),
        }],
        create_users: true,
        hours: 12,
    }
}

async fn open(place: &Place, issuer: &TestIssuer) -> Access {
    let logins = vec![config(issuer, "corp"), config(issuer, "other")];
    let access = place.open().await.with_identities(Identities { logins, workloads: Vec::new() }).unwrap();
    let boss = access.create_user("boss", true).await.unwrap();
    access.create_organisation("acme", boss).await.unwrap();
    access.create_group("acme", "builders").await.unwrap();
    access.grant_group("acme", "builders", "acme/**".parse().unwrap(), Role::Write).await.unwrap();
    access
}

/// The fields of the address that a browser is sent to.
fn fields(start: &LoginStart) -> BTreeMap<String, String> {
    let query = start.url.split_once('?').unwrap().1;
    query.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Goes to the provider and comes back as somebody with these claims.
async fn login(access: &Access, issuer: &TestIssuer, claims: Value) -> Result<LoggedIn, LoginError> {
    let start = access.begin_login("corp", REDIRECT).await?;
    let fields = fields(&start);
    let now = Timestamp::from(std::time::SystemTime::now()).0 / 1000;
    let mut token =
        json!({ "iss": issuer.url, "aud": "towpath", "exp": now + 60, "sub": "7", "nonce": fields["nonce"] });
    token.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    issuer.promise(issuer.sign(&token), &fields["code_challenge"]);
    access.finish_login("corp", REDIRECT, &start.cookie, ("good", &fields["state"])).await
}

async fn writes(access: &Access, who: &Principal) -> bool {
    let image = Resource::Image("acme/app".parse().unwrap());
    access.authorize(who, Action::Write, image).await.is_ok()
}

pub async fn whoever_the_provider_knows_gets_a_token_and_their_groups(place: Place) {
    let issuer = TestIssuer::start().await;
    let access = open(&place, &issuer).await;
    let start = access.begin_login("corp", REDIRECT).await.unwrap();
    assert!(start.url.starts_with(&format!("{}/authorize?", issuer.url)), "{}", start.url);
    let sent = fields(&start);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "towpath"),
        ("scope", "openid+groups"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(sent[name], value);
    }
    assert!(sent["state"].len() >= 40 && sent["nonce"].len() >= 40 && sent["state"] != sent["nonce"]);

    let ada = json!({ "preferred_username": "ada", "groups": ["corp-builders", "x"] });
    let entered = login(&access, &issuer, ada).await.unwrap();
    assert_eq!(entered.user, "ada");
    let first = sign_in(&access, &entered.token).await;
    assert!(writes(&access, &first).await);
    let in_hours = (entered.expires.0 - Timestamp::from(std::time::SystemTime::now()).0) / 60_000;
    assert!((700..=720).contains(&in_hours), "{in_hours} minutes");

    // Taken out of the group at the provider: the next login takes them out here, at once and for every token.
    access.add_group_member("acme", "builders", "boss").await.unwrap();
    let entered = login(&access, &issuer, json!({ "preferred_username": "renamed", "groups": [] })).await.unwrap();
    assert_eq!(entered.user, "ada", "the same subject is the same user, whatever they are called there");
    assert!(!writes(&access, &first).await);
    assert!(!writes(&access, &sign_in(&access, &entered.token).await).await);
    assert_eq!(access.groups("acme").await.unwrap()[0].members, ["boss"]);
    // What a person gave by hand stays.
    access.add_group_member("acme", "builders", "ada").await.unwrap();
    login(&access, &issuer, json!({ "groups": "none" })).await.unwrap();
    assert!(writes(&access, &first).await);
}

pub async fn a_name_that_is_taken_is_not_given_away(place: Place) {
    let issuer = TestIssuer::start().await;
    let access = open(&place, &issuer).await;
    let boss = json!({ "preferred_username": "BOSS", "sub": "8" });
    let error = login(&access, &issuer, boss.clone()).await.unwrap_err();
    assert!(matches!(error, LoginError::Access(AccessError::Unlinked(_))), "{error}");
    let error = login(&access, &issuer, json!({ "preferred_username": "a/b" })).await.unwrap_err();
    assert!(matches!(error, LoginError::Access(AccessError::BadName(_))), "{error}");
    let error = login(&access, &issuer, json!({})).await.unwrap_err();
    assert!(matches!(error, LoginError::Access(AccessError::BadName(_))), "{error}");
    let id = access.find_user("boss").await.unwrap().unwrap().id;
    access.link_identity(id, "corp", "8").await.unwrap();
    assert_eq!(login(&access, &issuer, boss).await.unwrap().user, "boss");
    assert!(matches!(access.link_identity(id, "nobody", "8").await, Err(AccessError::NoProvider(_))));
}

pub async fn a_login_that_did_not_begin_here_is_refused(place: Place) {
    let issuer = TestIssuer::start().await;
    let access = open(&place, &issuer).await;
    let ada = |more: Value| {
        let mut claims = json!({ "preferred_username": "ada" });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    for wrong in [json!({ "nonce": "other" }), json!({ "nonce": null }), json!({ "aud": "other" }), json!({ "exp": 1 })]
    {
        let error = login(&access, &issuer, ada(wrong.clone())).await.unwrap_err();
        assert!(matches!(error, LoginError::Refused), "{wrong}: {error}");
    }
    let start = access.begin_login("corp", REDIRECT).await.unwrap();
    let other = access.begin_login("other", REDIRECT).await.unwrap();
    let (state, theirs) = (fields(&start)["state"].clone(), fields(&other)["state"].clone());
    let registry = access.issue_bearer(&Principal::Anonymous, &[], "registry", std::time::Duration::from_secs(60));
    for (cookie, state) in [
        (start.cookie.as_str(), theirs.as_str()),
        (start.cookie.as_str(), ""),
        (other.cookie.as_str(), theirs.as_str()),
        (&start.cookie[1..], state.as_str()),
        (registry.strip_prefix("twb_").unwrap(), state.as_str()),
        ("", state.as_str()),
        ("a.b.c", state.as_str()),
    ] {
        let error = access.finish_login("corp", REDIRECT, cookie, ("good", state)).await.unwrap_err();
        assert!(matches!(error, LoginError::Stale), "{cookie:.20}: {error}");
    }
    // A code that is not worth anything, and one that was asked for by somebody else.
    issuer.promise("x.y.z".to_owned(), "other");
    for code in ["bad", "good"] {
        let error = access.finish_login("corp", REDIRECT, &start.cookie, (code, &state)).await.unwrap_err();
        assert!(matches!(error, LoginError::Unreachable), "{error}");
    }
    assert!(matches!(access.begin_login("nobody", REDIRECT).await, Err(LoginError::NoProvider(_))));
    // A login's cookie is no token.
    let refused = access.verify_bearer(&format!("twb_{}", start.cookie), "registry");
    assert_eq!(refused, Err(access::BearerError::Invalid));
    assert!(access.find_user("ada").await.unwrap().is_none());
}
