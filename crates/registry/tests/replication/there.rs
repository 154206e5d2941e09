//! What goes at the destination.

use oci::Reference;

use super::*;

fn name(text: &str) -> model::ImageName {
    site::name(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_there_takes_what_the_rule_has_pushed_and_nothing_else() {
    let (here, there) = (Site::start().await, Site::start().await);
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    let rule = ReplicationRule { retention: vec![keep_newest("pr-*", 2)], ..rule(&there.host, &there.bob) };
    let running = Running::start(&here, rule.clone()).await;
    here.push_image("alice/app", "pr-1", "1").await;
    running.rest().await;
    // Another's tags, one of which was the rule's before.
    let found = app.manifest(&"pr-1".parse().unwrap(), Remote::ACCEPT).await.unwrap();
    let foreign: Reference = "pr-0".parse().unwrap();
    app.push_manifest(&foreign, &found.media_type, found.bytes.clone()).await.unwrap();
    here.push_image("alice/app", "pr-2", "2").await;
    running.rest().await;
    let second = app.manifest(&"pr-2".parse().unwrap(), Remote::ACCEPT).await.unwrap();
    app.push_manifest(&"pr-1".parse().unwrap(), &second.media_type, second.bytes).await.unwrap();
    for (tag, content) in [("pr-3", "3"), ("pr-4", "4"), ("pr-5", "5"), ("main", "main")] {
        here.push_image("alice/app", tag, content).await;
        running.rest().await;
    }
    assert_eq!(tags(&app).await, ["main", "pr-0", "pr-1", "pr-4", "pr-5"]);
    let state = running.state().await;
    assert_eq!((state.error, state.done.removed), (None, 2), "pr-2 and pr-3");
    // All tags are here still, and looking at everything again brings none back.
    assert_eq!(running.0.again("offsite").await.unwrap(), Some(6));
    running.rest().await;
    assert_eq!(tags(&app).await.len(), 5);
    // Unless it is set anew.
    here.push_image("alice/app", "pr-2", "2").await;
    running.rest().await;
    assert_eq!(tags(&app).await, ["main", "pr-0", "pr-1", "pr-2", "pr-5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_goes_along_only_if_the_rule_says_so() {
    let (here, there) = (Site::start().await, Site::start().await);
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    let keeps = rule(&there.host, &there.bob);
    let running = Running::start(&here, keeps.clone()).await;
    let first = here.push_image("alice/app", "v1", "1").await;
    here.push_image("alice/app", "v2", "2").await;
    here.push_image("alice/app", "v3", "3").await;
    running.rest().await;
    here.registry.delete_tag(&name("alice/app"), &"v3".parse().unwrap()).await.unwrap();
    running.rest().await;
    assert_eq!(tags(&app).await, ["v1", "v2", "v3"]);
    drop(running);
    let running = Running::start(&here, ReplicationRule { deletes: true, ..keeps }).await;
    here.registry.delete_tag(&name("alice/app"), &"v2".parse().unwrap()).await.unwrap();
    here.registry.delete_manifest(&name("alice/app"), &first).await.unwrap();
    running.rest().await;
    assert_eq!(tags(&app).await, ["v3"]);
    // What is brought back comes back there.
    let everything = registry::Undo { images: ImagePattern::all(), tags: Some("v2".parse().unwrap()), since: None };
    here.registry.undo(&everything).await.unwrap();
    running.rest().await;
    assert_eq!(tags(&app).await, ["v2", "v3"]);
}
