//! One server under several names at once: pushes at a plain name inside, pulls at a name with TLS outside, behind a proxy
//! with a limit on bodies, and TLS of the server's own. Each name is on another machine, and none of them reaches what
//! another one does; so a client succeeds only if every address that it is given fits the name that it dialled.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "names/clients.rs"]
mod clients;
#[path = "names/town.rs"]
mod town;

use std::io::{Read, Write};
use std::net::TcpStream;

use clients::{Docker, Podman, Skopeo};
use town::{DIRECT, INSIDE, OUTSIDE, Town};

/// More than the proxy lets through in one body.
const LARGE: usize = 101 << 20;

#[test]
fn skopeo_pushes_inside_and_pulls_outside() {
    let Some(town) = Town::start(&["skopeo"]) else { return };
    let (inside, outside) = (Skopeo::new(&town.inside, town.token()), Skopeo::new(&town.outside, town.token()));
    let layout = town.layout("large", LARGE);
    let layout = format!("oci:{}", layout.display());
    // The limit is really there, and the name inside is the way around it.
    let refused = outside.copy(&[&layout, &format!("docker://{OUTSIDE}/demo/large:1")]).unwrap_err();
    assert!(refused.contains("413"), "{refused}");
    inside.copy(&["--dest-tls-verify=false", &layout, &format!("docker://{INSIDE}/demo/large:1")]).unwrap();
    let pulled = format!("oci:{}", town.path("pulled").display());
    outside.copy(&[&format!("docker://{OUTSIDE}/demo/large:1"), &pulled]).unwrap();
    assert_eq!(outside.digest(&pulled), town.digest("demo/large", "1"));
    // What fits may go in outside too, and over the server's own TLS.
    let base = format!("docker://{OUTSIDE}/demo/base:1");
    outside.copy(&[&base, &format!("docker://{OUTSIDE}/demo/base:outside")]).unwrap();
    let direct = format!("docker://{DIRECT}/demo/large:direct");
    inside.copy(&[&layout, &direct]).unwrap();
    assert_eq!(inside.digest(&direct), town.digest("demo/large", "1"));
    // Nobody speaks for this name to a client that does not know the authority.
    let stranger = Skopeo::new(&town.stranger, town.token());
    let refused = stranger.copy(&[&base, &format!("oci:{}", town.path("stranger").display())]).unwrap_err();
    assert!(refused.contains("unknown authority"), "{refused}");
}

#[test]
fn podman_pushes_inside_and_pulls_outside() {
    let Some(town) = Town::start(&["podman"]) else { return };
    let inside = Podman::new(&town.inside, town.path("inside"), town.token());
    let outside = Podman::new(&town.outside, town.path("outside"), town.token());
    let (base, app) = (format!("{INSIDE}/demo/base:1"), format!("{INSIDE}/demo/app:podman"));
    inside.run(&["pull", "--tls-verify=false"], &[&base]);
    inside.run(&["tag"], &[&base, &app]);
    inside.run(&["push", "--tls-verify=false"], &[&app]);
    let there = format!("{OUTSIDE}/demo/app:podman");
    outside.run(&["pull"], &[&there]);
    assert_eq!(outside.digest(&there), town.digest("demo/app", "podman"));
    let direct = format!("{DIRECT}/demo/app:direct");
    inside.run(&["tag"], &[&base, &direct]);
    inside.run(&["push"], &[&direct]);
    assert!(!town.digest("demo/app", "direct").is_empty());
}

#[test]
fn docker_pushes_inside_and_pulls_outside() {
    let Some(town) = Town::start(&["dockerd", "docker", "containerd"]) else { return };
    // Plain HTTP is something that docker has to be told of, inside; outside it verifies.
    let insecure = ["--insecure-registry", INSIDE];
    let Some(inside) = Docker::start(&town.inside, &town.path("inside"), &insecure) else { return };
    let Some(outside) = Docker::start(&town.outside, &town.path("outside"), &[]) else { return };
    inside.login(INSIDE, town.token());
    let (base, app) = (format!("{INSIDE}/demo/base:1"), format!("{INSIDE}/demo/app:docker"));
    inside.run(&["pull", &base]);
    inside.run(&["tag", &base, &app]);
    inside.run(&["push", &app]);
    outside.login(OUTSIDE, town.token());
    let there = format!("{OUTSIDE}/demo/app:docker");
    outside.run(&["pull", &there]);
    assert_eq!(outside.digest(&there), town.digest("demo/app", "docker"));
    inside.login(DIRECT, town.token());
    inside.run(&["pull", &format!("{DIRECT}/demo/app:docker")]);
}

#[test]
fn the_command_line_verifies_the_server() {
    let Some(town) = Town::start(&[]) else { return };
    let export = |more: &[&str]| {
        let program = e2e::program(e2e::Program::Debug);
        let mut command = town.inside.command(program.to_str().unwrap());
        command.args(["export", "--server", &format!("https://{DIRECT}"), "--token", town.token()]).args(more);
        e2e::finish(&mut command)
    };
    let authority = town.path("authority.pem");
    let exported = export(&["--ca", authority.to_str().unwrap()]);
    assert!(exported.code == Some(0) && exported.stdout.contains("name: demo"), "{exported:?}");
    let refused = export(&[]);
    assert!(refused.code == Some(5) && refused.stderr.contains("certificate"), "{refused:?}");
}

#[test]
fn only_the_proxy_is_believed() {
    let Some(town) = Town::start(&[]) else { return };
    let realm = |machine: &e2e::Machine, address: &str, head: &str| {
        let request = format!("GET /v2/ HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        machine.run(|| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let said = format!("X-Forwarded-Host: {OUTSIDE}\r\nX-Forwarded-Proto: https\r\n");
    let inside = realm(&town.inside, town::PLAIN, &format!("Host: {INSIDE}\r\n{said}"));
    assert!(inside.contains(&format!("realm=\"http://{INSIDE}/")), "{inside}");
    let proxy = realm(&town.proxy, town::BEHIND, &format!("Host: towpath\r\n{said}"));
    assert!(proxy.contains(&format!("realm=\"https://{OUTSIDE}/")), "{proxy}");
    let proxy = realm(&town.proxy, town::BEHIND, &format!("Host: {OUTSIDE}\r\n"));
    assert!(proxy.contains(&format!("realm=\"http://{OUTSIDE}/")), "https is never assumed: {proxy}");
    for (machine, address, host) in [(&town.inside, town::PLAIN, OUTSIDE), (&town.proxy, town::BEHIND, INSIDE)] {
        let elsewhere = realm(machine, address, &format!("Host: {host}\r\n"));
        assert!(elsewhere.starts_with("HTTP/1.1 421 "), "{elsewhere}");
    }
}
