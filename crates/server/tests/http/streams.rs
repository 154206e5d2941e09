//! Answers that grow: logs and the event log.

use std::time::Duration;

use futures_util::StreamExt;

use crate::world::World;

/// Reads a body until it holds `wanted`.
async fn until(response: &mut reqwest::Response, so_far: &mut String, wanted: &str) {
    let read = async {
        while !so_far.contains(wanted) {
            let chunk =
                response.chunk().await.unwrap().unwrap_or_else(|| panic!("ended without {wanted:?}: {so_far:?}"));
            so_far.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap_or_else(|_| panic!("no {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_as_it_grows() {
    let world = World::start().await;
    world.open_run(900_001, &[(900_002, "test"), (900_003, "lint")]).await;
    let path = "/towpath/v1/runs/900001/logs?follow=true&part=test";
    let mut response = world.request("GET", path, Some(&world.rae)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let mut text = String::new();
    // The file comes about after the request, and what is not asked for is not sent.
    world.write_log(900_002, "one\n");
    world.write_log(900_003, "other\n");
    until(&mut response, &mut text, "one\n").await;
    world.write_log(900_002, "<script>two\x1b[31m\n");
    until(&mut response, &mut text, "two\x1b[31m\n").await;
    world.write_log(900_002, "three\n");
    world.end_run(900_001).await;
    let rest = tokio::time::timeout(Duration::from_secs(20), response.text()).await.unwrap().unwrap();
    assert_eq!(text + &rest, "one\n<script>two\x1b[31m\nthree\n");

    // Without a part, each is named before its lines; and what has ended is sent whole.
    let all = world.api("GET", "/runs/900001/logs?follow=true", Some(&world.rae), None).await;
    assert!(all.text.contains("==> test <==\none\n") && all.text.contains("==> lint <==\nother\n"), "{all:?}");
    assert_eq!(all.header("x-content-type-options"), "nosniff");
    assert!(all.header("content-security-policy").contains("sandbox"), "{all:?}");
    world.api("GET", "/runs/900001/logs?part=../../format", Some(&world.rae), None).await.is_problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_without_a_gap() {
    const PUSHES: usize = 6;
    let world = World::start().await;
    let path = "/towpath/v1/events?after=0&follow=true";
    let followers: Vec<_> = (0..3)
        .map(|_| world.request("GET", path, Some(&world.admin)).send())
        .map(|sent| async {
            let mut body = sent.await.unwrap().bytes_stream();
            let (mut text, mut ended) = (String::new(), 0);
            while ended < PUSHES {
                text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
                ended = text.matches("\"deliveryFinished\"").count();
            }
            text
        })
        .collect();
    let pushes = async {
        world.push().await;
        for _ in 1..PUSHES {
            let body = Some(r#"{"ref":"main"}"#);
            let path = "/repositories/works/engine/dispatches";
            assert_eq!(world.api("POST", path, Some(&world.wyn), body).await.status, 201);
        }
    };
    let all = futures_util::future::join(futures_util::future::join_all(followers), pushes);
    let (texts, ()) = tokio::time::timeout(Duration::from_secs(60), all).await.expect("every delivery ends");
    let whole = world.api("GET", "/events", Some(&world.admin), None).await.text;
    for text in texts {
        let complete = &text[..=text.rfind('\n').unwrap()];
        assert!(whole.starts_with(complete), "what is followed is the log");
        for (index, line) in complete.lines().enumerate() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["seq"], index + 1, "{line}");
        }
    }
    let after = world.api("GET", "/events?after=3", Some(&world.admin), None).await.text;
    assert!(after.starts_with("{\"seq\":4,"), "{after}");
}
