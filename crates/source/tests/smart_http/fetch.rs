//! Fetches of honest clients.

use model::{DeliveryId, SnapshotRef};

use crate::support::Host;

#[tokio::test(flavor = "multi_thread")]
async fn shallow_partial_and_incremental() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    for number in 0..5 {
        client.commit("file", format!("content {number}").as_bytes()).await;
    }
    client.git(&["push", "-q", "origin", "main"]).await;
    for version in ["0", "1", "2"] {
        let option = format!("protocol.version={version}");
        let shallow = host.client(&format!("shallow{version}"));
        shallow.git(&["-c", &option, "clone", "-q", "--depth=1", &host.url, "."]).await;
        assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await, "1");
        shallow.git(&["-c", &option, "fetch", "-q", "--deepen=2"]).await;
        assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await, "3");
        shallow.git(&["-c", &option, "fetch", "-q", "--unshallow"]).await;
        assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await, "6");

        let partial = host.client(&format!("partial{version}"));
        partial.git(&["-c", &option, "clone", "-q", "--filter=blob:none", "--no-checkout", &host.url, "."]).await;
        let missing = partial.git(&["rev-list", "--objects", "--all", "--missing=print"]).await;
        assert!(missing.contains('?'), "no blob has come");
        assert_eq!(partial.git(&["-c", &option, "show", "HEAD~2:file"]).await, "content 2");
    }
    // A shallow client can push.
    let shallow = host.client("shallow");
    shallow.git(&["clone", "-q", "--depth=1", &host.url, "."]).await;
    let commit = shallow.commit("file", b"from afar").await;
    shallow.git(&["push", "-q", "origin", "HEAD:main"]).await;
    client.git(&["fetch", "-q", "origin"]).await;
    assert_eq!(client.git(&["rev-parse", "origin/main"]).await, commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_read_only_to_clients() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    client.git(&["push", "-q", "origin", "main"]).await;
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    let snapshot = SnapshotRef::of(DeliveryId(7));
    host.hosting.pin(host.repo.id, &snapshot, &commit.parse().unwrap()).await.unwrap();
    host.seen();
    client.commit("file", b"two").await;
    for spec in
        [format!("+main:{snapshot}"), format!(":{snapshot}"), "main:refs/towpath/x".into(), "main:refs/towpath".into()]
    {
        let text = client.refused(&["push", "origin", &spec]).await;
        assert!(text.contains("rejected") || text.contains("does not exist") || text.contains("error"), "{text}");
        assert!(host.seen().is_empty());
    }
    // Past a client's own checks as well.
    let push = |old: &str, new: &str, name: &str| {
        let command = format!("{old} {new} {name}\0report-status");
        [crate::support::line(&command), b"0000".to_vec()].concat()
    };
    let answer = host.post("git-receive-pack", None, push(&commit, crate::support::NONE, snapshot.as_str())).await;
    assert!(
        String::from_utf8_lossy(&answer).contains(&format!("ng {snapshot} ")),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(host.seen().is_empty());
    assert_eq!(host.at(snapshot.as_str()).await.as_deref(), Some(&*commit));
    for version in ["0", "2"] {
        let copy = host.client(&format!("copy{version}"));
        copy.git(&["init", "-q", "."]).await;
        copy.git(&["-c", &format!("protocol.version={version}"), "fetch", "-q", &host.url, snapshot.as_str()]).await;
        assert_eq!(copy.git(&["rev-parse", "FETCH_HEAD"]).await, commit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_are_gzipped() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    client.commit("file", b"only here").await;
    client.git(&["push", "-q", "origin", "main"]).await;
    // Many haves make a request that git compresses.
    let other = host.with_commit("other").await;
    for number in 0..120 {
        other.git(&["commit", "-q", "--allow-empty", "-m", &number.to_string()]).await;
    }
    other.git(&["-c", "protocol.version=0", "fetch", "-q", "origin"]).await;
    assert!(host.gzipped.load(std::sync::atomic::Ordering::Relaxed) > 0);
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    assert_eq!(other.git(&["rev-parse", "origin/main"]).await, commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_files() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let mut stream = b"commit refs/heads/many\ncommitter A <a@example.org> 0 +0000\ndata 1\nx\n".to_vec();
    for number in 0..50_000 {
        let content = format!("file {number}");
        let path = format!("d{}/f{number}", number / 500);
        stream.extend(format!("M 644 inline {path}\ndata {}\n{content}\n", content.len()).into_bytes());
    }
    client.with_input(&["fast-import", "--quiet"], &stream).await;
    client.git(&["push", "-q", "origin", "many"]).await;
    let copy = host.client("copy");
    copy.git(&["clone", "-q", "--bare", &host.url, "."]).await;
    assert_eq!(copy.git(&["ls-tree", "-r", "--name-only", "many"]).await.lines().count(), 50_000);
}
