//! What this test binary does when it is started as something else: as a program inside a sandbox, as the owner of one,
//! or as a supervisor.
#![allow(unsafe_code, clippy::print_stdout)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first argument of such a process; the second says which.
pub const WORD: &str = "__inside";

#[used]
// SAFETY: the section holds pointers to functions without parameters, and this is one.
#[unsafe(link_section = ".init_array")]
static ACT: extern "C" fn() = act;

extern "C" fn act() {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<String> = line.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if words.get(1).is_none_or(|word| word != WORD) {
        return;
    }
    let argument = |n: usize| words.get(n).cloned().unwrap_or_default();
    match argument(2).as_str() {
        "calls" => calls(),
        "descriptors" => descriptors(),
        "fork-bomb" => fork_bomb(),
        "memory" => memory(),
        "serve" => serve(&argument(3)),
        "ask-proxy" => ask_proxy(&argument(3)),
        "reach" => reach(&argument(3)),
        "own" => crate::process::own(&argument(3)),
        "leaks" => crate::process::leaks(),
        "start" => crate::supervisor::starter(&PathBuf::from(argument(3))),
        "supervise" => crate::supervisor::supervise(&PathBuf::from(argument(3))),
        other => panic!("no action {other:?}"),
    }
    std::process::exit(0)
}

/// Tries every forbidden call and prints what the kernel says.
fn calls() {
    for (name, call, arguments, _) in crate::isolation::CALLS {
        // SAFETY: the arguments are numbers, or null where the kernel wants a pointer.
        let result = unsafe { libc::syscall(*call, arguments[0], arguments[1], arguments[2], 0, 0, 0) };
        let errno = if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
        println!("{name} {errno}");
    }
}

fn descriptors() {
    // Kept open while listing, so its own number is known.
    let mut list: Vec<(i32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let number = entry.file_name().to_string_lossy().parse().unwrap();
        list.push((number, std::fs::read_link(entry.path()).unwrap_or_default()));
    }
    for (number, target) in list {
        if !target.starts_with("/proc/") {
            println!("{number}");
        }
    }
}

/// Forks as long as the kernel lets it, in turn as other users where that is possible.
fn fork_bomb() {
    let mut children = 0;
    loop {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: plain calls without pointers.
                unsafe {
                    libc::setuid(2000 + children);
                    libc::fork();
                    libc::pause();
                    libc::_exit(0);
                }
            }
            -1 => break,
            _ => children += 1,
        }
        if children > 5000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    println!("{}", processes.count());
}

/// Touches a gigabyte.
fn memory() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for _ in 0..1024 {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            std::process::exit(9);
        }
        block.resize(1 << 20, 1);
        kept.push(std::hint::black_box(block));
    }
    println!("{}", kept.len());
}

/// Answers every connection with one line, for ever.
fn serve(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut byte = [0];
        let _ = stream.read(&mut byte);
        let _ = stream.write_all(&[b'<', byte[0], b'>']);
    }
}

/// Asks the sandbox's proxy for a URL and prints the status line and the last line.
fn ask_proxy(url: &str) {
    let mut stream = TcpStream::connect("127.0.0.1:3128").unwrap();
    write!(stream, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    println!("{}\n{}", answer.lines().next().unwrap_or(""), answer.lines().last().unwrap_or(""));
}

/// Prints whether an address of the machine can be reached: `host:port`, or `@name` for an abstract socket.
fn reach(address: &str) {
    let reached = match address.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            std::os::unix::net::UnixStream::connect_addr(&name).is_ok()
        }
        None => TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2)).is_ok(),
    };
    println!("{reached}");
}

/// This binary as another process on the machine itself.
pub fn command(action: &str, argument: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([WORD, action]).arg(argument);
    command
}
