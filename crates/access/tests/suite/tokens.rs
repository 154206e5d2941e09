//! Tokens of users, jobs and the registry.

use std::time::Duration;

use access::{
    Access, AccessError, BearerError, BearerScope, Credentials, Denied, JobPrincipal, Level, Principal, Resource,
    Scope, Secret,
};
use model::{JobId, RunId, Timestamp, TokenId};
use store::{Location, Records};

use crate::{Place, sign_in, user};

fn basic(user: &str, password: &Secret) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: password.clone() }
}

fn now() -> i64 {
    Timestamp::from(std::time::SystemTime::now()).0
}

pub async fn a_token_signs_in_by_basic_and_bearer(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("Alice", false).await.unwrap();
    let (token, secret) = access.create_token(alice, "laptop", &[Scope::ReadRepository], None).await.unwrap();
    for credentials in [
        Credentials::Bearer(secret.clone()),
        basic("Alice", &secret),
        basic("alice", &secret),
        basic("x-access-token", &secret),
        basic("", &secret),
    ] {
        let principal = access.authenticate(&credentials).await.unwrap();
        let signed_in = principal.user().unwrap();
        assert_eq!((signed_in.id(), signed_in.name(), signed_in.token()), (alice, "Alice", token));
        assert!(signed_in.scopes().iter().eq(&[Scope::ReadRepository]));
    }
    assert_eq!(access.authenticate(&Credentials::None).await.unwrap(), Principal::Anonymous);
}

pub async fn wrong_credentials_are_never_anonymous(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", false).await.unwrap();
    access.create_user("bob", false).await.unwrap();
    let (_, secret) = access.create_token(alice, "laptop", &[Scope::All], None).await.unwrap();
    let mut last_differs = secret.expose().to_owned();
    let last = if last_differs.ends_with('x') { 'y' } else { 'x' };
    last_differs.replace_range(43.., &last.to_string());
    for wrong in [
        basic("bob", &secret),
        basic("alice", &"".into()),
        basic("alice", &"alice".into()),
        Credentials::Bearer(last_differs.into()),
        Credentials::Bearer("twp_".into()),
        Credentials::Bearer("twj_".into()),
        Credentials::Bearer("a\0b".into()),
    ] {
        let error = access.authenticate(&wrong).await.unwrap_err();
        assert!(matches!(error, AccessError::BadCredentials), "{error}");
    }
}

pub async fn expired_and_revoked_tokens_are_refused(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", false).await.unwrap();
    let bob = access.create_user("bob", false).await.unwrap();
    let past = Some(Timestamp(now() - 1));
    let (_, expired) = access.create_token(alice, "old", &[Scope::All], past).await.unwrap();
    assert!(access.authenticate(&Credentials::Bearer(expired)).await.is_err());
    let future = Some(Timestamp(now() + 60_000));
    let (token, secret) = access.create_token(alice, "new", &[Scope::All], future).await.unwrap();
    sign_in(&access, &secret).await;
    let names: Vec<String> = access.list_tokens(alice).await.unwrap().into_iter().map(|token| token.name).collect();
    assert_eq!(names, ["old", "new"]);
    // Not by somebody else.
    assert!(matches!(access.revoke_token(bob, token).await, Err(AccessError::NoToken(_))));
    access.revoke_token(alice, token).await.unwrap();
    assert!(access.authenticate(&Credentials::Bearer(secret)).await.is_err());
    assert!(matches!(access.revoke_token(alice, TokenId(99)).await, Err(AccessError::NoToken(_))));
}

pub async fn only_hashes_are_stored(place: Place) {
    let access = place.open().await;
    let secret = access.bootstrap().await.unwrap().unwrap();
    let records = Records::open(place.location.clone()).await.unwrap();
    let rows = records.read(|tx| tx.query("SELECT * FROM tokens", &[])).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(!format!("{rows:?}").contains(&secret.expose()[4..]));
    if let Location::Sqlite(path) = &place.location {
        for file in path.parent().unwrap().read_dir().unwrap() {
            let content = std::fs::read(file.unwrap().path()).unwrap();
            let secret = &secret.expose().as_bytes()[4..];
            assert!(!content.windows(secret.len()).any(|window| window == secret), "the secret is on disk");
        }
    }
}

pub async fn the_last_use_of_a_token_is_listed(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", false).await.unwrap();
    let (_, secret) = access.create_token(alice, "laptop", &[Scope::All], None).await.unwrap();
    assert_eq!(access.list_tokens(alice).await.unwrap()[0].used, None);
    let before = now();
    sign_in(&access, &secret).await;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let used = loop {
        match access.list_tokens(alice).await.unwrap()[0].used {
            Some(used) => break used,
            None => assert!(std::time::Instant::now() < until, "the use of a token is not recorded"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!((before..=now()).contains(&used.0));
}

pub async fn a_token_needs_a_name_and_a_scope(place: Place) {
    let access = place.open().await;
    let alice = access.create_user("alice", false).await.unwrap();
    assert!(matches!(access.create_token(alice, "x", &[], None).await, Err(AccessError::NoScope)));
    access.create_token(alice, "x", &[Scope::All], None).await.unwrap();
    for bad in ["", " ", "a\nb", "x", "é".repeat(101).as_str()] {
        let error = access.create_token(alice, bad, &[Scope::All], None).await.unwrap_err();
        assert!(matches!(error, AccessError::BadTokenName(_)), "{bad:?}: {error}");
    }
    let nobody = model::UserId(99);
    assert!(matches!(access.create_token(nobody, "y", &[Scope::All], None).await, Err(AccessError::NoUser(_))));
}

fn job() -> JobPrincipal {
    JobPrincipal {
        repository: "alice/site".parse().unwrap(),
        run: RunId(4),
        job: JobId(7),
        contents: Level::Read,
        packages: Level::Write,
    }
}

async fn reads(access: &Access, principal: &Principal) -> Result<(), Denied> {
    let site = Resource::Repository("alice/site".parse().unwrap());
    access.authorize(principal, access::Action::Read, site).await.map(drop)
}

pub async fn a_job_token_dies_with_its_job(place: Place) {
    let access = place.open().await;
    let secret = access.create_job_token(job(), Timestamp(now() + 60_000)).await.unwrap();
    assert!(secret.expose().starts_with("twj_"));
    let principal = access.authenticate(&basic("alice", &secret)).await.unwrap();
    assert_eq!(principal, Principal::Job(job()));
    let bearer = access.issue_bearer(&principal, &[], "registry", Duration::from_secs(60));
    reads(&access, &principal).await.unwrap();

    // Started again: the new token counts, the old one does not.
    let second = access.create_job_token(job(), Timestamp(now() + 60_000)).await.unwrap();
    assert!(access.authenticate(&Credentials::Bearer(secret)).await.is_err());
    sign_in(&access, &second).await;

    assert_eq!(access.jobs_with_tokens().await.unwrap(), [JobId(7)]);
    access.end_job(JobId(7)).await.unwrap();
    assert_eq!(access.jobs_with_tokens().await.unwrap(), []);
    assert!(access.authenticate(&Credentials::Bearer(second)).await.is_err());
    let claimed = access.verify_bearer(&bearer, "registry").unwrap().principal;
    assert!(matches!(reads(&access, &claimed).await, Err(Denied::Unauthenticated)));

    let expired = access.create_job_token(job(), Timestamp(now() - 1)).await.unwrap();
    assert!(access.authenticate(&Credentials::Bearer(expired)).await.is_err());
}

fn pull_push() -> BearerScope {
    BearerScope {
        kind: "repository".to_owned(),
        name: "alice/site".to_owned(),
        actions: vec!["pull".to_owned(), "push".to_owned()],
    }
}

pub async fn registry_tokens_say_what_was_granted(place: Place) {
    let access = place.open().await;
    let (_, alice) = user(&access, "alice", false, &[Scope::All]).await;
    for principal in [Principal::Anonymous, Principal::Job(job()), alice] {
        let token = access.issue_bearer(&principal, &[pull_push()], "registry", Duration::from_secs(300));
        let claims = access.verify_bearer(&token, "registry").unwrap();
        assert_eq!((&claims.principal, claims.scopes.as_slice()), (&principal, [pull_push()].as_slice()));
        assert!((now() + 290_000..=now() + 300_000).contains(&claims.expires.0));
        assert!(claims.grants("repository", "alice/site", "push"));
        assert!(!claims.grants("repository", "alice/site", "delete"));
        assert!(!claims.grants("repository", "alice/site2", "push"));
        assert!(!claims.grants("registry", "alice/site", "push"));
        // A registry token signs in nowhere else.
        assert!(access.authenticate(&Credentials::Bearer(token.into())).await.is_err());
    }
}

pub async fn changed_registry_tokens_are_refused(place: Place) {
    let access = place.open().await;
    let token = access.issue_bearer(&Principal::Anonymous, &[pull_push()], "registry", Duration::from_secs(300));
    assert_eq!(access.verify_bearer(&token, "other"), Err(BearerError::OtherService));
    let over = access.issue_bearer(&Principal::Anonymous, &[], "registry", Duration::ZERO);
    let said = access.verify_bearer(&over, "registry");
    assert!(matches!(said, Err(BearerError::Expired(claims)) if claims.principal == Principal::Anonymous));
    let (payload, mac) = token.rsplit_once('.').unwrap();
    let other = access.issue_bearer(&Principal::Job(job()), &[], "registry", Duration::from_secs(300));
    let swapped = format!("{}.{mac}", other.rsplit_once('.').unwrap().0);
    let bad = [
        "",
        "twb_",
        "twb_.",
        &swapped,
        payload,
        &format!("{payload}."),
        &format!("{payload}.{}", &mac[..mac.len() - 2]),
        &format!("{token}x"),
        &token.replacen("twb_", "twp_", 1),
        // {"alg":"none"} and no signature.
        "eyJhbGciOiJub25lIn0.eyJhdWQiOiJyZWdpc3RyeSJ9.",
        &format!("twb_{}", "x".repeat(100_000)),
    ];
    for bad in bad {
        let refused = access.verify_bearer(bad, "registry");
        assert!(matches!(refused, Err(BearerError::Invalid | BearerError::UnknownKey)), "{bad:.80}");
    }
}

pub async fn replicas_and_restarts_share_the_signing_key(place: Place) {
    let access = place.open().await;
    let token = access.issue_bearer(&Principal::Anonymous, &[], "registry", Duration::from_secs(300));
    place.open().await.verify_bearer(&token, "registry").unwrap();
    drop(access);
    place.open().await.verify_bearer(&token, "registry").unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let records = Records::open(Location::Sqlite(stranger.path().join("towpath.db"))).await.unwrap();
    let stranger = Access::install(records).await.unwrap();
    assert_eq!(stranger.read_bearer(&token, "registry").await.unwrap(), Err(BearerError::UnknownKey));
}
