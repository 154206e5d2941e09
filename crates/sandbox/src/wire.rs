//! What the owner, the helper and the first process inside say to each other: one JSON text per packet, with file
//! descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::SandboxError;
use crate::exit::Exit;
use crate::helper::cgroup::Hierarchies;
use crate::spec::Spec;

/// What the helper is to do. Travels in a memory file because it can be longer than a packet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The tier to use.
    pub tier: PlanTier,
    /// Do everything except the last step: execute nothing.
    pub trial: bool,
    /// The command.
    pub spec: Spec,
    /// The program that gives the network of [`Network::User`](crate::Network::User).
    pub user_network: Option<UserNetwork>,
    /// Where control groups can be made.
    pub cgroups: Hierarchies,
}

/// The tiers a sandbox can be made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PlanTier {
    Root,
    SingleId { uid: u32, gid: u32 },
}

/// A user-mode network program and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UserNetwork {
    Pasta(std::path::PathBuf),
    Slirp4netns(std::path::PathBuf),
}

/// From the owner to the first process inside.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Send the command a signal.
    Signal(i32),
    /// Send the command a signal, and kill everything after so many milliseconds.
    Stop { signal: i32, grace_ms: u64 },
    /// Kill everything.
    Kill,
    /// Connect to a TCP port on the loopback interface.
    Connect { id: u64, port: u16 },
}

/// From the helper and the first process inside to the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// The first process's id as the owner's side sees it.
    Pid(i32),
    /// A listening socket for the proxy comes along.
    Listening,
    /// The command runs.
    Started,
    /// It will not.
    Failed(Failure),
    /// A socket comes along.
    Connected { id: u64 },
    /// There is none.
    NotConnected { id: u64, errno: i32 },
    /// The command ended.
    Exited(Exit),
    /// Everything in the sandbox is gone.
    Ended { out_of_memory: bool },
}

/// Between the helper and the first process, and between that and the command before it is executed.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Step {
    /// Go on.
    Go,
    /// I am in a new user namespace that has no map yet.
    Unshared,
    /// I have a network namespace.
    Networked,
    /// Connect the network of this process.
    Join(i32),
    /// This went wrong.
    Failed(Failure),
}

/// A step that failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Failure {
    Step { what: String, errno: i32 },
    NotFound { program: String },
    CannotRun { program: String, errno: i32 },
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        let reason = |errno| io::Error::from_raw_os_error(errno).to_string();
        match failure {
            Failure::Step { what, errno } => Self::Setup { what, reason: reason(errno) },
            Failure::NotFound { program } => Self::NotFound(program),
            Failure::CannotRun { program, errno } => Self::CannotRun { program, reason: reason(errno) },
        }
    }
}

/// For `map_err`: names the step that failed.
pub(crate) fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| {
        let errno = error.into().raw_os_error().unwrap_or(libc::EIO);
        // A packet has to hold it.
        let what: String = what.into().chars().take(600).collect();
        Failure::Step { what, errno }
    }
}

/// A packet never holds more.
pub(crate) const PACKET: usize = 64 << 10;

/// Sends one message.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > PACKET {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message with its file descriptors; nothing when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(&mut text)];
        rustix::net::recvmsg(socket.as_fd(), parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, fds)))
}
