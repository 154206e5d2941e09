//! The registry's management: who may, and what is answered.

use serde_json::Value;

use crate::world::{Answer, World, answer};

const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// Pushes an artifact as somebody.
async fn push(world: &World, token: &str, image: &str, tag: &str) -> Answer {
    let path = format!("/v2/{image}/blobs/uploads/?digest={EMPTY}");
    let blob = answer(world.request("POST", &path, Some(token)).body("{}")).await;
    if blob.status != 201 {
        return blob;
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let descriptor = format!(r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{EMPTY}","size":2}}"#);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","artifactType":"a/b","config":{descriptor},"layers":[{descriptor}]}}"#
    );
    let put = world.request("PUT", &format!("/v2/{image}/manifests/{tag}"), Some(token));
    answer(put.header("content-type", kind).body(manifest)).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"), "{answer:?}");
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn owners_manage_their_images_and_administrators_all() {
    let world = World::start().await;
    assert_eq!(push(&world, &world.max, "works/engine", "v1").await.status, 201);
    for path in ["/registry/retention", "/registry/verify", "/registry/deleted"] {
        let works = format!("{path}?images=works/**");
        for (token, path, status) in [
            (None, &works, 401),
            (Some(&world.wyn), &works, 403),
            (Some(&world.eve), &works, 404),
            (Some(&world.max), &works, 200),
            (Some(&world.max), &path.to_owned(), 403),
            (Some(&world.max), &format!("{path}?images=*/engine"), 403),
            (Some(&world.admin), &path.to_owned(), 200),
            (Some(&world.admin), &format!("{path}?images=Bad"), 400),
        ] {
            let answer = world.api("GET", path, token.map(String::as_str), None).await;
            assert_eq!(answer.status, status, "{path} {answer:?}");
        }
    }
    world.api("POST", "/registry/gc", Some(&world.max), Some("{}")).await.is_problem(403);
    world.api("GET", "/registry/quotas", Some(&world.max), None).await.is_problem(403);
    let collected = world.api("POST", "/registry/gc", Some(&world.admin), Some("{}")).await;
    assert_eq!((collected.status, collected.json()["removed"].clone()), (200, 0.into()), "{collected:?}");
}

#[tokio::test]
async fn plans_and_verdicts_come_in_lines_that_end_with_a_summary() {
    let world = World::start().await;
    assert_eq!(push(&world, &world.max, "works/engine", "v1").await.status, 201);
    let plan = world.api("GET", "/registry/retention?images=works/*", Some(&world.admin), None).await;
    let plan = lines(&plan);
    assert_eq!(plan.len(), 3, "{plan:?}");
    assert_eq!((&plan[0]["image"], &plan[0]["tag"]), (&"works/engine".into(), &"v1".into()));
    assert_eq!((&plan[0]["keep"], &plan[0]["why"]), (&true.into(), &"no rule is about it".into()));
    assert_eq!(plan[1]["why"], "tag v1 is kept");
    assert_eq!(plan[2]["summary"], serde_json::json!({ "kept": 2, "planned": 0, "deleted": 0 }));
    let verified = lines(&world.api("GET", "/registry/verify", Some(&world.admin), None).await);
    let expected = serde_json::json!({ "blobs": 1, "bytes": 2, "manifests": 1, "tags": 1, "problems": 0 });
    assert_eq!(verified.last().unwrap()["summary"], expected);
    let blob = world.running.basis.blobs.local_path(&EMPTY.parse().unwrap()).unwrap();
    std::fs::write(blob, "[]").unwrap();
    let verified = lines(&world.api("GET", "/registry/verify", Some(&world.admin), None).await);
    let problems: Vec<&Value> = verified.iter().filter_map(|line| line.get("problem")).collect();
    assert_eq!((problems.len(), &problems[0]["kind"]), (1, &"corrupt".into()), "{verified:?}");
    assert_eq!(problems[0]["images"][0], "works/engine");
}

#[tokio::test]
async fn what_is_frozen_is_refused_until_it_is_thawed() {
    let world = World::start().await;
    assert_eq!(push(&world, &world.max, "works/engine", "v1").await.status, 201);
    let body = r#"{"images": "works/**", "because": "we move"}"#;
    let frozen = world.api("POST", "/registry/freezes", Some(&world.max), Some(body)).await;
    assert_eq!((frozen.status, &frozen.json()["because"]), (200, &"we move".into()), "{frozen:?}");
    let refused = push(&world, &world.max, "works/engine", "v2").await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("frozen by") && refused.text.contains("because we move"), "{refused:?}");
    let undo = world.api("POST", "/registry/undo", Some(&world.max), Some(r#"{"images": "works/**"}"#)).await;
    assert_eq!(undo.status, 200, "nothing to bring back");
    for (token, shown) in [(&world.max, 1), (&world.wyn, 0), (&world.admin, 1)] {
        let list = world.api("GET", "/registry/freezes", Some(token), None).await.json();
        assert_eq!(list["freezes"].as_array().unwrap().len(), shown);
    }
    let thaw = "/registry/freezes?images=works/**";
    world.api("DELETE", thaw, Some(&world.wyn), None).await.is_problem(403);
    assert_eq!(world.api("DELETE", thaw, Some(&world.max), None).await.status, 204);
    world.api("DELETE", thaw, Some(&world.max), None).await.is_problem(404);
    assert_eq!(push(&world, &world.max, "works/engine", "v2").await.status, 201);
}

#[tokio::test]
async fn deleted_tags_are_listed_and_come_back() {
    let world = World::start().await;
    assert_eq!(push(&world, &world.max, "works/engine", "v1").await.status, 201);
    let path = "/v2/works/engine/manifests/v1";
    assert_eq!(answer(world.request("DELETE", path, Some(&world.max))).await.status, 202);
    let listed = world.api("GET", "/registry/deleted?images=works/**", Some(&world.max), None).await.json();
    assert_eq!(listed["deleted"][0]["tag"], "v1", "{listed}");
    assert!(listed["deleted"][0]["why"].as_str().unwrap().starts_with("deleted by "), "{listed}");
    let body = r#"{"images": "works/**", "tags": "v*"}"#;
    world.api("POST", "/registry/undo", Some(&world.wyn), Some(body)).await.is_problem(403);
    let undone = world.api("POST", "/registry/undo", Some(&world.max), Some(body)).await.json();
    assert_eq!(undone["undone"][0]["restored"], true, "{undone}");
    assert_eq!(answer(world.request("GET", path, Some(&world.max))).await.status, 200);
}
