//! The commands.

mod access;
mod image;
mod login;
mod logs;
mod migrate;
mod records;
mod registry;
mod replication;
mod robots;
mod runs;
mod secrets;
mod status;
mod up;
mod upkeep;
pub(crate) mod workload;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::registry::RegistryCommand;
use crate::cli::{Cli, Command};
use crate::demo;
use crate::error::Failure;

/// Runs a command to its end.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let output = cli.output;
    match cli.command {
        Command::Up(args) => runtime(true)?.block_on(up::up(args)),
        Command::Registry(RegistryCommand::Serve(args)) => runtime(true)?.block_on(registry::serve(args)),
        Command::Image(command) => runtime(true)?.block_on(image::image(command, output)),
        Command::Migrate(command) => runtime(true)?.block_on(migrate::migrate(command, output)),
        Command::Demo(args) => runtime(true)?.block_on(demo::demo(args, output)),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "towpath", &mut script);
            crate::output::bytes(&script);
            Ok(ExitCode::SUCCESS)
        }
        command => runtime(false)?.block_on(Box::pin(client(command, output))),
    }
}

async fn client(command: Command, output: crate::cli::Format) -> Result<ExitCode, Failure> {
    match command {
        Command::Login(args) => Box::pin(login::login(args, output)).await,
        Command::Logout { at, connection } => login::logout(at, connection, output),
        Command::Apply { file, connection } => records::apply(&file, &connection, output).await,
        Command::Export { connection } => records::export(&connection).await,
        Command::Status { what, connection } => status::status(what, &connection, output).await,
        Command::Logs { run, part, follow, connection } => logs::logs(run, part, follow, &connection).await,
        Command::Run(command) => runs::run(command, output).await,
        Command::User(command) => access::user(command, output).await,
        Command::Org(command) => access::org(command, output).await,
        Command::Robot(command) => robots::robot(command, output).await,
        Command::Group(command) => robots::group(command, output).await,
        Command::Registry(RegistryCommand::Keys(command)) => robots::keys(command, output).await,
        Command::Repo(command) => access::repo(command, output).await,
        Command::Target(command) => access::target(command).await,
        Command::Secrets(command) => secrets::secrets(command, output).await,
        Command::Registry(RegistryCommand::Replication { again, connection }) => {
            replication::replication(again, &connection, output).await
        }
        Command::Registry(command) => upkeep::registry(command, output).await,
        Command::Up(_) | Command::Image(_) | Command::Migrate(_) | Command::Demo(_) | Command::Completion { .. } => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime(server: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = if server {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    // Blocking work is disk and compression; more threads than this only hold memory.
    builder.max_blocking_threads(16);
    builder.enable_all().build().map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))
}
