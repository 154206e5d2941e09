//! `towpath`: one program from git push to a running site.

mod cli;
mod client;
mod command;
mod demo;
mod error;
mod kept;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The sandbox's helper and the supervisors are this same program; they must be themselves before anything starts.
    sandbox::dispatch();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "__workload") {
        return command::workload::run(arguments);
    }
    let cli = cli::Cli::parse();
    match command::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}
