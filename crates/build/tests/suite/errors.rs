use oci::Platform;

use crate::fixture::Fixture;

async fn shown(fixture: &Fixture, dockerfile: &str) -> String {
    let mut request = fixture.request(&[("there", "x"), ("also", "y")]).await;
    request.platform = Platform::new("linux", "amd64");
    request.dockerfile_text = Some(dockerfile.to_owned());
    let shown = fixture.fails_as(&request).await;
    fixture.assert_tidy();
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_shown_with_its_place() {
    let fixture = Fixture::new().await;
    let mut all = String::new();
    for dockerfile in [
        "FROM scratch\nCOPPY there /\n",
        "FROM scratch\nTELEPORT there /\n",
        "FROM scratch\nCOPY there \\\n  # a comment\n\n  missing.txt /x/\n",
        "FROM scratch\nCOPY *.nothing /x/\n",
        "FROM scratch\nCOPY --chwon=1 there /\n",
        "FROM scratch\nUSER --x root\n",
        "FROM scratch\nCOPY <<EOF /x\nnever ends\n",
        "FROM scratch\nCOPY --from=biuld /x /\n",
        "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n",
        "FROM scratch AS a\nCOPY --from=a /x /\n",
        "FROM scratch\nCOPY --from=7 /x /\n",
        "FROM nowhere/image:1\n",
        "FROM Bad:Image:Name\n",
        "FROM $UNSET\n",
        "COPY there /\nFROM scratch\n",
        "",
        "# nothing but a comment\n",
        "FROM scratch\nENV A\n",
        "FROM scratch\nENV A=\"open\n",
        "FROM scratch\nENV A=${B:}\n",
        "FROM scratch\nLABEL a=${MUST:?must be given}\n",
        "FROM scratch\nCOPY there also /x\n",
        "FROM scratch\nCOPY there /x\nCOPY also /x/\n",
        "FROM scratch\nCOPY --chmod=rwx there /\n",
        "FROM scratch\nCOPY --chown=app there /\n",
        "FROM scratch\nADD https://example.org/x /x\n",
        "FROM scratch\nADD --checksum=sha256:00 there /x\n",
        "FROM scratch\nRUN --network=host make\n",
        "FROM scratch\nRUN --security=insecure make\n",
        "FROM scratch\nRUN --mount=type=ssh make\n",
        "FROM scratch\nRUN --mount=type=cache,target=/c,form=x make\n",
        "FROM scratch\nRUN --mount=type=bind,target=/c,source=none make\n",
        "FROM scratch\nEXPOSE http\n",
        "FROM scratch\nHEALTHCHECK --interval=soon CMD x\n",
        "FROM scratch\nSHELL /bin/sh\n",
        "FROM scratch\nCMD [\"a\", 1]\n",
        "FROM scratch\nONBUILD FROM x\n",
        "FROM scratch AS 1st\n",
        "FROM --platform=plan9/mips scratch\n",
        "# syntax=example.org/front:2\nFROM scratch\n",
        "# escape=x\nFROM scratch\n",
        "\tFROM scratch AS é\n",
    ] {
        all.push_str(&format!("{dockerfile:?}\n{}\n\n", shown(&fixture, dockerfile).await));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_dockerfile_is_an_error_of_its_own() {
    let fixture = Fixture::new().await;
    let shown = fixture.fails(&[("there", "x")]).await;
    assert_eq!(shown, "there is no Dockerfile in the build context\nhint: add one, or name the file it is in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_ignore_file_is_named() {
    let fixture = Fixture::new().await;
    let shown = fixture.fails(&[("Dockerfile", "FROM scratch\n"), (".dockerignore", "ok\n[\n")]).await;
    assert_eq!(shown, ".dockerignore: \"[\" is not a file name pattern");
}
