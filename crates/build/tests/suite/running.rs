use std::time::{Duration, Instant};

use build::BuildSecret;
use tokio_util::sync::CancellationToken;

use crate::fixture::{EPOCH, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_changes_is_its_layer() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let built = fixture
        .built(&[
            (
                "Dockerfile",
                "FROM busybox\nCOPY d /d\nRUN echo new > /d/new && rm /d/old /opt/old && mkdir /e && touch /e/x\nRUN true\n\
                 RUN [\"/bin/sh\", \"-c\", \"echo exec > /exec\"]\nRUN rm -r /e && mkdir /e && touch /e/y\n\
                 RUN <<EOF\necho here > /here\necho done >> /here\nEOF\n\
                 RUN <<EOF\n#!/bin/cat\nnot a shell\nEOF\nRUN cat <<A <<B > /two\n1\nA\n2\nB\nUSER app\nRUN id -u > /tmp/who\n",
            ),
            ("d/old", "1"),
            ("d/kept", "2"),
        ])
        .await;
    assert_eq!(built.text("/d/new").as_deref(), Some("new\n"));
    assert_eq!(
        (built.text("/d/old"), built.text("/opt/old"), built.text("/d/kept").as_deref()),
        (None, None, Some("2"))
    );
    assert_eq!(built.paths(2), ["d/", "d/new", "d/.wh.old", "e/", "e/x", "opt/", "opt/.wh.old"]);
    assert_eq!(built.text("/exec").as_deref(), Some("exec\n"));
    assert_eq!((built.text("/e/x"), built.text("/e/y").as_deref()), (None, Some("")));
    assert_eq!(built.text("/here").as_deref(), Some("here\ndone\n"));
    assert!(built.said("not a shell"), "the interpreter of the script ran");
    assert_eq!(built.text("/tmp/who").as_deref(), Some("1000\n"));
    assert!(built.text("/two").unwrap().contains('2'));
    for index in 0..built.image.layers.len() {
        let index = isize::try_from(index).unwrap();
        for path in built.paths(index) {
            assert!(!path.contains("proc") && !path.contains("dev/") && !path.contains("towpath"), "{path}");
        }
        assert!(built.entries(index).iter().all(|entry| entry.mtime <= EPOCH.seconds()));
    }
    let empty = built.config.history.iter().filter(|line| line.empty_layer).count();
    assert_eq!(empty, 3, "RUN true, the script that only prints, and USER");
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_there_and_leave_nothing() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let dockerfile = "FROM busybox AS tool\nRUN mkdir /t && echo tool > /t/x\nFROM busybox\n\
        RUN --mount=type=bind,source=d,target=/ctx --mount=type=bind,from=tool,source=/t/x,target=/x/y cat /ctx/f /x/y > /out; ! touch /ctx/no 2>/dev/null\n\
        RUN --mount=type=cache,target=/c,sharing=locked echo run >> /c/log; cat /c/log > /count\n\
        RUN --mount=type=tmpfs,target=/m,size=1m echo 1 > /m/f && test -f /m/f\n\
        RUN --mount=type=secret,id=key,target=/k,mode=0440 --mount=type=secret,id=key,env=KEY --mount=type=secret,id=other cat /k && test \"$KEY\" = \"$(cat /k)\" && test ! -e /run/secrets/other\n";
    let files = [("Dockerfile", dockerfile), ("d/f", "ctx\n")];
    let mut request = fixture.request(&files).await;
    request.secrets.insert("key".into(), BuildSecret { version: "1".into(), value: b"s3cret-value".to_vec() });
    let built = match fixture.build(&request).await {
        Ok(built) => built,
        Err(error) => panic!("{:#?}", error.cause()),
    };
    assert_eq!(built.text("/out").as_deref(), Some("ctx\ntool\n"));
    assert_eq!(built.text("/count").as_deref(), Some("run\n"));
    let added: Vec<String> =
        (1..built.image.layers.len()).flat_map(|index| built.paths(isize::try_from(index).unwrap())).collect();
    assert_eq!(added, ["out", "count"], "no mount leaves a trace");
    assert!(built.said("***") && !built.said("s3cret-value"));
    let config = serde_json::to_string(&built.config).unwrap();
    assert!(!config.contains("s3cret-value"));
    request.secrets.clear();
    request.dockerfile_text = Some("FROM busybox\nRUN --mount=type=secret,id=key,required=true true\n".into());
    let missing = fixture.fails_as(&request).await;
    assert!(missing.starts_with("no secret \"key\" was given to the build\nDockerfile:2:13"), "{missing}");

    request.dockerfile_text = Some(
        "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked echo again >> /c/log; cat /c/log > /count\n"
            .into(),
    );
    let built = fixture.build(&request).await.unwrap();
    assert_eq!(built.text("/count").as_deref(), Some("run\nagain\n"), "a cache outlives the build");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_shows_its_last_lines() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let failed = fixture.fails(&[("Dockerfile", "FROM busybox\nRUN seq 1 30; echo oops >&2; exit 2\n")]).await;
    assert!(failed.starts_with("the command failed: exit code 2\nDockerfile:2:1\n  2 | RUN seq 1 30; echo oops >&2; exit 2\n    | ^^^\n> 12\n"), "{failed}");
    assert!(failed.ends_with("> 30\n> oops"), "{failed}");
    let missing = fixture.fails(&[("Dockerfile", "FROM busybox\nRUN no-such-program\n")]).await;
    assert!(missing.contains("hint: 127 says that a program was not found"), "{missing}");
    let network = fixture.fails(&[("Dockerfile", "FROM busybox\nRUN wget http://example.org/\n")]).await;
    assert!(network.contains("hint: build steps have no network"), "{network}");
    let nothing = fixture.fails(&[("Dockerfile", "FROM scratch\nRUN make\n")]).await;
    assert!(nothing.contains("hint: the image has no /bin/sh"), "{nothing}");
    let user = fixture.fails(&[("Dockerfile", "FROM busybox\nUSER nobody-here\nRUN true\n")]).await;
    assert!(user.starts_with("the image has no user \"nobody-here\" in its /etc/passwd\nDockerfile:3:1"), "{user}");
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_ends_at_once_and_leaves_nothing() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let request = fixture.request(&[("Dockerfile", "FROM busybox\nRUN touch /begun; sleep 60\n")]).await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
    });
    let begun = Instant::now();
    let result = fixture.builder.build(&request, &fixture.images, &fixture.lease, &mut |_: &str| {}, &cancel).await;
    assert!(matches!(result, Err(build::BuildError::Cancelled)), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    fixture.assert_tidy();

    // Dropping the future ends it as well.
    let fresh = CancellationToken::new();
    let mut quiet = |_: &str| {};
    let dropped = fixture.builder.build(&request, &fixture.images, &fixture.lease, &mut quiet, &fresh);
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    for _ in 0..200 {
        if fixture.dir.path().join("build/tmp").read_dir().unwrap().next().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.assert_tidy();
}
