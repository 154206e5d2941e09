//! The server stops within seconds, whoever still waits.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_or_follows_is_let_go() {
    let world = World::start().await;
    world.open_run(900_001, &[(900_002, "test")]).await;
    world.write_log(900_002, "one\n");
    let ask = |path: &str| world.request("GET", &format!("/towpath/v1{path}"), Some(&world.admin)).send();
    let log = ask("/runs/900001/logs?follow=true").await.unwrap();
    let events = ask("/events?follow=true").await.unwrap();
    let wait = tokio::spawn(ask("/runs/900001/wait?timeoutSeconds=300"));
    // One that says nothing, and one that does not finish its head.
    let mut silent = TcpStream::connect(world.address()).await.unwrap();
    let mut half = TcpStream::connect(world.address()).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!wait.is_finished());

    let (address, began) = (world.address(), Instant::now());
    let World { running, dir, .. } = world;
    let stop = tokio::spawn(running.stop());
    assert_eq!(log.text().await.unwrap(), "one\n");
    assert_eq!(events.text().await.unwrap().lines().count(), 2);
    let waited: serde_json::Value = wait.await.unwrap().unwrap().json().await.unwrap();
    assert!(waited["outcome"].is_null(), "{waited}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    stop.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut half] {
        tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await.unwrap().ok();
    }
    assert!(TcpStream::connect(&address).await.is_err(), "nobody listens any more");
    drop(dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_not_followed_for() {
    let world = World::start().await;
    world.open_run(900_001, &[(900_002, "test")]).await;
    let request = format!(
        "GET /towpath/v1/runs/900001/logs?follow=true HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        world.address(),
        world.admin
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
        clients.push(stream);
    }
    // A connection and what reads the log for it.
    assert!(tasks() >= before + 10, "{} tasks, {before} before", tasks());
    drop(clients);
    let until = Instant::now() + Duration::from_secs(10);
    while tasks() > before {
        assert!(Instant::now() < until, "{} tasks, {before} before", tasks());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
