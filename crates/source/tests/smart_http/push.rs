//! Pushes of honest clients.

use crate::support::{Host, NONE, line};

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_pushes_and_clones() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    for version in ["0", "1", "2"] {
        let option = format!("protocol.version={version}");
        let commit = client.commit("file", version.as_bytes()).await;
        let output = client.run(&["-c", &option, "push", "origin", "main"]).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("remote: towpath: 1 refs") && text.contains("remote: towpath: run 7"), "{text}");
        assert_eq!(host.seen(), [[format!("refs/heads/main:{commit}")]]);
        let copy = host.client(&format!("copy{version}"));
        copy.git(&["-c", &option, "clone", "-q", &host.url, "."]).await;
        assert_eq!(copy.git(&["rev-parse", "HEAD"]).await, commit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_and_deletions() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    let mut wanted = Vec::new();
    for number in 0..20 {
        client.git(&["branch", &format!("b{number}")]).await;
        wanted.push(format!("refs/heads/b{number}:{commit}"));
    }
    wanted.push(format!("refs/heads/main:{commit}"));
    wanted.sort();
    client.git(&["push", "-q", "--all", "origin"]).await;
    assert_eq!(host.seen(), [wanted]);

    let odd = "refs/heads/--exec=touch;x";
    client.git(&["push", "-q", "origin", &format!("main:{odd}")]).await;
    assert_eq!(host.seen(), [[format!("{odd}:{commit}")]], "a name is a name");

    // An annotated tag stands for its commit; a tag of a tree leads to none.
    client.git(&["tag", "-a", "-m", "x", "v1"]).await;
    client.git(&["tag", "light"]).await;
    client.git(&["tag", "tree", "HEAD^{tree}"]).await;
    client.git(&["push", "-q", "origin", "v1", "light", "tree", ":b3"]).await;
    let wanted = ["refs/heads/b3:-".to_owned(), format!("refs/tags/light:{commit}"), format!("refs/tags/v1:{commit}")];
    assert_eq!(host.seen(), [wanted]);
    client.git(&["push", "-q", "origin", ":main", ":v1", ":tree"]).await;
    assert_eq!(host.seen(), [["refs/heads/main:-", "refs/tags/tree:-", "refs/tags/v1:-"]]);
    assert_eq!(host.at("refs/heads/main").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_is_not_seen() {
    let host = Host::start().await;
    let one = host.with_commit("one").await;
    one.git(&["push", "-q", "origin", "main"]).await;
    let two = host.with_commit("two").await;
    // Not the same first commit, as it would be in the same second.
    two.git(&["commit", "-q", "--amend", "-m", "another"]).await;
    let other = two.commit("file", b"other").await;
    host.seen();
    assert!(two.refused(&["push", "origin", "main"]).await.contains("rejected"));
    assert!(host.seen().is_empty());
    two.git(&["branch", "new"]).await;
    let stale = format!("--force-with-lease=main:{other}");
    two.refused(&["push", "--atomic", &stale, "origin", "main", "new"]).await;
    assert!(host.seen().is_empty());
    assert_eq!(host.at("refs/heads/new").await, None);
    // One of two, decided by the server: refs/heads/main cannot be a directory.
    two.refused(&["push", "origin", "main:refs/heads/main/x", "new"]).await;
    assert_eq!(host.seen(), [[format!("refs/heads/new:{other}")]]);
    two.refused(&["push", "--atomic", "origin", "main:refs/heads/main/x", "main:refs/heads/atomic"]).await;
    assert!(host.seen().is_empty());
    two.git(&["push", "-q", "--force", "origin", "main"]).await;
    assert_eq!(host.seen(), [[format!("refs/heads/main:{other}")]]);
    two.git(&["push", "-q", "-o", "ci.skip", "-o", "two", "origin", "main:opts"]).await;
    assert_eq!(host.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pushes_all_arrive() {
    let host = Host::start().await;
    let first = host.with_commit("first").await;
    first.git(&["push", "-q", "origin", "main"]).await;
    host.seen();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let client = host.client(&format!("c{number}"));
        tasks.spawn(async move {
            client.git(&["clone", "-q", &client.url, "."]).await;
            let commit = client.commit(&format!("f{number}"), b"x").await;
            client.git(&["push", "-q", "origin", &format!("HEAD:refs/heads/c{number}")]).await;
            let race = client.run(&["push", "-q", "origin", "HEAD:refs/heads/race"]).await.status.success();
            (number, commit, race)
        });
    }
    let done = tasks.join_all().await;
    let mut wanted: Vec<_> = done.iter().map(|(n, commit, _)| vec![format!("refs/heads/c{n}:{commit}")]).collect();
    let won: Vec<_> = done.iter().filter(|(_, _, won)| *won).collect();
    assert_eq!(won.len(), 1, "one makes the branch, the others do not overwrite it");
    wanted.push(vec![format!("refs/heads/race:{}", won[0].1)]);
    wanted.sort();
    let mut seen = host.seen();
    seen.sort();
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_are_packed_together() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    for number in 0..45 {
        client.commit("file", format!("{number}").as_bytes()).await;
        client.git(&["push", "-q", "origin", "main"]).await;
    }
    let packs = || {
        let files = std::fs::read_dir(host.git_dir().join("objects/pack")).unwrap();
        files.filter(|it| it.as_ref().unwrap().path().extension() == Some("pack".as_ref())).count()
    };
    for _ in 0..200 {
        if packs() < 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(packs() < 20, "{}", packs());
    host.client("copy").git(&["clone", "-q", &host.url, "."]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_side_bands_get_the_report_alone() {
    let host = Host::start().await;
    let client = host.with_commit("client").await;
    let commit = client.git(&["rev-parse", "HEAD"]).await;
    let pack = client.pack(&commit).await;
    for (name, encoding, capabilities) in [
        ("plain", None, "report-status"),
        ("old", None, "report-status side-band"),
        ("zip", Some("gzip"), "report-status"),
    ] {
        let command = format!("{NONE} {} refs/heads/{name}\0{capabilities}", commit.to_uppercase());
        let mut body = [line(&command), b"0000".to_vec(), pack.clone()].concat();
        if encoding.is_some() {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut encoder, &body).unwrap();
            body = encoder.finish().unwrap();
        }
        let answer = host.post("git-receive-pack", encoding, body).await;
        let wanted = [line("unpack ok\n"), line(&format!("ok refs/heads/{name}\n")), b"0000".to_vec()].concat();
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(&wanted));
        assert_eq!(host.seen(), [[format!("refs/heads/{name}:{commit}")]]);
    }
    assert!(host.post("git-receive-pack", None, b"0000".to_vec()).await.is_empty(), "how git tries its password");
}
