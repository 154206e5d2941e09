use build::{BuildRequest, Context};

use crate::fixture::{EPOCH, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_with_a_command() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let built = fixture
        .built(&[
            (
                "Dockerfile",
                "FROM busybox AS make\nWORKDIR /src\nCOPY page .\nRUN cat index.html > out && echo made >> out\n\
                 FROM busybox\nCOPY --from=make /src/out /www/index.html\nEXPOSE 8080\nUSER app\nCMD [\"httpd\", \"-f\"]\n",
            ),
            ("page/index.html", "hello\n"),
            ("README.md", "not read\n"),
        ])
        .await;
    assert_eq!(built.text("/srv/www/index.html").as_deref(), Some("hello\nmade\n"));
    assert_eq!(built.paths(-1), ["srv/", "srv/www/", "srv/www/index.html"], "the link /www is followed");
    assert_eq!(built.image.layers.len(), 2, "nothing of the first stage but what was copied");
    let config = &built.config;
    assert_eq!(config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(config.config.cmd.as_deref().unwrap(), ["httpd", "-f"]);
    assert_eq!((config.config.user.as_str(), config.config.exposed_ports.contains_key("8080/tcp")), ("app", true));
    let history: Vec<(&str, bool)> =
        config.history.iter().map(|line| (line.created_by.as_deref().unwrap(), line.empty_layer)).collect();
    assert_eq!(
        history,
        [
            ("made for busybox", false),
            ("COPY --from=make /src/out /www/index.html", false),
            ("EXPOSE 8080", true),
            ("USER app", true),
            (r#"CMD ["httpd", "-f"]"#, true),
        ]
    );
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    assert!(built.entries(-1).iter().all(|entry| entry.mtime <= EPOCH.seconds()));
    fixture.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_reads_the_image() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    if std::process::Command::new("skopeo").arg("--version").output().is_err() {
        return testkit::skipped("skopeo");
    }
    let dockerfile = "FROM busybox\nRUN rm /opt/old && echo x > /x\nCOPY a /a\nENV E=1\nHEALTHCHECK CMD true\n";
    let built = fixture.built(&[("Dockerfile", dockerfile), ("a", "1")]).await;
    let dir = tempfile::tempdir().unwrap();
    built.layout(&dir.path().join("image"));
    // To docker's form: every layer is unpacked and checked against its diff_id on the way.
    let run = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "--tmpdir"])
        .arg(dir.path())
        .args(["copy", "--dest-decompress"])
        .arg(format!("oci:{}", dir.path().join("image").display()))
        .arg(format!("dir:{}", dir.path().join("copied").display()))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let run = std::process::Command::new("skopeo")
        .args(["inspect", "--config"])
        .arg(format!("oci:{}", dir.path().join("image").display()))
        .output()
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(config["config"]["Env"][1], "E=1");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_target_needs_is_built() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let files = [
        ("Dockerfile", "FROM busybox AS broken\nRUN exit 3\nFROM scratch AS good\nCOPY a /a\nFROM broken\n"),
        ("a", "1"),
    ];
    let mut request = fixture.request(&files).await;
    request.target = Some("GOOD".into());
    assert_eq!(fixture.build(&request).await.unwrap().paths(0), ["a"]);
    request.target = Some("1".into());
    assert!(fixture.build(&request).await.is_ok());
    request.target = None;
    assert!(fixture.fails_as(&request).await.starts_with("the command failed: exit code 3"));
    request.target = Some("none".into());
    assert_eq!(
        fixture.fails_as(&request).await,
        "there is no stage \"none\" to build\nhint: the stages are broken, good, 2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_environment() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let dockerfile = "ARG BASE=busybox\nARG GLOBAL=g\nFROM $BASE AS one\nARG GLOBAL\nARG MODE=slow\nARG TARGETARCH SOURCE_COMMIT=none\n\
        ENV A=1 B=\"x y\"\nENV A=2 C=$A-${MODE:+set}\nENV OLD form\nLABEL commit=$SOURCE_COMMIT \"two words\"=yes\n\
        RUN echo \"$GLOBAL $MODE $A $B $C $SOURCE_COMMIT $HOME $OLD\" > /out\n\
        FROM one\nRUN echo \"[$MODE] $A\" > /out2\nWORKDIR a\nWORKDIR $A/../b\nSTOPSIGNAL SIGTERM\n\
        HEALTHCHECK --interval=1m30s --retries=3 CMD wget -q localhost\nVOLUME /data /more\nMAINTAINER somebody\n\
        ENTRYPOINT [\"/bin/sh\"]\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD echo hi\nONBUILD RUN echo triggered > /trigger\n";
    let mut request = fixture.request(&[("Dockerfile", dockerfile)]).await;
    request.args.insert("MODE".into(), "fast".into());
    request.args.insert("UNKNOWN".into(), "x".into());
    request.identity_free_args.insert("SOURCE_COMMIT".into(), "c0ffee".into());
    request.labels.insert("org.opencontainers.image.revision".into(), "c0ffee".into());
    let built = fixture.build(&request).await.unwrap();
    assert_eq!(built.text("/out").as_deref(), Some("g fast 2 x y 1-set c0ffee /root form\n"));
    assert_eq!(
        built.text("/out2").as_deref(),
        Some("[] 2\n"),
        "arguments end with their stage, the environment does not"
    );
    assert!(built.said("warning: no ARG declares the build arguments UNKNOWN"));
    let config = &built.config.config;
    assert_eq!(config.env, ["PATH=/bin", "A=2", "B=x y", "C=1-set", "OLD=form"]);
    assert_eq!(config.labels["commit"], "c0ffee");
    assert_eq!(config.labels["two words"], "yes");
    assert_eq!(config.labels["org.opencontainers.image.revision"], "c0ffee");
    assert_eq!(config.working_dir, "/a/b");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGTERM"));
    let check = config.healthcheck.as_ref().unwrap();
    assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
    assert_eq!(check.test, ["CMD-SHELL", "wget -q localhost"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/bin/sh"]);
    assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/sh", "-ec", "echo hi"]);
    assert_eq!(config.on_build, ["RUN echo triggered > /trigger"]);
    assert_eq!(built.config.author.as_deref(), Some("somebody"));
    assert_eq!(built.paths(-1), ["a/", "a/b/"]);

    fixture.publish("mine", &built);
    let child = fixture.built(&[("Dockerfile", "FROM mine\nENTRYPOINT [\"/x\"]\n")]).await;
    assert_eq!(child.text("/trigger").as_deref(), Some("triggered\n"));
    assert!(child.config.config.on_build.is_empty());
    assert_eq!(child.config.config.cmd, None, "the command of the base was for its own entry point");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_a_part_of_a_commit_are_contexts_too() {
    let fixture = Fixture::new().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY d /d\nCOPY link /link\n").unwrap();
    std::fs::write(dir.path().join("d/x"), "1").unwrap();
    std::os::unix::fs::symlink("d/x", dir.path().join("link")).unwrap();
    let request = BuildRequest::new(Context::Directory(dir.path().to_owned()), EPOCH);
    let built = fixture.build(&request).await.unwrap();
    assert_eq!((built.paths(0), built.text("/link").as_deref()), (vec!["d/".to_owned(), "d/x".into()], Some("1")));

    std::fs::remove_file(dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    assert!(fixture.fails_as(&request).await.contains("there is no link in the build context"));

    let commit = fixture.commit(&[("site/Dockerfile", "FROM scratch\nCOPY x /x\n"), ("site/x", "2"), ("x", "3")]).await;
    let context = Context::Commit { repository: fixture.repository.clone(), commit, path: "site".into() };
    let built = fixture.build(&BuildRequest::new(context, EPOCH)).await.unwrap();
    assert_eq!(built.text("/x").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignore_files_keep_things_out() {
    let fixture = Fixture::new().await;
    let files = [
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "**/*.log\nsecret\n!secret/open\nDockerfile\n"),
        ("a.txt", "1"),
        ("d/b.log", "2"),
        ("secret/key", "3"),
        ("secret/open", "4"),
    ];
    let built = fixture.built(&files).await;
    assert_eq!(built.paths(0), [".dockerignore", "a.txt", "secret/", "secret/open"]);
    let mut request = fixture.request(&files).await;
    request.dockerfile_text = Some("FROM scratch\nCOPY a.txt secret/key /x/\n".into());
    assert_eq!(
        fixture.fails_as(&request).await,
        "secret/key is left out of the build context by .dockerignore\nDockerfile:2:12\n  2 | COPY a.txt secret/key /x/\n    |            ^^^^^^^^^^\nhint: add !secret/key to .dockerignore to let it in"
    );
    let own = [&files[..], &[("Dockerfile.dockerignore", "a.txt\n")]].concat();
    let built = fixture.built(&own).await;
    assert!(!built.paths(0).contains(&"a.txt".to_owned()) && built.paths(0).contains(&"d/b.log".to_owned()));
}
