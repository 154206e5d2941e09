use build::BuildInputs;

use crate::fixture::Fixture;

const DOCKERFILE: &str = "ARG BASE=busybox\nFROM $BASE AS make\nARG SOURCE_COMMIT\nARG MODE=slow\nENV ID=$SOURCE_COMMIT\nCOPY src /src\nRUN echo $ID > /id\n\
    FROM busybox AS unused\nCOPY unused /\nFROM scratch\nARG SOURCE_COMMIT VERSION=dev\nLABEL commit=${SOURCE_COMMIT:-none} version=$VERSION\nCOPY --from=make /id /id\nCOPY page/*.html /www/\n";

const FILES: [(&str, &str); 5] =
    [("Dockerfile", DOCKERFILE), ("src/a", "1"), ("page/index.html", "2"), ("unused", "3"), ("README.md", "4")];

async fn inputs(fixture: &Fixture, files: &[(&str, &str)], commit: &str) -> BuildInputs {
    let mut request = fixture.request(files).await;
    request.identity_free_args.insert("SOURCE_COMMIT".into(), commit.into());
    request.identity_free_args.insert("VERSION".into(), format!("1.0-{commit}"));
    request.args.insert("MODE".into(), "fast".into());
    request.args.insert("NOBODY".into(), "asks".into());
    request.labels.insert("org.opencontainers.image.revision".into(), commit.into());
    fixture.builder.recipe(&request, &fixture.images).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_the_image_is_made_of_and_nothing_else() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let first = inputs(&fixture, &FILES, "aaaa").await;
    assert_eq!(
        first.recipe,
        [
            "FROM busybox",
            "ARG SOURCE_COMMIT=\"${SOURCE_COMMIT}\"",
            "ARG MODE=\"fast\"",
            "ENV ID=\"${SOURCE_COMMIT}\"",
            "COPY src /src",
            "RUN echo $ID > /id",
            "FROM scratch",
            "ARG SOURCE_COMMIT=\"${SOURCE_COMMIT}\" VERSION=\"${VERSION}\"",
            "LABEL commit=\"${SOURCE_COMMIT}\" version=\"${VERSION}\"",
            "COPY --from=stage 0 /id /id",
            "COPY page/*.html /www/",
        ]
    );
    let paths: Vec<(&str, &str)> = first.files.iter().map(|file| (file.path.as_str(), file.kind)).collect();
    assert_eq!(paths, [("page/index.html", "file"), ("src", "directory"), ("src/a", "file")]);
    assert!(first.files[0].object.starts_with("git:"));
    assert_eq!(first.base_images.len(), 1);
    assert_eq!((first.args.len(), first.args["MODE"].as_str()), (1, "fast"));
    assert_eq!(fixture.dir.path().join("build/trees").read_dir().unwrap().count(), 0, "nothing was executed");

    let mut readme = FILES;
    readme[4].1 = "changed";
    readme[3].1 = "changed too";
    assert_eq!(inputs(&fixture, &readme, "bbbb").await, first, "neither the commit nor files that are not read");
    let mut page = FILES;
    page[2].1 = "changed";
    assert_ne!(inputs(&fixture, &page, "aaaa").await.files, first.files);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_names_the_build_reaches_the_command() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    for commit in ["aaaa", "bbbb"] {
        let mut request = fixture.request(&FILES).await;
        request.identity_free_args.insert("SOURCE_COMMIT".into(), commit.into());
        let built = fixture.build(&request).await.unwrap();
        assert_eq!(built.text("/id").unwrap(), format!("{commit}\n"));
        assert_eq!(built.config.config.labels["commit"], commit);
        assert_eq!(built.config.config.labels["version"], "dev");
    }
}
