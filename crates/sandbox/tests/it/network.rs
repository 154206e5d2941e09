//! Connections into a sandbox, and through its proxy out of it.

use sandbox::{Exit, Network, SandboxError, Tier, probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{isolates, probe_program, run, shell};

/// A server inside, ready.
async fn serving(address: &str, ports: Vec<u16>) -> sandbox::Running {
    let mut spec = probe_program("serve");
    spec.argv.push(address.to_owned());
    spec.network = Network::Published { ports };
    let mut running = sandbox::spawn(spec).unwrap();
    let mut line = [0; 10];
    running.take_stdout().unwrap().read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"listening\n");
    running
}

async fn ask(running: &sandbox::Running, port: u16, byte: u8) -> [u8; 3] {
    let mut stream = running.connect_stream(port).await.unwrap();
    stream.write_all(&[byte]).await.unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_published_port_is_reached_by_connect_alone() {
    if !isolates() {
        return;
    }
    let port = free_port();
    let running = serving(&format!("0.0.0.0:{port}"), vec![port, 9]).await;
    assert_eq!(ask(&running, port, b'a').await, *b"<a>");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert!(matches!(running.connect(9).await, Err(SandboxError::Connect { port: 9, .. })));
    assert!(matches!(running.connect(10).await, Err(SandboxError::Refused(_))));
    // Connections outlive the order in which they are asked for.
    let (a, b, c) = tokio::join!(ask(&running, port, b'1'), ask(&running, port, b'2'), ask(&running, port, b'3'));
    assert_eq!([a, b, c], [*b"<1>", *b"<2>", *b"<3>"]);
    running.kill();
    assert_eq!(running.wait().await, Ok(Exit::Signal(9)));
    assert!(matches!(running.connect(port).await, Err(SandboxError::Connect { .. })));
}

/// A port nobody on the machine itself listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn low_ports_and_ipv6_listeners_work() {
    if !isolates() {
        return;
    }
    let running = serving("127.0.0.1:80", vec![80]).await;
    assert_eq!(ask(&running, 80, b'x').await, *b"<x>");
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        testkit::skipped("IPv6");
        return;
    }
    let running = serving("[::1]:8080", vec![8080]).await;
    assert_eq!(ask(&running, 8080, b'y').await, *b"<y>");
}

#[tokio::test]
async fn connecting_before_the_start_waits_for_it() {
    if !isolates() {
        return;
    }
    let mut spec = shell("exit 4");
    spec.network = Network::Published { ports: vec![80] };
    let running = sandbox::spawn(spec).unwrap();
    assert!(matches!(running.connect(80).await, Err(SandboxError::Connect { .. })));
    assert_eq!(running.wait().await, Ok(Exit::Code(4)));
}

#[tokio::test]
async fn the_proxy_lets_through_what_is_listed() {
    if !isolates() {
        return;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        testkit::skipped("the machine's own loopback interface");
        return;
    }
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await;
        }
    });
    for (allow, expected) in [
        // An inner address is reached when it is listed as such, and by no name.
        (format!("127.0.0.1:{port}"), "HTTP/1.1 200 OK\nhi\n".to_owned()),
        (
            "crates.io".to_owned(),
            format!("HTTP/1.1 403 Forbidden\n127.0.0.1:{port} is not on the list of this sandbox\n"),
        ),
    ] {
        let mut spec = probe_program("ask-proxy");
        spec.argv.push(format!("http://127.0.0.1:{port}/"));
        spec.network = Network::Egress { allow: vec![allow], ports: Vec::new() };
        assert_eq!(run(spec).await.ok(), expected);
    }
    let mut spec = probe_program("ask-proxy");
    spec.argv.push(format!("http://localhost:{port}/"));
    spec.network = Network::Egress { allow: vec![format!("localhost:{port}")], ports: Vec::new() };
    assert!(run(spec).await.ok().starts_with("HTTP/1.1 502"));
    let mut spec = shell("echo $https_proxy");
    spec.network = Network::Egress { allow: Vec::new(), ports: Vec::new() };
    assert_eq!(run(spec).await.ok(), "http://127.0.0.1:3128\n");
}

#[tokio::test]
async fn a_missing_network_program_is_named() {
    if !isolates() {
        return;
    }
    let programs: &[&str] = if probe().tier == Tier::Root { &["slirp4netns"] } else { &["pasta", "slirp4netns"] };
    let installed = programs.iter().any(|name| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(name).is_file())
    });
    let tunnels = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    if installed && !tunnels {
        testkit::skipped("the right to open /dev/net/tun");
        return;
    }
    let mut spec = shell("cut -f2 /proc/net/route | grep -c 00000000; cat /etc/resolv.conf");
    spec.network = Network::User { ports: Vec::new() };
    match run(spec).await.exit {
        Err(SandboxError::Refused(message)) if !installed => assert!(message.contains("slirp4netns"), "{message}"),
        Ok(Exit::Code(0)) if installed => {}
        other => panic!("{other:?}"),
    }
}
