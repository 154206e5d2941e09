//! The sample site: its files, the records that deliver it, and what each change makes of it.

use std::net::SocketAddr;

/// The repository, and the image in the registry.
pub(super) const REPOSITORY: &str = "demo/site";
/// The base image, without its tag.
pub(super) const BASE: &str = "demo/base";
/// The target.
pub(super) const TARGET: &str = "site";
/// The header in which the site says which build it is.
pub(super) const IDENTITY: &str = "x-build-identity";
/// Seconds that a version has to become well.
pub(super) const HEALTH_SECONDS: u32 = 5;
/// The manifest on the GitOps branch.
pub(super) const MANIFEST: &str = "deploy/site.yaml";
/// What the manifests say of the image before the first delivery.
pub(super) const MANIFESTS: [(&str, &str); 1] = [(MANIFEST, include_str!("site/deploy.yaml"))];

const SERVER: &str = include_str!("site/server.pl");
const FIRST_MESSAGE: &str = include_str!("site/page/message.html");
const SECOND_MESSAGE: &str = include_str!("site/page/message.changed.html");

/// The file that the broken version wants to be there.
const WANTED: &str = "catalogue.json";

/// The four changes, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The whole site.
    First,
    /// The page's message.
    Page,
    /// The README alone.
    Docs,
    /// A server that is never well.
    Broken,
}

impl Change {
    /// Its name in the output.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Page => "page",
            Self::Docs => "docs",
            Self::Broken => "broken",
        }
    }

    /// The message of its commit.
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::First => "A site",
            Self::Page => "Another message on the page",
            Self::Docs => "Say more in the README",
            Self::Broken => "Serve a catalogue",
        }
    }

    /// The files that it writes.
    pub(super) fn files(self) -> Vec<(&'static str, String)> {
        let text = |path, text: &str| (path, text.to_owned());
        match self {
            Self::First => vec![
                text("README.md", include_str!("site/README.md")),
                text("Dockerfile", include_str!("site/Dockerfile")),
                text("render.sh", include_str!("site/render.sh")),
                text("test.sh", include_str!("site/test.sh")),
                text("server.pl", SERVER),
                text("page/template.html", include_str!("site/page/template.html")),
                text("page/title.txt", include_str!("site/page/title.txt")),
                text("page/message.html", FIRST_MESSAGE),
                text(".towpath/workflows/check.yaml", include_str!("site/check.yaml")),
            ],
            Self::Page => vec![text("page/message.html", SECOND_MESSAGE)],
            Self::Docs => vec![text("README.md", include_str!("site/README.changed.md"))],
            Self::Broken => {
                let needed = |file| format!("my $needed = \"$root/{file}\";");
                vec![text("server.pl", &SERVER.replace(&needed("index.html"), &needed(WANTED)))]
            }
        }
    }

    /// What the page says once the change is live; the broken one never is.
    pub(super) fn content(self) -> &'static str {
        match self {
            Self::First => FIRST_MESSAGE.trim_end(),
            Self::Page | Self::Docs | Self::Broken => SECOND_MESSAGE.trim_end(),
        }
    }
}

/// What the log of the broken version says.
pub(super) fn complaint() -> String {
    format!("/{WANTED}: ")
}

/// The server's own file: the embedded defaults.
pub(super) fn server_file() -> String {
    format!("apiVersion: {}\nkind: Towpath\nspec: {{}}\n", config::API_VERSION)
}

/// The target's record.
pub(super) fn target(listen: Option<SocketAddr>) -> String {
    let listen = listen.map(|address| format!("  deploy: {{listen: \"{address}\"}}\n")).unwrap_or_default();
    format!(
        "apiVersion: {}
kind: Target
metadata: {{name: {TARGET}}}
spec:
  repository: {REPOSITORY}
  branch: main
  services:
    - name: web
      image: {REPOSITORY}
      build: {{context: ., dockerfile: Dockerfile}}
      health: {{path: /health, identity: {{header: X-Build-Identity}}, timeoutSeconds: {HEALTH_SECONDS}}}
  gitops: {{branch: deploy, path: deploy}}
{listen}",
        config::API_VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn written(changes: &[Change]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in changes.iter().flat_map(|change| change.files()) {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn its_records_and_manifests_are_valid() {
        let listen = Some("127.0.0.1:9".parse().unwrap());
        assert_eq!(config::parse_records("t", &target(listen)).unwrap().len(), 1);
        assert_eq!(config::parse_records("t", &target(None)).unwrap().len(), 1);
        config::parse_server("t", &server_file()).unwrap();
    }

    #[test]
    fn every_change_changes_what_it_says() {
        assert_ne!(Change::Broken.files()[0].1, SERVER);
        assert!(Change::Broken.files()[0].1.contains(WANTED));
        assert_ne!(Change::First.content(), Change::Page.content());
        let first = Change::First.files();
        assert!(Change::Docs.files().iter().all(|file| !first.contains(file)));
    }

    #[test]
    fn its_own_test_passes_with_each_page_and_fails_without_a_message() {
        let test =
            |dir: &tempfile::TempDir| Command::new("sh").arg("test.sh").current_dir(dir.path()).output().unwrap();
        for changes in [&[Change::First][..], &[Change::First, Change::Page]] {
            let ran = test(&written(changes));
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        let dir = written(&[Change::First]);
        let template = std::fs::read_to_string(dir.path().join("page/template.html")).unwrap();
        std::fs::write(dir.path().join("page/template.html"), template.replace("@MESSAGE@", "")).unwrap();
        assert!(!test(&dir).status.success());
    }
}
