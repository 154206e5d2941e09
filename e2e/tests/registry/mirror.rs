//! Two upstreams, Debian's docker-registry as `docker.io` and a registry of this program as `other.test`, and a cache
//! before both.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{Daemon, free_port, installed};

use crate::alone::{Alone, done};

/// After this the cache asks about a tag again.
const REVALIDATE: Duration = Duration::from_secs(3);

/// A port that stays the same when who listens there is started again.
struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    fn new() -> Self {
        let (number, lock) = free_port();
        Self { number, _lock: lock }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// The image that clients pull, by the names it has at both upstreams.
pub const IMAGES: [&str; 2] = ["docker.io/library/web:1", "other.test/acme/web:1"];

pub struct Mirror {
    debian: Option<Daemon>,
    debian_port: Port,
    other: Alone,
    other_port: Port,
    pub cache: Alone,
    _cache_port: Port,
    /// The listener on which every name is one of docker.io.
    listener: Port,
    config: PathBuf,
    dir: tempfile::TempDir,
}

impl Mirror {
    /// Starts all of it, with an image at both upstreams; nothing if something is missing, which is printed.
    pub fn start() -> Option<Self> {
        if !["docker-registry", "skopeo"].iter().all(|program| installed(program)) {
            return None;
        }
        if e2e::busybox().is_none() {
            eprintln!("skipped: there is no static /bin/busybox (Debian's busybox-static)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (debian_port, other_port) = (Port::new(), Port::new());
        let (cache_port, listener) = (Port::new(), Port::new());
        let upstream = |name: &str, port: &Port| {
            format!(
                "      - {{name: {name}, url: 'http://{}', insecurePlainHttp: true, anonymous: true, revalidateAfter: {}s}}\n",
                port.host(),
                REVALIDATE.as_secs(),
            )
        };
        let spec = format!(
            "  listeners:\n    - {{address: '{}'}}\n    - {{address: '{}', upstream: docker.io}}\n  registry:\n    \
             anonymous: [pull]\n    upstreams:\n{}{}",
            cache_port.host(),
            listener.host(),
            upstream("docker.io", &debian_port),
            upstream("other.test", &other_port),
        );
        let cache = Alone::configured(&spec);
        let config = cache.path("towpath.yaml");
        let other = Alone::start(&["--anonymous", "pull,push", "--listen", &other_port.host()]);
        let mut mirror = Self {
            debian: None,
            debian_port,
            other,
            other_port,
            cache,
            _cache_port: cache_port,
            listener,
            config,
            dir,
        };
        mirror.serve_debian();
        mirror.push("one");
        Some(mirror)
    }

    fn serve_debian(&mut self) {
        let config = self.path("docker-registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{}'}}\n",
            self.path("docker-registry").display(),
            self.debian_port.host(),
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let mut daemon = Daemon::start(command, &self.path("docker-registry.log"));
        let address = self.debian_port.host();
        assert!(daemon.serves(|| std::net::TcpStream::connect(&address).is_ok()), "{}", daemon.said());
        self.debian = Some(daemon);
    }

    /// Points the tag at both upstreams to an image with this page.
    fn push(&self, page: &str) {
        self.other.push_page("acme/web", "1", page);
        let (from, to) = (self.other.url("acme/web:1"), format!("docker://{}/library/web:1", self.debian_port.host()));
        let mut skopeo = Command::new("skopeo");
        skopeo.env("TMPDIR", self.dir.path()).args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
        done(skopeo.args(["--dest-tls-verify=false", &from, &to]));
    }

    /// The digest that the tag has at the upstreams.
    pub fn digest(&self) -> String {
        self.other.digest("acme/web", "1")
    }

    /// A place for files.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Host and port on which every name is one of docker.io.
    pub fn listener(&self) -> String {
        self.listener.host()
    }

    /// Where the upstream that is docker.io answers.
    pub fn upstream(&self) -> String {
        self.debian_port.host()
    }

    /// Stops both upstreams, and lets the time pass during which tags are good without a question.
    pub fn stop_upstreams(&mut self) {
        self.debian = None;
        self.other.stop();
        std::thread::sleep(REVALIDATE);
    }

    /// Starts the upstreams again, where the tag points to another image now. The cache starts anew, and so has not
    /// learnt that they were down.
    fn move_tag(&mut self) {
        self.other.restart(&["--anonymous", "pull,push", "--listen", &self.other_port.host()]);
        self.serve_debian();
        self.push("two");
        self.restart_cache();
    }

    /// Starts the cache again.
    fn restart_cache(&mut self) {
        let config = self.config.display().to_string();
        self.cache.restart(&["--config", &config]);
    }

    /// Has a client pull: cold, without the upstreams, and after the tag moved. `pull` removes what an earlier pull left,
    /// and answers the digest that the client names.
    pub fn pulled_by(&mut self, pull: impl Fn(&Self) -> String) {
        let first = self.digest();
        assert_eq!(pull(self), first, "cold");
        self.stop_upstreams();
        assert_eq!(pull(self), first, "without an upstream");
        self.move_tag();
        let second = self.digest();
        assert_ne!(first, second);
        assert_eq!(pull(self), second, "after the tag moved");
    }

    /// `registries.conf` of the containers family, with the cache as the only mirror of both upstreams.
    pub fn registries(&self) -> PathBuf {
        let mut text = String::new();
        for image in IMAGES {
            let name = image.split('/').next().unwrap();
            text += &format!(
                "[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n[[registry.mirror]]\nlocation = \"{}/{name}\"\n\
                 insecure = true\n",
                self.cache.host()
            );
        }
        let path = self.path("registries.conf");
        std::fs::write(&path, text).unwrap();
        path
    }
}
