//! Sockets of the sandbox's own network, and the programs that connect it to the machine's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};

use super::system;
use crate::wire::{self, Failure, Step, UserNetwork, failed};

/// A connection to a port on the loopback interface; it may still be on its way.
pub(crate) fn connect(port: u16) -> Result<OwnedFd, i32> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let connected = match connect_to(v4) {
        Err(rustix::io::Errno::CONNREFUSED) => connect_to(v6).map_err(|_| rustix::io::Errno::CONNREFUSED),
        other => other,
    };
    connected.map_err(rustix::io::Errno::raw_os_error)
}

fn connect_to(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Err(rustix::io::Errno::INPROGRESS) => {
            // On loopback the answer is there already, unless the listener's queue is full.
            if system::writable(&socket) {
                rustix::net::sockopt::socket_error(&socket)??;
            }
        }
        other => other?,
    }
    Ok(socket)
}

/// A listener on the loopback interface.
pub(crate) fn listen(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// The name server that user-mode networks offer inside.
pub(crate) const USER_RESOLVER: &str = "10.0.2.3";

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until this network namespace has a way out. The kernel says when its routes change.
pub(crate) fn await_route() -> Result<(), Failure> {
    const ROUTES: u32 = 0x40;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it is that of routes, number 0.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
        .map_err(failed("listen to route changes"))?;
    let address = rustix::net::netlink::SocketAddrNetlink::new(0, ROUTES);
    rustix::net::bind(&socket, &address).map_err(failed("listen to route changes"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let routes = std::fs::read_to_string("/proc/net/route").map_err(failed("read the routes"))?;
        // Destination 0.0.0.0, in the second column.
        if routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000")) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed("wait for the network program to make a route")(io::Error::from_raw_os_error(
                libc::ETIMEDOUT,
            )));
        }
        system::readable(&socket, left);
        let mut skipped = [0; 4096];
        while rustix::net::recv(&socket, &mut skipped[..], rustix::net::RecvFlags::empty())
            .is_ok_and(|(read, _)| read > 0)
        {}
    }
}

/// The process that becomes the program for the machine's network. It is made before the helper enters any namespace,
/// so that the program is outside of all of them, and dies with the helper.
pub(crate) struct Companion {
    pid: Pid,
    socket: OwnedFd,
}

impl Companion {
    pub(crate) fn prepare(program: &UserNetwork) -> Result<Self, Failure> {
        let (socket, theirs) = crate::launch::control_pair().map_err(failed("make a socket pair"))?;
        match system::fork().map_err(failed("make a process for the network program"))? {
            Some(pid) => Ok(Self { pid, socket }),
            None => {
                drop(socket);
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                if let Ok(Some((Step::Join(pid), _))) = wire::receive::<Step>(&theirs) {
                    // Only returns if the program cannot be started; that shows in the missing route.
                    let _ = command(program, pid).exec();
                }
                std::process::exit(1)
            }
        }
    }

    /// Connects the network namespace of `pid` to the machine's network.
    pub(crate) fn start(&self, pid: i32) -> Result<(), Failure> {
        wire::send(&self.socket, &Step::Join(pid), &[]).map_err(failed("start the network program"))
    }

    pub(crate) fn end(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        super::wait_for(self.pid);
    }
}

fn command(program: &UserNetwork, pid: i32) -> Command {
    let pid = pid.to_string();
    let (path, arguments): (_, &[&str]) = match program {
        UserNetwork::Slirp4netns(path) => {
            (path, &["--configure", "--mtu=65520", "--disable-host-loopback", &pid, "tap0"])
        }
        UserNetwork::Pasta(path) => (
            path,
            &[
                "--foreground",
                "--quiet",
                "--config-net",
                "--address",
                "10.0.2.15",
                "--netmask",
                "24",
                "--gateway",
                "10.0.2.2",
                "--dns-forward",
                USER_RESOLVER,
                "--no-map-gw",
                "--tcp-ports",
                "none",
                "--udp-ports",
                "none",
                "--tcp-ns",
                "none",
                "--udp-ns",
                "none",
                &pid,
            ],
        ),
    };
    let mut command = Command::new(path);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
