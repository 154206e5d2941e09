//! Tokens of workloads, from an issuer in this process.

use std::collections::BTreeMap;

use access::{
    Access, AccessError, Action, Credentials, Identities, Principal, Resource, RobotAction, WorkloadConfig,
    WorkloadRule,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use model::Timestamp;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::Place;
use crate::issuer::{RsaKey, TestIssuer, jwk, sign};

fn now() -> i64 {
    Timestamp::from(std::time::SystemTime::now()).0 / 1000
}

fn rule(claims: &[(&str, &str)], images: &str, actions: &[RobotAction]) -> WorkloadRule {
    let claims = claims.iter().map(|(name, pattern)| ((*name).to_owned(), (*pattern).to_owned()));
    let claims: BTreeMap<_, _> = claims.collect();
    WorkloadRule { claims, images: vec![images.parse().unwrap()], actions: actions.to_vec() }
}

/// Pushes of `main` to one image, and pulls of everything else of the same repository.
async fn open(place: &Place, issuer: &TestIssuer) -> Access {
    let main = [("repository", "acme/app"), ("ref", "refs/heads/main")];
    let config = WorkloadConfig {
        issuer: issuer.config("github"),
        audience: "registry.example".to_owned(),
        rules: vec![
            rule(&main, "acme/app", &[RobotAction::Push]),
            rule(&[("repository", "acme/*")], "acme/base/*", &[RobotAction::Pull]),
            rule(&[("kubernetes.io/namespace", "prod"), ("groups", "deploy*")], "**", &[RobotAction::Pull]),
        ],
    };
    let identities = Identities { logins: Vec::new(), workloads: vec![config] };
    place.open().await.with_identities(identities).unwrap()
}

fn claims(issuer: &TestIssuer, more: Value) -> Value {
    let mut claims = json!({
        "iss": issuer.url, "aud": ["registry.example"], "sub": "repo:acme/app:ref:refs/heads/main",
        "iat": now(), "nbf": now() - 5, "exp": now() + 300, "repository": "acme/app", "ref": "refs/heads/main",
    });
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn enter(access: &Access, token: String) -> Result<Principal, AccessError> {
    access.authenticate(&Credentials::Basic { user: "anything".to_owned(), password: token.into() }).await
}

async fn may(access: &Access, who: &Principal, image: &str) -> (bool, bool) {
    let image = Resource::Image(image.parse().unwrap());
    let read = access.authorize(who, Action::Read, image.clone()).await.is_ok();
    (read, access.authorize(who, Action::Write, image).await.is_ok())
}

pub async fn a_token_gets_what_the_first_rule_that_fits_gives(place: Place) {
    let issuer = TestIssuer::start().await;
    let access = open(&place, &issuer).await;
    let main = enter(&access, issuer.sign(&claims(&issuer, json!({})))).await.unwrap();
    assert!(main.to_string().starts_with("workload+github+"), "{main}");
    assert_eq!(may(&access, &main, "acme/app").await, (true, true));
    assert_eq!(may(&access, &main, "acme/base/debian").await, (false, false));
    let branch = json!({ "ref": "refs/heads/evil" });
    let branch = enter(&access, issuer.sign(&claims(&issuer, branch))).await.unwrap();
    assert_eq!(may(&access, &branch, "acme/app").await, (false, false));
    assert_eq!(may(&access, &branch, "acme/base/debian").await, (true, false));
    // The same subject with other claims changes nothing of what the first one has.
    assert_eq!(may(&access, &main, "acme/app").await, (true, true));
    let pod = json!({
        "repository": null, "kubernetes.io": { "namespace": "prod" }, "groups": ["x", "deployers"],
    });
    let pod = access.authenticate(&Credentials::Bearer(issuer.sign(&claims(&issuer, pod)).into())).await.unwrap();
    assert_eq!(may(&access, &pod, "other/app").await, (true, false));

    // Another token of the same is the same robot, which can be seen and ended.
    let again = enter(&access, issuer.sign(&claims(&issuer, json!({ "jti": "2" })))).await.unwrap();
    assert_eq!(again, main);
    assert_eq!(access.list_robots(None).await.unwrap().len(), 3);
    assert_eq!(issuer.asked(), 1, "keys are remembered");
    let Principal::Robot(robot) = &main else { panic!("{main} is no robot") };
    access.remove_robot(robot.id()).await.unwrap();
    assert_eq!(may(&access, &main, "acme/app").await, (false, false));
}

pub async fn what_is_not_signed_for_us_is_refused(place: Place) {
    let issuer = TestIssuer::start().await;
    let access = open(&place, &issuer).await;
    let good = claims(&issuer, json!({}));
    let mallory = KeyPair::generate().unwrap();
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |header: Value| format!("{}.{}.", encoded(&header), encoded(&good));
    let hs256 = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let es256 = || Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let embedded = Header { jwk: serde_json::from_value(jwk(&mallory, "mine")).unwrap(), kid: None, ..es256() };
    let elsewhere = Header { jku: Some("http://127.0.0.1:1/keys".to_owned()), ..es256() };
    let changed = |more: Value| issuer.sign(&claims(&issuer, more));
    let signed = issuer.sign(&good);
    let (head, signature) = (signed.rsplit_once('.').unwrap().0, signed.rsplit_once('.').unwrap().1);
    let payload = encoded(&claims(&issuer, json!({ "repository": "acme/other" })));
    let swapped = format!("{}.{payload}.{signature}", head.split_once('.').unwrap().0);
    for (what, token) in [
        ("none", unsigned(json!({ "alg": "none", "kid": "one" }))),
        ("None", unsigned(json!({ "alg": "None", "kid": "one" }))),
        ("no algorithm", unsigned(json!({ "kid": "one" }))),
        (
            "HS256 with the public key",
            jsonwebtoken::encode(&hs256, &good, &EncodingKey::from_secret(&issuer.public())).unwrap(),
        ),
        ("another key under the same id", sign(&es256(), &good, &mallory)),
        ("an embedded key", sign(&embedded, &good, &mallory)),
        ("a key from elsewhere", sign(&elsewhere, &good, &mallory)),
        ("an unknown key", issuer.sign_as(&good, "two")),
        (
            "another algorithm's name",
            format!("{}.{}.{signature}", encoded(&json!({ "alg": "RS256", "kid": "one" })), encoded(&good)),
        ),
        ("changed claims", swapped),
        ("no signature", format!("{head}.")),
        ("another audience", changed(json!({ "aud": "other.example" }))),
        ("no audience", changed(json!({ "aud": null }))),
        ("another issuer", changed(json!({ "iss": "https://token.example" }))),
        ("expired", changed(json!({ "exp": now() - 60 }))),
        ("no expiry", changed(json!({ "exp": null }))),
        ("not yet", changed(json!({ "nbf": now() + 600 }))),
        ("nobody", changed(json!({ "sub": null }))),
        ("no rule", changed(json!({ "repository": "evil/app" }))),
        ("too long", changed(json!({ "x": "y".repeat(20_000) }))),
    ] {
        let error = enter(&access, token).await.unwrap_err();
        assert!(matches!(error, AccessError::BadCredentials), "{what}: {error}");
    }
    assert!(access.list_robots(None).await.unwrap().is_empty());
    enter(&access, signed).await.unwrap();
    assert!(issuer.asked() <= 2, "{}: a stranger does not make us ask for ever", issuer.asked());
    // A server that knows no issuers takes none.
    let plain = place.open().await;
    assert!(matches!(enter(&plain, issuer.sign(&good)).await, Err(AccessError::BadCredentials)));
}

pub async fn rsa_keys_and_an_issuer_that_changes_them(place: Place) {
    let issuer = TestIssuer::start().await;
    let (first, second, mallory) = (RsaKey::new(), RsaKey::new(), RsaKey::new());
    issuer.list(&[first.jwk("first")]);
    let access = open(&place, &issuer).await;
    let good = claims(&issuer, json!({}));
    for algorithm in [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS512] {
        let who = enter(&access, first.sign(algorithm, &good, "first")).await.unwrap();
        assert_eq!(may(&access, &who, "acme/app").await, (true, true), "{algorithm:?}");
    }
    let public = first.jwk("first").to_string();
    let hs256 = Header { kid: Some("first".to_owned()), ..Header::new(Algorithm::HS256) };
    for (what, token) in [
        ("another key under the same id", mallory.sign(Algorithm::RS256, &good, "first")),
        ("a key that is not listed", second.sign(Algorithm::RS256, &good, "second")),
        ("a key of another kind", issuer.sign_as(&good, "first")),
        (
            "HS256 with the public key",
            jsonwebtoken::encode(&hs256, &good, &EncodingKey::from_secret(public.as_bytes())).unwrap(),
        ),
    ] {
        let error = enter(&access, token).await.unwrap_err();
        assert!(matches!(error, AccessError::BadCredentials), "{what}: {error}");
    }
    // The issuer goes over to the second key: it is found by itself, and the first one is worth nothing then.
    issuer.list(&[second.jwk("second")]);
    let mut tries = 0;
    while enter(&access, second.sign(Algorithm::RS256, &good, "second")).await.is_err() {
        tries += 1;
        assert!(tries < 300, "the new key is never asked for");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let old = enter(&access, first.sign(Algorithm::RS256, &good, "first")).await;
    assert!(matches!(old, Err(AccessError::BadCredentials)), "{old:?}");
}
