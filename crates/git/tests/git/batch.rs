use git::GitError;
use tokio::io::AsyncReadExt;

use crate::fixture::Fixture;

#[tokio::test]
async fn reads_one_after_the_other() {
    let fixture = Fixture::new().await;
    let empty = fixture.blob(b"").await;
    let text = fixture.blob(b"line\nline\n").await;
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let large_id = fixture.blob(&large).await;
    let commit = fixture.commit(None, &[("a", "1")], "x").await;
    let mut blobs = fixture.repository.blobs().await.unwrap();
    for _ in 0..2 {
        assert_eq!(blobs.bytes(&text, 10).await.unwrap(), b"line\nline\n");
        assert_eq!(blobs.bytes(&empty, 0).await.unwrap(), b"");
        assert_eq!(blobs.bytes(&large_id, 3_000_000).await.unwrap(), large);
        // What is not read is skipped.
        let mut blob = blobs.read(&large_id).await.unwrap();
        assert_eq!(blob.size(), 3_000_000);
        let mut start = [0; 100];
        blob.read_exact(&mut start).await.unwrap();
        assert_eq!(start[..], large[..100]);
        assert!(matches!(blobs.bytes(&text, 9).await, Err(GitError::TooLarge { .. })));
        assert!(matches!(blobs.read(commit.as_str()).await, Err(GitError::WrongKind { found: "a commit", .. })));
        assert!(matches!(blobs.read(&"1".repeat(40)).await, Err(GitError::NoObject { .. })));
        for bad in ["", "HEAD", "main:a", "\n", &text[..39], &format!("{text}\n"), &"a".repeat(64)] {
            assert!(matches!(blobs.read(bad).await, Err(GitError::NoObject { .. })), "{bad:?}");
        }
    }
}

#[tokio::test]
async fn a_damaged_object_is_an_error() {
    let fixture = Fixture::new().await;
    let id = fixture.blob(b"something").await;
    let file = fixture.repository.dir().join("objects").join(&id[..2]).join(&id[2..]);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"garbage").unwrap();
    let mut blobs = fixture.repository.blobs().await.unwrap();
    let error = blobs.bytes(&id, 99).await.unwrap_err();
    assert!(matches!(error, GitError::Failed { .. } | GitError::NoObject { .. }), "{error}");
}
