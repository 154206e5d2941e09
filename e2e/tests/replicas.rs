//! Several servers serve one registry over one PostgreSQL and one S3 bucket.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../../crates/store/tests/support/bucket.rs"]
mod bucket;
#[path = "registry/go.rs"]
mod go;
#[path = "registry/official.rs"]
mod official;
#[path = "../../crates/store/tests/support/postgresql.rs"]
mod postgresql;
#[path = "replicas/town.rs"]
mod town;

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{finish, installed};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use town::{Town, ask};

fn done(command: &mut Command) -> String {
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{command:?}: {}{}", finished.stdout, finished.stderr);
    finished.stdout.trim().to_owned()
}

/// Bytes that do not repeat.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[test]
fn clients_push_to_two_in_turn_and_the_survivor_has_everything() {
    if e2e::busybox().is_none() || !installed("skopeo") {
        return;
    }
    let Some(mut town) = Town::start() else { return };
    if !town.proxied() {
        return;
    }
    let proxy = town.proxy.clone();
    e2e::push_base("demo/base", "1", |method, path, kind, bytes| {
        town.ask(&proxy, method, path, kind, bytes).status().as_u16()
    });
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command.env("TMPDIR", town.path("")).args(arguments);
        command
    };
    let creds = format!("admin:{}", town.token);
    let layout = format!("oci:{}", town.path("layout").display());
    let base = format!("docker://{proxy}/demo/base:1");
    done(&mut skopeo(&["copy", "--src-tls-verify=false", "--src-creds", &creds, &base, &layout]));
    let mut images = vec!["demo/base:1".to_owned()];
    for round in 0..4 {
        let copy = format!("demo/skopeo{round}:1");
        let to = format!("docker://{proxy}/{copy}");
        done(&mut skopeo(&["copy", "--dest-tls-verify=false", "--dest-creds", &creds, &layout, &to]));
        images.push(copy);
    }
    if let Some(program) = go::crane() {
        let crane = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.env("DOCKER_CONFIG", town.path("crane")).args(arguments).arg("--insecure");
            command
        };
        done(&mut crane(&["auth", "login", &proxy, "-u", "admin", "-p", &town.token]));
        let image = town.path("image.tar").display().to_string();
        done(&mut crane(&["pull", &format!("{proxy}/demo/base:1"), &image]));
        done(&mut crane(&["push", &image, &format!("{proxy}/demo/crane:1")]));
        done(&mut crane(&["copy", &format!("{proxy}/demo/base:1"), &format!("{proxy}/demo/copied:1")]));
        images.extend(["demo/crane:1".to_owned(), "demo/copied:1".to_owned()]);
    }
    assert_eq!(town.staged(), 0, "finished uploads leave nothing");
    let digests: Vec<String> = images
        .iter()
        .map(|image| {
            let (name, tag) = image.split_once(':').unwrap();
            let found = [0, 1].map(|number| town.digest(&town.replicas[number].host, name, tag));
            assert_eq!(found[0], found[1]);
            found[0].clone()
        })
        .collect();
    town.lose(0);
    let survivor = town.replicas[1].host.clone();
    for (number, (image, wanted)) in images.iter().zip(&digests).enumerate() {
        let from = format!("docker://{survivor}/{image}");
        let to = format!("dir:{}", town.path(format!("back{number}")).display());
        let mut command = Command::new("skopeo");
        command.env("TMPDIR", town.path("")).args(["copy", "--preserve-digests", "--src-tls-verify=false"]);
        done(command.args(["--src-creds", &creds, &from, &to]));
        let manifest = std::fs::read(town.path(format!("back{number}")).join("manifest.json")).unwrap();
        assert_eq!(digest(&manifest), *wanted, "{image}");
    }
    println!("{} images pushed through both came back from one", images.len());
}

#[test]
fn a_server_killed_in_an_upload_loses_nothing_acknowledged() {
    let Some(mut town) = Town::start() else { return };
    let mut lost_halves = 0;
    for round in 0..6_usize {
        let (dying, other) = (round % 2, (round + 1) % 2);
        let bytes = content(9 << 20, round as u64 + 11);
        let begun = town.send(dying, "POST", "/v2/demo/site/blobs/uploads/", b"");
        assert_eq!(begun.status(), 202);
        let at = begun.headers()["location"].to_str().unwrap().to_owned();
        // Parts in turn, all acknowledged; some larger than what goes to S3 in one request.
        let mut acknowledged = 0;
        for (number, length) in [(dying, 1 << 20), (other, 700_001), (dying, 100_000 * round)] {
            let part = &bytes[acknowledged..acknowledged + length];
            let answer = town.send(number, "PATCH", &at, part);
            assert_eq!(answer.status(), 202);
            acknowledged += length;
        }
        // Then one that does not come to its end: half of it has come, or all but the answer.
        let part = &bytes[acknowledged..acknowledged + (4 << 20)];
        let sent = if round % 3 == 0 { part.len() } else { part.len() / 2 };
        let socket = town.begin_part(dying, &at, part.len(), &part[..sent]);
        std::thread::sleep(Duration::from_millis(20 * round as u64));
        town.lose(dying);
        drop(socket);
        let status = town.send(other, "GET", &at, b"");
        assert_eq!(status.status(), 204);
        let range = status.headers()["range"].to_str().unwrap().to_owned();
        let offset = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
        assert!(
            offset == acknowledged || (sent == part.len() && offset == acknowledged + part.len()),
            "round {round}: {acknowledged} bytes were acknowledged, {offset} are there"
        );
        lost_halves += usize::from(offset == acknowledged);
        assert_eq!(town.send(other, "PATCH", &at, &bytes[offset..8 << 20]).status(), 202);
        town.replace(dying);
        let end = format!("{at}?digest={}", digest(&bytes));
        assert_eq!(town.send(dying, "PUT", &end, &bytes[8 << 20..]).status(), 201, "round {round}");
        let blob = format!("/v2/demo/site/blobs/{}", digest(&bytes));
        for number in [0, 1] {
            let mut answer = town.send(number, "GET", &blob, b"");
            assert!(answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap() == bytes, "round {round}");
        }
        assert_eq!(town.send(other, "GET", &at, b"").status(), 404);
    }
    println!(
        "6 uploads, 6 servers killed with their disks, {lost_halves} parts without an answer sent again, 0 bytes lost"
    );
}

#[test]
fn tokens_of_one_open_the_other_until_they_are_revoked() {
    let Some(town) = Town::start() else { return };
    let api = |number: usize, method: &str, path: &str, body: &Value| {
        let host = &town.replicas[number].host;
        let path = format!("/towpath/v1{path}");
        let mut answer = town.ask(host, method, &path, "application/json", body.to_string().as_bytes());
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        serde_json::from_str::<Value>(&answer.body_mut().read_to_string().unwrap()).unwrap_or_default()
    };
    api(0, "POST", "/users", &json!({"name": "ada"}));
    let made = api(0, "POST", "/users/ada/tokens", &json!({"name": "laptop"}));
    let (token, id) = (made["token"].as_str().unwrap(), &made["id"]);
    let bearer = format!("Bearer {token}");
    let push = |number: usize, bytes: &[u8]| {
        let path = format!("/v2/ada/site/blobs/uploads/?digest={}", digest(bytes));
        let kind = "application/octet-stream";
        ask(&town.replicas[number].host, &bearer, "POST", &path, kind, bytes).status().as_u16()
    };
    for number in 0..20 {
        assert_eq!(push(number % 2, &content(1000, number as u64)), 201);
    }
    api(0, "DELETE", &format!("/users/ada/tokens/{id}"), &Value::Null);
    assert_eq!(push(1, b"too late"), 401, "the other, at the next request");
    assert_eq!(push(0, b"too late"), 401);
}

#[test]
fn who_does_not_fit_is_refused_in_one_line() {
    let Some(mut town) = Town::start() else { return };
    let head = "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  listeners: [{address: '127.0.0.1:0'}]\n  \
                records: {postgres: 'env:TOWPATH_TEST_RECORDS'}\n";
    let bucket = town.config(
        "  blobs: {s3: {endpoint: '$S3', bucket: $BUCKET, prefix: $PREFIX, accessKey: 'env:TOWPATH_TEST_ACCESS', \
         secretKey: 'env:TOWPATH_TEST_SECRET', pathStyle: true}}\n",
    );
    let elsewhere = bucket.replace("towpath/blobs", "towpath/others");
    let refused = |town: &Town, name: &str, rest: &str, says: &str| {
        let file = town.path(format!("{name}.yaml"));
        std::fs::write(&file, format!("{head}{rest}")).unwrap();
        let mut command = town.command();
        command.arg("up").arg("--config").arg(&file).arg("--data").arg(town.path(format!("of-{name}")));
        let started = Instant::now();
        let finished = finish(&mut command);
        assert_eq!(finished.code, Some(1), "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{name}: {}", finished.stderr);
        assert!(started.elapsed() < Duration::from_secs(30), "{name}");
    };
    // Its blobs, repositories and jobs would be its own.
    refused(&town, "files", "  registry: {}\n", "another server has them");
    refused(&town, "pipeline", "  actions: {}\n", "another server has them");
    refused(&town, "elsewhere", &format!("  registry: {{}}\n{elsewhere}"), "another server has them");
    refused(&town, "builder", &format!("  registry: {{}}\n  actions: {{}}\n{bucket}"), "the builder cannot be opened");
    // The two go on, and one may come in the place of another at once.
    town.lose(0);
    town.replace(0);
    assert_eq!(town.send(0, "GET", "/v2/", b"").status(), 200);
}

#[test]
fn the_official_suites_pass_with_two_in_turn() {
    let programs = official::programs();
    if programs.is_empty() {
        return;
    }
    let Some(mut town) = Town::start() else { return };
    if town.proxied() {
        official::run(&programs, &town.proxy, Some(&town.token), &town.path(""));
    }
}
