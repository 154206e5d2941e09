//! What stands in the log about each request.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::world::{World, answer};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The line about the request with this id; it is written when its answer was sent.
    async fn of(&self, id: &str) -> String {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if let Some(line) = text.lines().find(|line| line.contains(&format!("id={id} "))) {
                return line.to_owned();
            }
            assert!(Instant::now() < until, "no line about {id}: {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_has_a_line_without_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let filter = tracing_subscriber::EnvFilter::new("server::access=info");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || writer.clone());
    log.init();
    let world = World::start().await;
    let path = "/users?token=hunter2";
    let users = world.api("GET", path, Some(&world.rae), None).await;
    let line = lines.of(users.header("x-request-id")).await;
    assert!(line.contains("INFO") && line.contains("server::access"), "{line}");
    let sent = format!("sent={} ", users.text.len());
    let fixed = ["method=GET", "path=\"/towpath/v1/users\"", "route=\"api\"", "status=200", "who=\"rae\""];
    for part in fixed.into_iter().chain(["received=0 ", &sent, "micros=", "client=127.0.0.1", "agent=\"-\""]) {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("hunter2") && !line.contains("twp_"), "{line}");

    let tags =
        world.request("GET", "/v2/works/engine/tags/list", Some(&world.rae)).header("user-agent", "a".repeat(99));
    let line = lines.of(answer(tags).await.header("x-request-id")).await;
    assert!(line.contains("route=\"tags\"") && line.contains("who=\"rae\""), "the registry says who asked: {line}");
    assert!(line.contains(&format!("agent=\"{}\"", "a".repeat(80))), "{line}");

    let refused = world.api("GET", "/users", None, None).await;
    let line = lines.of(refused.header("x-request-id")).await;
    assert!(line.contains("status=401") && line.contains("who=\"anonymous\""), "{line}");
    let misdirected = answer(world.request("GET", "/livez", None).header("host", "evil.example")).await;
    let line = lines.of(misdirected.header("x-request-id")).await;
    assert!(line.contains("status=421") && line.contains("who=\"-\""), "{line}");
    let chosen = world.request("GET", "/livez", None).header("x-request-id", "chosen");
    assert_ne!(answer(chosen).await.header("x-request-id"), "chosen");
}
