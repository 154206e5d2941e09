//! Private PostgreSQL clusters: one over a unix socket, for as long as the test process lives, and others on TCP.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The password of the user `towpath` over TCP.
pub const PASSWORD: &str = "secret";

/// The shell keeps the server until its standard input ends, which it does however the test process dies. Its arguments:
/// the directory of the programs, the port on the loopback or nothing, a password, and a certificate with its key if
/// there is to be TLS.
const KEEPER: &str = r#"
set -e
dir=$(mktemp -d /tmp/towpath-pg.XXXXXX)
trap 'rm -rf "$dir"' EXIT
echo "$3" >"$dir/password"
"$1/initdb" -D "$dir/data" -U towpath --auth-local=trust --auth-host=scram-sha-256 --pwfile="$dir/password" -N -E UTF8 \
    --locale=C >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
if [ -n "$4" ]; then
    umask 077
    echo "$4" >"$dir/data/server.crt"
    echo "$5" >"$dir/data/server.key"
fi
"$1/postgres" -D "$dir/data" -k "$dir" -c listen_addresses="${2:+127.0.0.1}" -p "${2:-5432}" ${4:+-c ssl=on} \
    -c shared_buffers=16MB -c max_connections=90 >"$dir/log" 2>&1 &
pid=$!
until "$1/pg_isready" -q -h "$dir" -p "${2:-5432}"; do kill -0 $pid || { cat "$dir/log" >&2; exit 1; }; sleep 0.05; done
echo "$dir"
read _ || true
kill -QUIT $pid
wait $pid || true
"#;

struct Cluster {
    directory: String,
    /// Its standard input ends with this process.
    _keeper: Child,
}

/// A cluster of its own on `127.0.0.1`, until this process ends. It has the user `towpath` and the database `postgres`.
pub struct Listening {
    /// The port.
    pub port: u16,
    _cluster: Cluster,
}

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A new database's connection text, or nothing after saying on standard error what is missing for one.
pub fn database() -> Option<String> {
    let bin = programs();
    let cluster = CLUSTER
        .get_or_init(|| start(bin.as_deref(), &["", PASSWORD]))
        .as_ref()
        .map_err(|missing| skipped(missing))
        .ok()?;
    let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let made = Command::new(bin?.join("createdb"))
        .args(["-h", &cluster.directory, "-U", "towpath", "-T", "template0", &name])
        .status()
        .expect("createdb starts");
    assert!(made.success(), "createdb made no database");
    Some(format!("host={} user=towpath dbname={name}", cluster.directory))
}

/// Starts a cluster on TCP, with TLS if there is a certificate and its key, as PEM; nothing after saying what is missing.
pub fn listening(tls: Option<(&str, &str)>) -> Option<Listening> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let mut arguments = vec![port.to_string(), PASSWORD.to_owned()];
    arguments.extend(tls.into_iter().flat_map(|(certificate, key)| [certificate.to_owned(), key.to_owned()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = start(programs().as_deref(), &arguments).map_err(|missing| skipped(&missing)).ok()?;
    Some(Listening { port, _cluster: cluster })
}

fn skipped(missing: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {missing}");
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        Path::new("/usr/lib/postgresql").read_dir().ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.into_iter().rfind(|bin| bin.join("postgres").exists() && bin.join("createdb").exists())
}

/// Starts a cluster; `arguments` are those of the keeper after the programs.
fn start(bin: Option<&Path>, arguments: &[&str]) -> Result<Cluster, String> {
    let bin = bin.ok_or("PostgreSQL below /usr/lib/postgresql")?;
    // PostgreSQL does not run as root.
    let mut command = if is_root() {
        let works = Command::new("runuser").args(["-u", "postgres", "--", "true"]).stderr(Stdio::null()).status();
        if !works.is_ok_and(|status| status.success()) {
            return Err("runuser to the user postgres, which root needs to start PostgreSQL".to_owned());
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command
        .arg("-c")
        .arg(KEEPER)
        .arg("sh")
        .arg(bin)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut keeper = command.spawn().map_err(|error| format!("a shell ({error})"))?;
    let mut directory = String::new();
    let output = keeper.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut directory).expect("the shell's output can be read");
    assert!(!directory.is_empty(), "PostgreSQL did not start; its output is above");
    Ok(Cluster { directory: directory.trim().to_owned(), _keeper: keeper })
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
