use std::time::{Duration, Instant, SystemTime};

use git::Expected;

use crate::fixture::{Fixture, ref_name};

/// Git counts how often it waits for the disk.
#[tokio::test]
async fn git_waits_for_the_disk() {
    let fixture = Fixture::new().await;
    let commit = fixture.commit(None, &[("a", "1")], "x").await;
    let trace = fixture.beside("trace");
    let id = commit.to_string();
    for args in [vec!["hash-object", "-w", "-t", "blob", "HEAD"], vec!["update-ref", "refs/heads/x", &id]] {
        let mut command = fixture.repository.command();
        let output = command.args(&args).env("GIT_TRACE2_EVENT", &trace).output().await.unwrap();
        assert!(output.status.success(), "{args:?}");
        let text = std::fs::read_to_string(&trace).unwrap();
        std::fs::remove_file(&trace).unwrap();
        let counted = text.lines().find(|line| line.contains("hardware-flush")).unwrap_or_default();
        assert!(!counted.is_empty() && !counted.contains("\"value\":\"0\""), "{args:?}: {counted}");
    }
}

#[tokio::test]
async fn a_killed_process_blocks_nothing_after_recovery() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let commit = fixture.commit(None, &[("a", "1")], "x").await;
    let main = ref_name("refs/heads/deep/main");
    repository.update_ref(&main, &commit, Expected::Absent).await.unwrap();
    let dir = repository.dir();
    let old = SystemTime::now() - Duration::from_secs(60);
    let left = [
        "refs/heads/deep/main.lock",
        "packed-refs.lock",
        "HEAD.lock",
        "objects/pack/tmp_pack_abc",
        "objects/tmp_objdir-incoming-x/pack/y",
        ".towpath-scratch-1-2/index.lock",
    ];
    for path in left {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::File::create(&file).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(repository.recover().await.unwrap(), left.len());
    assert!(!left.iter().any(|path| dir.join(path).exists()));
    let next = fixture.commit(Some(&commit), &[("a", "2")], "x").await;
    repository.update_ref(&main, &next, Expected::At(commit)).await.unwrap();
    repository.delete_ref(&main, Expected::At(next)).await.unwrap();
    assert_eq!(repository.recover().await.unwrap(), 0);
}

#[tokio::test]
async fn a_fresh_lock_is_waited_for() {
    let fixture = Fixture::new().await;
    let lock = fixture.repository.dir().join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let (began, removed) = (Instant::now(), lock.clone());
    let owner = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(300));
        std::fs::remove_file(removed).unwrap();
    });
    assert_eq!(fixture.repository.recover().await.unwrap(), 0, "its owner removed it");
    assert!(began.elapsed() >= Duration::from_millis(200));
    owner.await.unwrap();
    std::fs::write(&lock, "").unwrap();
    assert_eq!(fixture.repository.recover().await.unwrap(), 1, "its owner is dead");
}

#[tokio::test]
async fn everything_is_brought_onto_the_disk() {
    let fixture = Fixture::new().await;
    let commit = fixture.commit(None, &[("a", "1")], "x").await;
    let gone = ref_name("refs/heads/no/such");
    let main = ref_name("refs/heads/main");
    fixture.repository.update_ref(&main, &commit, Expected::Absent).await.unwrap();
    fixture.repository.sync(&[gone, main]).await.unwrap();
    std::fs::remove_dir_all(fixture.repository.dir()).unwrap();
    let error = fixture.repository.sync(&[]).await.unwrap_err();
    assert!(error.to_string().contains("objects"), "{error}");
}

#[tokio::test]
async fn maintenance_loses_nothing() {
    let fixture = Fixture::new().await;
    let repository = &fixture.repository;
    let mut last = None;
    let mut all = Vec::new();
    for n in 0..10 {
        let commit = fixture.commit(last.as_ref(), &[("a", &n.to_string())], "x").await;
        let name = ref_name(&format!("refs/towpath/snapshots/{n}"));
        repository.update_ref(&name, &commit, Expected::Absent).await.unwrap();
        last = Some(commit.clone());
        all.push((name, commit));
    }
    let unseen = fixture.commit(None, &[("no ref", "leads here")], "x").await;
    let mut batch = repository.blobs().await.unwrap();
    repository.maintain().await.unwrap();
    repository.maintain().await.unwrap();
    assert_eq!(repository.refs("").await.unwrap(), all);
    assert!(repository.has_commit(&unseen).await.unwrap());
    let blob = repository.tree(&unseen, "").await.unwrap().remove(0).object;
    assert_eq!(batch.bytes(&blob, 99).await.unwrap(), b"leads here", "also to who was reading before");
    let loose = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().len() == 2;
    assert!(!std::fs::read_dir(repository.dir().join("objects")).unwrap().any(loose), "all objects are packed");
    assert!(!repository.dir().join("refs/towpath/snapshots/1").exists(), "all refs are packed");
    assert_eq!(fixture.git(&["fsck", "--strict", "--no-dangling"], b"").await, "");
}
