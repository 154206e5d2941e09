//! New versions that do not take over.

use std::time::{Duration, Instant};

use deploy::{Identity, RolloutFailure};

use crate::client::{Client, address};
use crate::setup::{Site, rollout};

/// Rolls `v1` out well and then `v2` in `mode`; afterwards `v1` must serve on as if nothing had been.
async fn failing(mode: &str, timeout_ms: u64, identity: Identity) -> RolloutFailure {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let mut second = rollout(&site.shop, "v2", mode);
    second.services[0].health.timeout_ms = timeout_ms;
    second.services[0].health.identity = identity;
    let failure = site.local.rollout(second).await.unwrap_err();
    assert_eq!(Client::connect(at).await.get("/").await.unwrap().body, "v1");
    assert_eq!(site.instances().len(), 1, "the failed version is gone");
    assert_eq!(failure.service.as_deref(), Some("web"));
    assert_eq!(failure.probe.as_deref(), Some("GET /health on port 8080"));
    site.end().await;
    failure
}

fn by_header() -> Identity {
    Identity::Header("X-Build".into())
}

pub async fn a_sick_version_does_not_take_over() {
    let failure = failing("sick", 4500, by_header()).await;
    let says = "web did not become healthy within 4.5 s: GET /health on port 8080: it answered 500";
    assert_eq!(failure.message, says);
    let lines = &failure.last_lines;
    assert!(lines.iter().any(|line| line == "starting version v2 in mode sick"), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("health is asked: 500 Internal Server Error"));
    assert!(lines.len() <= 20);
    let cause = failure.cause();
    assert_eq!((cause.message.as_str(), cause.place.as_deref()), (says, Some("web: GET /health on port 8080")));
}

pub async fn another_build_does_not_take_over() {
    let failure = failing("liar", 4000, Identity::JsonPointer("/build/commit".into())).await;
    let identity = "f".repeat(40);
    let expected =
        format!("it answered 200 with the identity \"{identity}\" in the JSON pointer /build/commit, expected 0000");
    assert!(failure.message.contains(&expected), "{failure}");
    let failure = failing("well", 4000, Identity::Header("X-Nothing".into())).await;
    assert!(failure.message.contains("without an identity in the header X-Nothing"), "{failure}");
    assert!(failure.hint.unwrap().contains("$TOWPATH_SOURCE_COMMIT"));
}

pub async fn a_crash_is_seen_at_once() {
    let began = Instant::now();
    let failure = failing("crash", 30_000, by_header()).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(failure.message.starts_with("web ended with exit code 3 after "), "{failure}");
    assert!(failure.last_lines.iter().any(|line| line == "no database at db:5432"), "{:?}", failure.last_lines);
}

pub async fn the_port_it_listens_on_is_guessed() {
    let failure = failing("elsewhere", 4000, by_header()).await;
    assert!(failure.message.contains("nothing answered (port 8080 in the sandbox: Connection refused"), "{failure}");
    assert!(failure.hint.as_ref().unwrap().starts_with("it listens on port 3000:"), "{:?}", failure.hint);
}

pub async fn what_cannot_be_started_says_why() {
    let site = Site::new();
    let mut wrong = rollout(&site.shop, "v1", "well");
    wrong.services[0].workload.containers[0].command = vec!["/bin/nothing".into()];
    let failure = site.local.rollout(wrong).await.unwrap_err();
    assert!(failure.message.starts_with("web could not be started: "), "{failure}");
    assert!(failure.message.contains("/bin/nothing"), "{failure}");
    let mut missing = rollout(&site.shop, "v1", "well");
    missing.services[0].image.digest = format!("sha256:{}", "9".repeat(64)).parse().unwrap();
    let failure = site.local.rollout(missing).await.unwrap_err();
    assert!(failure.message.starts_with("the image demo/site@sha256:999"), "{failure}");
    assert_eq!(site.local.address(crate::setup::TARGET).unwrap(), None);
    site.end().await;
}
