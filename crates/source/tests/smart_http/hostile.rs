//! Clients that are broken, gone or malicious.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::support::{Client, Host, NONE, line};

/// Writes a tree with one entry of any name; returns a commit of it.
async fn commit_with_entry(client: &Client, mode: &str, name: &[u8], object: &str) -> String {
    let bytes: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&object[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let tree = [mode.as_bytes(), b" ", name, b"\0", &bytes].concat();
    let args = ["hash-object", "-t", "tree", "-w", "--stdin", "--literally"];
    let tree = String::from_utf8(client.with_input(&args, &tree).await).unwrap();
    client.git(&["commit-tree", "-m", "x", tree.trim()]).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a push has left in a repository that had nothing.
fn leftovers(host: &Host) -> Vec<String> {
    let objects = host.git_dir().join("objects");
    let mut found = Vec::new();
    for dir in [objects.clone(), objects.join("pack")] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name != "pack" && name != "info" {
                found.push(name);
            }
        }
    }
    found
}

async fn nothing_left(host: &Host) {
    for _ in 0..200 {
        if leftovers(host).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{:?}", leftovers(host));
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_trees_are_refused() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let tree = client.git(&["rev-parse", "HEAD^{tree}"]).await;
    let blob = client.git(&["rev-parse", "HEAD:file"]).await;
    let names: [&[u8]; 8] =
        [b".git", b".GIT", b".gIt", b"git~1", b".g\xe2\x80\x8cit", b".git ", b"..", b"a\\.git\\config"];
    for name in names {
        let commit = commit_with_entry(&client, "40000", name, &tree).await;
        let said = client.refused(&["push", "origin", &format!("{commit}:refs/heads/bad")]).await;
        assert!(said.contains("bad") || said.contains("fsck"), "{}: {said}", text(name));
    }
    for (mode, name) in [("120000", &b".gitmodules"[..]), ("100644", b"a/b"), ("100644", b"")] {
        let commit = commit_with_entry(&client, mode, name, &blob).await;
        client.refused(&["push", "origin", &format!("{commit}:refs/heads/bad")]).await;
    }
    assert!(host.seen().is_empty());
    assert_eq!(host.at("refs/heads/bad").await, None);
    nothing_left(&host).await;
    // Modes as old versions of git wrote them are harmless, and cannot be changed any more.
    let old = commit_with_entry(&client, "040000", b"dir", &tree).await;
    client.git(&["push", "-q", "origin", &format!("{old}:refs/heads/old")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pushes_are_told_why() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    let pack = client.pack(&commit).await;
    let side = "report-status side-band-64k";
    let long = format!("refs/heads/{}end", "x/".repeat(600));
    let bodies: [(Vec<u8>, &str); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a git push"),
        (b"0003".to_vec(), "not a git push"),
        ([line("push-cert\0report-status"), b"0000".to_vec()].concat(), "signed pushes"),
        ([line(&format!("{NONE} {commit} refs/heads/a")), b"0000".to_vec(), pack.clone()].concat(), "report-status"),
        ([line(&format!("{NONE} {commit} {long}\0{side}")), b"0000".to_vec(), pack.clone()].concat(), "1024 bytes"),
        ([line(&format!("nonsense\0{side}")), b"0000".to_vec()].concat(), "without a report"),
        (line(&format!("{NONE} {commit} refs/heads/{}\0{side}", "x".repeat(900))).repeat(20_000), "of ref names"),
    ];
    for (body, why) in bodies {
        let answer = text(&host.post("git-receive-pack", None, body).await);
        assert!(answer.contains(why) && answer.ends_with("0000"), "{why}: {answer:?}");
    }
    let many: Vec<u8> = line(&"o".repeat(60_000)).repeat(40);
    let head = line(&format!("{NONE} {commit} refs/heads/a\0{side} push-options"));
    let answer = text(&host.post("git-receive-pack", None, [head, b"0000".to_vec(), many].concat()).await);
    assert!(answer.contains("push options"), "{answer:?}");
    // A name that git has no room for is refused by git, and the rest of the push goes on.
    let huge = format!("refs/heads/{}", "x".repeat(900));
    let both = [
        line(&format!("{NONE} {commit} {huge}\0report-status")),
        line(&format!("{NONE} {commit} refs/heads/fine")),
        b"0000".to_vec(),
        pack,
    ];
    let answer = text(&host.post("git-receive-pack", None, both.concat()).await);
    assert!(answer.contains(&format!("ng {huge}")) && answer.contains("ok refs/heads/fine"), "{answer}");
    assert_eq!(host.seen(), [[format!("refs/heads/fine:{commit}")]]);
    assert!(text(&host.post("git-upload-pack", None, b"nonsense".to_vec()).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ref_twice_counts_once() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    let pack = client.pack(&commit).await;
    let first = line(&format!("{NONE} {commit} refs/heads/a\0report-status"));
    let again = line(&format!("{NONE} {commit} refs/heads/a"));
    let answer = text(&host.post("git-receive-pack", None, [first, again, b"0000".to_vec(), pack].concat()).await);
    let moved = answer.matches("ok refs/heads/a").count();
    assert_eq!(host.seen().concat().len(), moved, "{answer}");
}

/// Sends the head and `body` of a push whose length is said to be `length`, and hangs up.
async fn hang_up(host: &Host, body: &[u8], length: usize, linger: Duration) {
    let mut stream = tokio::net::TcpStream::connect(host.address).await.unwrap();
    let head = format!("POST /r/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    tokio::time::sleep(linger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let noise: Vec<u8> = (0..400_000_u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    let commit = client.commit("noise", &noise).await;
    let pack = client.pack(&commit).await;
    let head = line(&format!("{NONE} {commit} refs/heads/main\0report-status side-band-64k"));
    let body = [head, b"0000".to_vec(), pack].concat();
    for part in [10, 60, 150, 5_000, body.len() / 2, body.len() - 1] {
        hang_up(&host, &body[..part], body.len(), Duration::from_millis(100)).await;
        nothing_left(&host).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(host.seen().is_empty());
    assert_eq!(host.at("refs/heads/main").await, None);
    // All of the pack has come, but not the end of the body: git takes it, so it counts.
    hang_up(&host, &body, body.len() + 1, Duration::from_millis(300)).await;
    assert_eq!(host.seen_soon().await, [[format!("refs/heads/main:{commit}")]]);
    // The whole push, and gone before the answer.
    let delete = [line(&format!("{commit} {NONE} refs/heads/main\0report-status")), b"0000".to_vec()].concat();
    hang_up(&host, &delete, delete.len(), Duration::ZERO).await;
    assert_eq!(host.seen_soon().await, [["refs/heads/main:-"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_dies_with_its_client() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let mut noise = vec![0; 30 << 20];
    let mut seed = 1_u64;
    noise.chunks_mut(8).for_each(|chunk| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(seed ^ (seed >> 31)).to_le_bytes());
    });
    client.commit("noise", &noise).await;
    client.git(&["push", "-q", "origin", "main"]).await;
    let copy = host.client("copy");
    let mut command = crate::support::command(&copy.dir, &["clone", "-q", &host.url, "."]);
    let mut clone = command.stderr(Stdio::null()).spawn().unwrap();
    let dir = host.git_dir().canonicalize().unwrap();
    let serving = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|it| std::fs::read_link(it.path().join("cwd")).is_ok_and(|cwd| cwd == dir)).count()
    };
    let mut seen = false;
    for _ in 0..2000 {
        seen = serving() > 0;
        if seen {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(seen, "git serves");
    // Its helper holds the connection, and goes when its pipe does.
    clone.kill().unwrap();
    clone.wait().unwrap();
    for _ in 0..200 {
        if serving() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("git still serves a client that is gone");
}
