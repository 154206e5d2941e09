//! A command in its sandbox, seen from its owner.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::{oneshot, watch};

use crate::error::SandboxError;
use crate::exit::{Exit, LimitHit};
use crate::launch::{self, OwnEnds, setup};
use crate::output::{Budget, Output};
use crate::spec::{Network, Spec};
use crate::watched::watch;
use crate::wire::{self, Notice, Order};

/// How long a connection into the sandbox may take to be accepted by the kernel.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The socket to the first process inside.
#[derive(Debug)]
pub(crate) struct Link {
    control: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<OwnedFd, i32>>>>,
    next: AtomicU64,
    pid: AtomicI32,
}

impl Link {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<OwnedFd, i32>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn order(&self, order: &Order) -> io::Result<()> {
        self.control.async_io(Interest::WRITABLE, |socket| wire::send(socket, order, &[])).await
    }

    /// Tells without waiting; a first process that cannot take one more order is cut off instead, which kills it.
    fn order_now(&self, order: &Order) {
        if wire::send(self.control.get_ref(), order, &[]).is_err() {
            self.cut();
        }
    }

    pub(crate) fn kill(&self) {
        self.order_now(&Order::Kill);
    }

    /// Ends the connection: the first process takes that for its owner's death.
    fn cut(&self) {
        let _ = rustix::net::shutdown(self.control.get_ref(), rustix::net::Shutdown::Both);
    }
}

#[derive(Clone, Debug)]
enum State {
    Starting,
    Started,
    Ended(Result<Exit, SandboxError>),
}

/// A command in its sandbox. Dropping it kills everything in the sandbox.
#[derive(Debug)]
pub struct Running {
    link: Arc<Link>,
    state: watch::Receiver<State>,
    ports: Vec<u16>,
    stdin: Option<pipe::Sender>,
    stdout: Option<Output>,
    stderr: Option<Output>,
}

/// Starts a command. Returns as soon as the helper process exists; whether the command came to run is known from
/// [`Running::started`] and [`Running::wait`]. Must be called within a tokio runtime (a blocking thread of one will do).
///
/// # Errors
/// When the machine cannot isolate, when something asked for does not exist in this tier, or when no process can be made.
pub fn spawn(spec: Spec) -> Result<Running, SandboxError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(SandboxError::Invalid("called outside an asynchronous runtime".to_owned()));
    }
    let mut plan = launch::plan(spec)?;
    let (ours, theirs) = launch::control_pair().map_err(|error| setup("make a socket pair", &error))?;
    let ends = launch::hand_over(&ours, &mut plan)?;
    let mut command = tokio::process::Command::from(launch::helper_command(theirs));
    let child = command.spawn().map_err(|error| setup("start the helper process", &error))?;
    drop(command);
    let follow = Follow::new(ours, child, &plan.spec).map_err(|error| setup("watch the helper process", &error))?;
    follow.into_running(ends, &plan.spec).map_err(|error| setup("watch the command's output", &error))
}

/// What the task that listens to the sandbox has.
struct Follow {
    link: Arc<Link>,
    child: Child,
    budget: Arc<Budget>,
    state: watch::Sender<State>,
    egress: Vec<String>,
}

impl Follow {
    fn new(control: OwnedFd, child: Child, spec: &Spec) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&control, true)?;
        let link = Link {
            control: watch(control)?,
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            pid: AtomicI32::new(0),
        };
        let egress = match &spec.network {
            Network::Egress { allow, .. } => allow.clone(),
            _ => Vec::new(),
        };
        let budget = Arc::new(Budget::new(spec.limits.output));
        Ok(Self { link: Arc::new(link), child, budget, state: watch::Sender::new(State::Starting), egress })
    }

    fn into_running(self, ends: OwnEnds, spec: &Spec) -> io::Result<Running> {
        let output = |end: Option<OwnedFd>| {
            end.map(|end| Output::new(end, self.budget.clone(), Arc::downgrade(&self.link))).transpose()
        };
        let running = Running {
            stdin: ends.stdin.map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: output(ends.stdout)?,
            stderr: output(ends.stderr)?,
            link: self.link.clone(),
            state: self.state.subscribe(),
            ports: spec.network.ports().to_vec(),
        };
        tokio::spawn(self.run());
        Ok(running)
    }

    async fn run(mut self) {
        let mut end = None;
        let mut out_of_memory = false;
        let mut proxy = None;
        loop {
            let received =
                self.link.control.async_io(Interest::READABLE, |socket| wire::receive::<Notice>(socket)).await;
            let Ok(Some((notice, mut fds))) = received else { break };
            match notice {
                Notice::Pid(pid) => self.link.pid.store(pid, Ordering::Relaxed),
                Notice::Listening => {
                    let allow = std::mem::take(&mut self.egress);
                    proxy = fds.pop().map(|fd| tokio::spawn(crate::egress::serve(fd, allow)));
                }
                Notice::Started => _ = self.state.send_replace(State::Started),
                Notice::Failed(failure) => end = end.or(Some(Err(failure.into()))),
                Notice::Connected { id } => self.answer(id, fds.pop().ok_or(libc::EIO)),
                Notice::NotConnected { id, errno } => self.answer(id, Err(errno)),
                Notice::Exited(exit) => end = end.or(Some(Ok(exit))),
                Notice::Ended { out_of_memory: hit } => out_of_memory = hit,
            }
        }
        self.link.waiting().clear();
        // The namespaces, the overlay and the cgroup are gone when the helper is.
        let _ = self.child.wait().await;
        if let Some(proxy) = proxy {
            proxy.abort();
        }
        let end = self.judge(end, out_of_memory);
        self.state.send_replace(State::Ended(end));
    }

    fn answer(&self, id: u64, result: Result<OwnedFd, i32>) {
        if let Some(waiting) = self.link.waiting().remove(&id) {
            let _ = waiting.send(result);
        }
    }

    fn judge(&self, end: Option<Result<Exit, SandboxError>>, out_of_memory: bool) -> Result<Exit, SandboxError> {
        match end {
            Some(Err(error)) => Err(error),
            _ if self.budget.spent() => Ok(Exit::Limit(LimitHit::Output)),
            Some(Ok(exit)) if out_of_memory && !exit.success() => Ok(Exit::Limit(LimitHit::Memory)),
            None if out_of_memory => Ok(Exit::Limit(LimitHit::Memory)),
            Some(Ok(exit)) => Ok(exit),
            None => Err(SandboxError::Lost),
        }
    }
}

impl Running {
    /// Waits until the command has been executed.
    ///
    /// # Errors
    /// Why it was not.
    pub async fn started(&self) -> Result<(), SandboxError> {
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Starting)).await.as_deref() {
            Ok(State::Ended(Err(error))) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(SandboxError::Lost),
        }
    }

    /// Waits until the command ended and everything else in the sandbox is dead and unmounted. May be called again.
    ///
    /// # Errors
    /// Why the command was not executed, or that its end is not known.
    pub async fn wait(&self) -> Result<Exit, SandboxError> {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
            Ok(State::Ended(end)) => end.clone(),
            _ => Err(SandboxError::Lost),
        }
    }

    /// Kills everything in the sandbox now. [`Running::wait`] then says `Signal(9)`.
    pub fn kill(&self) {
        self.link.kill();
    }

    /// Sends the command (not what it started) a signal.
    pub fn signal(&self, signal: i32) {
        self.link.order_now(&Order::Signal(signal));
    }

    /// Sends the command a signal and kills everything if it has not ended after `grace`.
    pub fn stop(&self, signal: i32, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.link.order_now(&Order::Stop { signal, grace_ms });
    }

    /// A connection to `127.0.0.1:port` (or `[::1]:port`) inside, as a non-blocking TCP socket. The port must be one of
    /// the spec's [`Network::ports`].
    ///
    /// # Errors
    /// When nothing listens there, or the port is not published.
    pub async fn connect(&self, port: u16) -> Result<OwnedFd, SandboxError> {
        let failed = |reason: String| SandboxError::Connect { port, reason };
        if !self.ports.contains(&port) {
            return Err(SandboxError::Refused(format!("port {port} of the sandbox is not published")));
        }
        self.started().await?;
        let (sender, answer) = oneshot::channel();
        let id = self.link.next.fetch_add(1, Ordering::Relaxed);
        self.link.waiting().insert(id, sender);
        if matches!(*self.state.borrow(), State::Ended(_)) {
            self.link.waiting().remove(&id);
        } else if let Err(error) = self.link.order(&Order::Connect { id, port }).await {
            self.link.waiting().remove(&id);
            return Err(failed(error.to_string()));
        }
        let fd = match answer.await {
            Ok(Ok(fd)) => fd,
            Ok(Err(errno)) => return Err(failed(io::Error::from_raw_os_error(errno).to_string())),
            Err(_) => return Err(failed("the sandbox has ended".to_owned())),
        };
        match tokio::time::timeout(CONNECT_TIME, established(fd)).await {
            Ok(Ok(fd)) => Ok(fd),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the connection was not accepted in time".to_owned())),
        }
    }

    /// The same, as tokio's type.
    ///
    /// # Errors
    /// As [`Running::connect`].
    pub async fn connect_stream(&self, port: u16) -> Result<tokio::net::TcpStream, SandboxError> {
        let fd = self.connect(port).await?;
        tokio::net::TcpStream::from_std(std::net::TcpStream::from(fd))
            .map_err(|error| SandboxError::Connect { port, reason: error.to_string() })
    }

    /// The id of the first process inside, as this process sees it; nothing before [`Running::started`].
    pub fn pid(&self) -> Option<u32> {
        u32::try_from(self.link.pid.load(Ordering::Relaxed)).ok().filter(|pid| *pid != 0)
    }

    /// The writing end of the command's input, if it is piped; once.
    pub fn take_stdin(&mut self) -> Option<pipe::Sender> {
        self.stdin.take()
    }

    /// The command's output, if it is piped; once.
    pub fn take_stdout(&mut self) -> Option<Output> {
        self.stdout.take()
    }

    /// The command's error output, if it is piped; once.
    pub fn take_stderr(&mut self) -> Option<Output> {
        self.stderr.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.link.cut();
    }
}

/// Waits until a connection that may still be in progress stands.
async fn established(fd: OwnedFd) -> io::Result<OwnedFd> {
    let socket = watch(fd)?;
    socket.writable().await?.retain_ready();
    match rustix::net::sockopt::socket_error(socket.get_ref())? {
        Ok(()) => Ok(socket.into_inner()),
        Err(error) => Err(error.into()),
    }
}
