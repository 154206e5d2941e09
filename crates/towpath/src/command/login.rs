//! `towpath login` and `towpath logout`.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use serde_json::{Value, json};

use crate::cli::{Connection, Format, LoginArgs};
use crate::client::Client;
use crate::error::Failure;
use crate::kept::{self, Login};
use crate::output;

/// Longer texts are no tokens, in bytes.
const LONGEST: u64 = 4096;

fn file() -> Result<PathBuf, Failure> {
    kept::path().ok_or_else(|| Failure::usage("there is no place for a login: set HOME or XDG_CONFIG_HOME"))
}

/// The server that is named before the options, or by them.
fn at(server: Option<String>, connection: Connection) -> Connection {
    Connection { server: server.or(connection.server), ..connection }
}

pub(crate) async fn login(args: LoginArgs, format: Format) -> Result<ExitCode, Failure> {
    let file = file()?;
    let connection = at(args.at, args.connection);
    let mut kept = kept::read(&file)?;
    // Whoever logs in is nobody yet, whatever the environment says.
    let connection = Connection { token: String::new(), ..connection };
    let nobody = Client::anonymous(&connection)?;
    let token = if args.token_stdin { from_input()? } else { from_browser(&nobody, args.provider.as_deref()).await? };
    let client = Client::anonymous(&connection)?.with_token(&token);
    let me = client.get("/user").await?;
    let user = me["name"].as_str().unwrap_or_default().to_owned();
    let server = kept::address(client.server());
    kept.servers.insert(server.clone(), Login { user: user.clone(), token });
    kept.server = Some(server.clone());
    kept::write(&file, &kept)?;
    if !output::machine(format, &json!({ "server": server, "user": user }))? {
        output::data(&format!("logged in to {server} as {user}\n"));
        output::note(&format!("the token is in {}; `towpath logout` forgets it", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn logout(server: Option<String>, connection: Connection, format: Format) -> Result<ExitCode, Failure> {
    let file = file()?;
    let mut kept = kept::read(&file)?;
    let named = at(server, connection).server.map(|server| kept::address(&server));
    let Some(server) = named.or_else(|| kept.server.clone()) else {
        return Err(Failure::failed("nobody is logged in"));
    };
    let Some(login) = kept.servers.remove(&server) else {
        return Err(Failure::failed(format!("nobody is logged in to {server}")));
    };
    if kept.server.as_ref() == Some(&server) {
        kept.server = None;
    }
    kept::write(&file, &kept)?;
    if !output::machine(format, &json!({ "server": server, "user": login.user }))? {
        output::data(&format!("logged out of {server}\n"));
        output::note("the token itself is good until it expires or is revoked: see `towpath user tokens`");
    }
    Ok(ExitCode::SUCCESS)
}

fn from_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("no token can be read from standard input: {error}")))?;
    checked(&text)
}

fn checked(text: &str) -> Result<String, Failure> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::usage("what was given is not a token"));
    }
    Ok(token.to_owned())
}

/// The person signs in with a browser, wherever that is, and brings the token.
async fn from_browser(client: &Client, provider: Option<&str>) -> Result<String, Failure> {
    let answer = client.get("/login").await?;
    let known: Vec<&str> = answer["oidc"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let provider = match (provider, known.as_slice()) {
        (Some(wanted), known) if known.contains(&wanted) => wanted,
        (Some(wanted), known) => {
            return Err(Failure::usage(format!("there is no provider {wanted:?}; there are: {}", known.join(", "))));
        }
        (None, [only]) => only,
        (None, []) => {
            let failure = Failure::usage(format!("{} lets nobody sign in with a browser", client.server()));
            return Err(failure.hint("give a token: `towpath login --token-stdin < FILE`"));
        }
        (None, several) => {
            return Err(Failure::usage(format!("choose one with --provider: {}", several.join(", "))));
        }
    };
    output::note("Open this address in a browser, and sign in there:\n");
    output::note(&format!("  {}/towpath/v1/login/oidc/{provider}\n", client.server()));
    output::note("Then paste the token that the page shows, and press Enter:");
    let echo = Quiet::start();
    let mut line = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_line(&mut line);
    drop(echo);
    read.map_err(|error| Failure::usage(format!("no token can be read: {error}")))?;
    checked(&line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(Option<Termios>);

impl Quiet {
    fn start() -> Self {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Self(None);
        }
        let Ok(before) = termios::tcgetattr(&input) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        let set = termios::tcsetattr(&input, SetArg::TCSANOW, &quiet);
        Self(set.is_ok().then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
