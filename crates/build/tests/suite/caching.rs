use std::time::Duration;

use build::{BuildRequest, Context};

use crate::fixture::{EPOCH, Fixture};

const DOCKERFILE: &str = "FROM busybox AS make\nCOPY lib /lib2\nRUN echo compiled > /compiled\nCOPY page /page\nRUN cat /page/* /compiled > /out\n\
    FROM busybox\nCOPY --from=make /out /www/\nCMD [\"sh\"]\n";

fn files<'a>(page: &'a str, readme: &'a str) -> [(&'a str, &'a str); 4] {
    [("Dockerfile", DOCKERFILE), ("lib/a", "lib"), ("page/index.html", page), ("README.md", readme)]
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_steps_are_not_executed_again() {
    let Some(mut fixture) = Fixture::with_busybox().await else { return };
    let first = fixture.built(&files("one\n", "1")).await.image;
    assert_eq!((first.steps.executed, first.steps.cached), (3, 0));
    let again = fixture.built(&files("one\n", "changed")).await;
    assert_eq!(again.image.digest, first.digest);
    assert_eq!((again.image.steps.executed, again.image.steps.cached), (0, 1));
    assert!(again.said("cached: COPY --from=make /out /www/"));
    drop(again);
    fixture.restarted();
    assert_eq!(fixture.built(&files("one\n", "1")).await.image.steps.executed, 0, "the cache outlives the process");

    let edited = fixture.built(&files("two\n", "1")).await;
    assert_eq!(edited.text("/www/out").as_deref(), Some("two\ncompiled\n"));
    assert!(!edited.said("RUN echo compiled"), "only what comes after the change: {:?}", edited.log);
    assert!(edited.said("RUN cat /page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commit_gives_the_same_digest_from_nothing() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let Some(fixture) = Fixture::with_busybox().await else { return };
        digests.push(fixture.built(&files("one\n", "1")).await.image.digest);
        let mut request = fixture.request(&files("one\n", "1")).await;
        request.no_cache = true;
        let again = fixture.build(&request).await.unwrap();
        assert_eq!(again.image.steps.cached, 0);
        digests.push(again.image.digest);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_made_again() {
    let Some(mut fixture) = Fixture::with_busybox().await else { return };
    let first = fixture.built(&files("one\n", "1")).await.image;
    // The blob goes, as a collector would take it: the directories of the steps are still there.
    fixture.lease = fixture.blobs.lease("another");
    let layer = first.layers.last().unwrap().digest;
    assert_eq!(fixture.blobs.delete(&layer).await.unwrap(), store::Removed::Yes);
    let again = fixture.built(&files("one\n", "1")).await.image;
    assert_eq!((again.digest, again.steps.executed), (first.digest, 1), "only the layer is written again");
    // Everything goes.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(fixture.builder.prune(Duration::ZERO).await.unwrap() > 0);
    let again = fixture.built(&files("one\n", "1")).await.image;
    assert_eq!((again.digest, again.steps.executed), (first.digest, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_makes_the_same_is_no_trap() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let dockerfile =
        "FROM busybox AS make\nRUN cat /proc/sys/kernel/random/uuid > /id\nFROM scratch\nCOPY --from=make /id /id\n";
    let request = fixture.request(&[("Dockerfile", dockerfile)]).await;
    let first = fixture.build(&request).await.unwrap();
    let id = first.text("/id");
    // The directory of the command and the layer are lost; the list of what was copied from it is not.
    for entry in fixture.dir.path().join("build/trees").read_dir().unwrap() {
        oci::remove_tree(&entry.unwrap().path()).unwrap();
    }
    for entry in fixture.dir.path().join("build/layers").read_dir().unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let again = fixture.build(&request).await.unwrap();
    assert_ne!(again.text("/id"), id);
    assert_eq!(again.text("/id").unwrap().len(), 37);
    assert_eq!(fixture.build(&request).await.unwrap().image.digest, again.image.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_at_once_share_the_work() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let request = fixture.request(&[("Dockerfile", "FROM busybox\nRUN sleep 1; echo x > /x\n")]).await;
    let (one, two) = tokio::join!(fixture.build(&request), fixture.build(&request));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.image.digest, two.image.digest);
    assert_eq!(one.image.steps.executed + two.image.steps.executed, 1);
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_and_large_ones_pass_through() {
    let fixture = Fixture::new().await;
    let names: Vec<String> = (0..5000).map(|n| format!("many/{}/{n}.txt", n % 50)).collect();
    let large: Vec<u8> = (0..40_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
    let mut list: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    list.push(("large.bin", &large));
    list.push(("Dockerfile", b"FROM scratch\nCOPY many /many\nCOPY large.bin /large.bin\n"));
    let commit = fixture.commit_bytes(&list).await;
    let context = Context::Commit { repository: fixture.repository.clone(), commit, path: String::new() };
    let built = fixture.build(&BuildRequest::new(context, EPOCH)).await.unwrap();
    assert_eq!(built.entries(0).len(), 5000 + 51);
    assert_eq!(built.entries(1)[0].size, 40_000_000);
}
