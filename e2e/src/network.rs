//! Machines of a test's own, connected by cables: network namespaces, each with its own addresses and its own view of
//! `/etc`. What is dialled from one reaches only what a cable leads to, under the names that this machine knows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

/// Puts what is in the directory `$1` over its namesakes in `/etc`, for this process alone, and becomes the rest.
const WITH_ETC: &str = "etc=$1; shift
for file in \"$etc\"/*; do
    target=/etc/${file##*/}
    [ -d \"$file\" ] && mkdir -p \"$target\"
    mount --bind \"$file\" \"$target\" || exit 125
done
exec \"$@\"";

/// A machine.
pub struct Machine {
    namespace: String,
    etc: TempDir,
}

impl Machine {
    /// A machine with nothing but its loopback device. Nothing if this user may not make one, which is printed.
    ///
    /// # Panics
    /// When the namespace cannot be set up.
    pub fn new(name: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("towpath-{}-{number}-{name}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &namespace]).output();
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => {
                let why = String::from_utf8_lossy(&made.stderr).trim().replace('\n', "; ");
                eprintln!("skipped: this machine makes no network namespaces: {why}");
                return None;
            }
            Err(_) => {
                eprintln!("skipped: ip of iproute2 is not installed");
                return None;
            }
        }
        let machine = Self { namespace, etc: TempDir::new().unwrap() };
        ip(&["-n", &machine.namespace, "link", "set", "lo", "up"]);
        machine.write_etc("hosts", "127.0.0.1 localhost\n");
        Some(machine)
    }

    /// Lays a cable between two machines, each with an address (`10.0.0.1/24`) at its end. Nothing if the kernel has no
    /// cables, which is printed.
    ///
    /// # Panics
    /// When an address cannot be given.
    pub fn connect(&self, own: &str, other: &Self, others: &str) -> Option<()> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cable = NEXT.fetch_add(1, Ordering::Relaxed);
        // The two ends are in other namespaces from the beginning, so their names are nobody else's.
        let (a, b) = (format!("tp{cable}a"), format!("tp{cable}b"));
        let (from, to) = (self.namespace.as_str(), other.namespace.as_str());
        let laid = Command::new("ip")
            .args(["link", "add", &a, "netns", from, "type", "veth", "peer", "name", &b, "netns", to])
            .output()
            .unwrap();
        if !laid.status.success() {
            let why = String::from_utf8_lossy(&laid.stderr).trim().replace('\n', "; ");
            eprintln!("skipped: this machine connects no network namespaces: {why}");
            return None;
        }
        for (namespace, end, address) in [(from, &a, own), (to, &b, others)] {
            ip(&["-n", namespace, "address", "add", address, "dev", end]);
            ip(&["-n", namespace, "link", "set", end, "up"]);
        }
        Some(())
    }

    /// Makes a host name known to this machine.
    pub fn knows(&self, name: &str, address: &str) {
        let hosts = fs::read_to_string(self.etc.path().join("hosts")).unwrap();
        self.write_etc("hosts", &format!("{hosts}{address} {name}\n"));
    }

    /// Writes a file below this machine's `/etc`. A directory takes the place of the one that is there.
    pub fn write_etc(&self, path: &str, text: &str) {
        let path = self.etc.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command on this machine, not started yet.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.file().display()))
            .args(["unshare", "--mount", "sh", "-c", WITH_ETC, "sh"]);
        command.arg(self.etc.path()).arg(program);
        command
    }

    /// Moves the calling thread to this machine: what it dials, and every program that it starts, is there from now on.
    ///
    /// # Panics
    /// When the kernel does not let it.
    pub fn enter(&self) {
        let namespace = File::open(self.file()).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs a function on this machine.
    ///
    /// # Panics
    /// When the function does.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let there = || {
            self.enter();
            function()
        };
        std::thread::scope(|scope| scope.spawn(there).join().unwrap())
    }

    fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its cables go with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
