//! Programs that serve a test beside the server.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of an nginx that has all its files below `$DIR`.
const NGINX: &str = "daemon off;
worker_processes 1;
pid $DIR/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path $DIR/body;
    proxy_temp_path $DIR/proxy;
    fastcgi_temp_path $DIR/fastcgi;
    uwsgi_temp_path $DIR/uwsgi;
    scgi_temp_path $DIR/scgi;
$HTTP}
";

/// A program that runs until this is dropped.
pub struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Starts `nginx` with `http` inside the block of that name, where `$DIR` is `dir`, and waits until it is `ready`.
    ///
    /// # Panics
    /// When it cannot be started, or ends.
    pub fn nginx(mut nginx: Command, dir: &Path, http: &str, ready: impl Fn() -> bool) -> Self {
        let config = dir.join("nginx.conf");
        std::fs::write(&config, NGINX.replace("$HTTP", http).replace("$DIR", &dir.display().to_string())).unwrap();
        nginx.arg("-p").arg(dir).arg("-c").arg(&config);
        let mut daemon = Self::start(nginx, &dir.join("nginx.log"));
        assert!(daemon.serves(ready), "nginx ends: {}", daemon.said());
        daemon
    }

    /// Waits until it is `ready`; not if it ended before.
    ///
    /// # Panics
    /// When it runs and is not ready after a minute.
    #[must_use]
    pub fn serves(&mut self, ready: impl Fn() -> bool) -> bool {
        let until = Instant::now() + PATIENCE;
        while !ready() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < until, "it does not serve:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Kills it, as a machine that fails does.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.said());
        }
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // Asked first: it has children of its own to end.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program is installed; if not, that is printed.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The search path of an ordinary user lacks what only root starts.
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = found.map(|dir| dir.join(program)).any(|file| file.is_file());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}
