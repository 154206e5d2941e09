//! A private PostgreSQL cluster over a unix socket, for as long as the test process lives.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The shell keeps the server until its standard input ends, which it does however the test process dies.
const KEEPER: &str = r#"
set -e
dir=$(mktemp -d /tmp/towpath-pg.XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$1/initdb" -D "$dir/data" -U towpath -A trust -N -E UTF8 --locale=C >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
"$1/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c shared_buffers=16MB -c max_connections=90 \
    >"$dir/log" 2>&1 &
pid=$!
until "$1/pg_isready" -q -h "$dir"; do kill -0 $pid || { cat "$dir/log" >&2; exit 1; }; sleep 0.05; done
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

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A new database's connection text, or nothing after saying on standard error what is missing for one.
pub fn database() -> Option<String> {
    let bin = programs();
    let cluster = match CLUSTER.get_or_init(|| start(bin.as_deref())) {
        Ok(cluster) => cluster,
        Err(missing) => {
            let _ = writeln!(std::io::stderr(), "skipped: {missing}");
            return None;
        }
    };
    let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let made = Command::new(bin?.join("createdb"))
        .args(["-h", &cluster.directory, "-U", "towpath", "-T", "template0", &name])
        .status()
        .expect("createdb starts");
    assert!(made.success(), "createdb made no database");
    Some(format!("host={} user=towpath dbname={name}", cluster.directory))
}

fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        Path::new("/usr/lib/postgresql").read_dir().ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.into_iter().rfind(|bin| bin.join("postgres").exists() && bin.join("createdb").exists())
}

fn start(bin: Option<&Path>) -> Result<Cluster, String> {
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
    command.arg("-c").arg(KEEPER).arg("sh").arg(bin).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
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
