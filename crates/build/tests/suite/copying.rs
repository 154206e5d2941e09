use oci::tar::{LayerWriter, Meta};

use crate::fixture::{EPOCH, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn owners_modes_links_and_patterns() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let built = fixture
        .built(&[
            (
                "Dockerfile",
                "FROM busybox\nWORKDIR /opt\nCOPY --chown=app --chmod=0750 bin/*.sh sub/\nCOPY --chown=7 x /tmp/y\n\
                 COPY --chmod=u=rwX,go=rX --exclude=*.md tree /tree\nCOPY --link bin/a.sh /linked/a.sh\n\
                 COPY --parents tree/deep/z.txt /p/\nCOPY [\"with space\", \"/quoted/\"]\n\
                 COPY <<ONE <<\"TWO\" /here/\nuser $PATH\nONE\nraw $PATH\nTWO\n",
            ),
            ("100755 bin/a.sh", "a"),
            ("bin/b.sh", "b"),
            ("bin/c.txt", "c"),
            ("x", "x"),
            ("tree/r.md", "r"),
            ("100755 tree/run", "run"),
            ("tree/deep/z.txt", "z"),
            ("120000 tree/link", "deep/z.txt"),
            ("with space", "s"),
        ])
        .await;
    // /opt exists in the base image: WORKDIR makes nothing.
    assert_eq!(
        built.lines(1),
        ["opt/ 755 0:0", "opt/sub/ 755 1000:1001", "opt/sub/a.sh 750 1000:1001", "opt/sub/b.sh 750 1000:1001"]
    );
    assert_eq!(built.lines(2), ["tmp/ 1777 0:0", "tmp/y 644 7:7"], "what is there keeps its mode");
    assert_eq!(
        built.lines(3),
        [
            "tree/ 755 0:0",
            "tree/deep/ 755 0:0",
            "tree/deep/z.txt 644 0:0",
            "tree/link -> deep/z.txt 777 0:0",
            "tree/run 755 0:0"
        ]
    );
    assert_eq!(built.lines(4), ["linked/ 755 0:0", "linked/a.sh 755 0:0"]);
    assert_eq!(built.paths(5), ["p/", "p/tree/", "p/tree/deep/", "p/tree/deep/z.txt"]);
    assert_eq!(built.text("/quoted/with space").as_deref(), Some("s"));
    assert_eq!(built.text("/here/ONE").as_deref(), Some("user /bin\n"));
    assert_eq!(built.text("/here/TWO").as_deref(), Some("raw $PATH\n"));
    let empty: Vec<bool> = built.config.history.iter().map(|line| line.empty_layer).collect();
    assert_eq!(empty[..3], [false, true, false]);
}

fn archive() -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new());
    let meta = Meta { mode: 0o640, uid: 5, gid: 6, mtime: EPOCH.seconds() + 100, ..Meta::default() };
    writer.directory(b"pkg", &Meta { mode: 0o700, ..meta.clone() }).unwrap();
    writer.file(b"pkg/f", &meta, 3, &mut &b"abc"[..]).unwrap();
    writer.hard_link(b"pkg/g", b"pkg/f", &meta).unwrap();
    writer.symlink(b"pkg/s", b"f", &meta).unwrap();
    writer.symlink(b"out", b"/etc", &meta).unwrap();
    writer.file(b"out/motd", &meta, 1, &mut &b"m"[..]).unwrap();
    writer.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_unpacked_by_add_alone() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let tar = archive();
    let mut gzip = oci::compress::GzipWriter::new(Vec::new());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    let gzip = gzip.finish().unwrap().inner;
    let dockerfile = b"FROM busybox\nADD p.tar.gz /opt/\nADD --unpack=false p.tar /kept/\nCOPY p.tar /copied\nADD --chown=9:9 p.tar /own\nADD plain /plain\n\
        RUN cat /opt/pkg/f /etc/motd > /seen && rm -r /own";
    let commit = fixture
        .commit_bytes(&[("Dockerfile", dockerfile), ("p.tar", &tar), ("p.tar.gz", &gzip), ("plain", b"no archive")])
        .await;
    let context = build::Context::Commit { repository: fixture.repository.clone(), commit, path: String::new() };
    let built = match fixture.build(&build::BuildRequest::new(context, EPOCH)).await {
        Ok(built) => built,
        Err(error) => panic!("{:#?}", error.cause()),
    };
    assert_eq!(
        built.lines(1),
        [
            "etc/ 755 0:0",
            "opt/ 755 0:0",
            "opt/pkg/ 700 5:6",
            "opt/pkg/f 640 5:6",
            "opt/pkg/g -> opt/pkg/f 640 5:6",
            "opt/pkg/s -> f 777 5:6",
            "opt/out -> /etc 777 5:6",
            "etc/motd 640 5:6",
        ],
        "a link of the archive leads inside the image"
    );
    assert!(built.entries(1).iter().all(|entry| entry.mtime <= EPOCH.seconds()));
    assert_eq!(built.paths(2), ["kept/", "kept/p.tar"]);
    assert_eq!(built.paths(3), ["copied"]);
    assert!(built.lines(4).contains(&"own/pkg/f 640 9:9".to_owned()));
    assert_eq!(built.text("/plain").as_deref(), Some("no archive"));
    assert_eq!(built.text("/seen").as_deref(), Some("abcm"));
    assert_eq!(built.text("/own/pkg/f"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_or_image_holds_is_copied_as_it_is() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let built = fixture
        .built(&[(
            "Dockerfile",
            "FROM busybox AS one\nRUN mkdir -p /o/d && echo 1 > /o/f && chmod 4711 /o/f && ln -s f /o/l 2>/dev/null || busybox ln -s f /o/l; rm /opt/old\n\
             FROM scratch\nCOPY --from=one /o /o\nCOPY --from=busybox /etc/passwd /etc/\nCOPY --from=0 /www /srv/\n",
        )])
        .await;
    assert_eq!(built.lines(0), ["o/ 755 0:0", "o/d/ 755 0:0", "o/f 4711 0:0", "o/l -> f 777 0:0"]);
    assert_eq!(built.paths(1), ["etc/", "etc/passwd"]);
    let gone = fixture
        .fails(&[("Dockerfile", "FROM busybox AS one\nRUN rm /opt/old\nFROM scratch\nCOPY --from=one /opt/old /\n")])
        .await;
    assert!(gone.starts_with("stage one has no /opt/old\nDockerfile:4:17"), "{gone}");
}
