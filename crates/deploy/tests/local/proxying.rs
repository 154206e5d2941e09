//! What passes the proxy.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{Client, address};
use crate::setup::{Site, workloads};

pub async fn large_bodies_stream_both_ways() {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let mut down = BufReader::new(TcpStream::connect(at).await.unwrap());
    down.write_all(b"GET /big/512 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while !line.ends_with("\r\n\r\n") {
        down.read_line(&mut line).await.unwrap();
    }
    let mut first = vec![0; 1 << 20];
    down.read_exact(&mut first).await.unwrap();
    // The new version takes over while most of the answer of the old one is still to come.
    site.roll("v2", "well").await.unwrap();
    let mut rest = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match down.read(&mut buffer).await.unwrap() {
            0 => break,
            read => rest += read,
        }
    }
    assert_eq!(first.len() + rest, 512 * 65536);

    let mut up = Client::connect(at).await.into_stream();
    let block = vec![b'y'; 1 << 16];
    up.write_all(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n").await.unwrap();
    for _ in 0..512 {
        up.write_all(&block).await.unwrap();
    }
    up.write_all(b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("33554432") {
        assert_ne!(up.read_line(&mut text).await.unwrap_or(0), 0, "{text}");
        if text.ends_with("\r\n\r\n") && text.contains("200 OK") {
            let mut body = [0; 8];
            up.read_exact(&mut body).await.unwrap();
            text.push_str(std::str::from_utf8(&body).unwrap());
        }
    }
    up.write_all(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") || !text.contains("200 OK") {
        assert_ne!(up.read_line(&mut text).await.unwrap(), 0, "{text}");
    }
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n"), "{text}");
    let mut body = [0; 1];
    up.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"7");
    site.end().await;
}

pub async fn connections_change_protocol() {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let mut stream = BufReader::new(TcpStream::connect(at).await.unwrap());
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).await.unwrap(), 0);
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("upgrade: echo"), "{head}");
    site.roll("v2", "well").await.unwrap();
    for word in ["one\n", "two\n"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, format!("v1 {word}"), "the connection stays with the version that has it");
    }
    drop(stream);
    site.one_instance().await;

    let mut old = TcpStream::connect(at).await.unwrap();
    old.write_all(b"GET http://elsewhere.example/headers HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.contains("host: elsewhere.example\n"), "{answer}");

    let headers = Client::connect(at).await.get("/headers").await.unwrap().body;
    assert!(headers.contains("x-forwarded-for: 127.0.0.1\n"), "{headers}");
    assert!(headers.contains(&format!("host: {at}\n")), "{headers}");
    site.end().await;
}

pub async fn many_connections_in_little_memory() {
    let site = Site::new();
    let at = address(&site.roll("v1", "well").await.unwrap().address);
    let asks = (0..150).map(|number| {
        tokio::spawn(async move {
            let mut client = Client::connect(at).await;
            let answer = client.get("/slow/500").await.unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (200, "v1"), "request {number}");
            client
        })
    });
    let mut clients = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        clients.push(ask.await.unwrap());
    }
    for client in &mut clients {
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    let sites = site.path().join("sites");
    let [proxy] = workloads(&sites)[..] else { panic!("one proxy expected") };
    let status = std::fs::read_to_string(format!("/proc/{proxy}/status")).unwrap();
    let kilobytes = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("proxy: {} kB resident, of that {} kB of its own", kilobytes("VmRSS"), kilobytes("RssAnon"));
    // The program's own pages are shared with the server, and larger without optimisation.
    assert!(kilobytes("RssAnon") < 8 << 10, "{status}");
    assert!(kilobytes("VmRSS") < 24 << 10, "{status}");
    drop(clients);
    tokio::time::sleep(Duration::from_millis(50)).await;
    site.end().await;
}
