//! The workspace's own tasks: `cargo xtask ci | tidy | bench | fault | fuzz`.

#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod ci;
mod fault;
mod fuzz;
mod processes;
mod tidy;
mod unsynced;

use std::process::ExitCode;

const USAGE: &str = "cargo xtask TASK

  ci                                 lints, tests and the demo: what has to pass before anything lands
  tidy                               the rules of the house: dependencies, lengths, names
  bench path [--pushes N] [--json]   push to first log line and to new content served, p50 and p99
  bench registry [--quick | --upkeep] [--json] [--program PATH]
                                     the registry beside Debian's docker-registry: processor time, memory, durations
  fault path [--points N] [--seed S] [--at POINT] [--unsynced]
                                     kills the server at random and at named points, and compares the ends; with
                                     --unsynced a power cut takes everything and whatever was not synced
  fault registry [--points N] [--seed S] [--unsynced | --full-disk] [--replicated] [--program PATH]
                                     the same for the registry alone, under mixed pushes, deletes, retention and collection;
                                     with --replicated what arrives at another registry is compared as well
  fuzz [--seconds N] [TARGET]        feeds the parsers what strangers might send, a minute each; targets are the names
                                     below fuzz/corpus";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["bench", "path", rest @ ..] => bench::path(rest),
        ["bench", "registry", rest @ ..] => bench::registry::registry(rest),
        ["fault", "path", rest @ ..] => fault::path(rest),
        ["fault", "registry", rest @ ..] => fault::registry(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The value of `--name VALUE`, or the default.
fn option<T: std::str::FromStr>(words: &[&str], name: &str, default: T) -> Result<T, String> {
    match words.iter().position(|word| *word == name) {
        None => Ok(default),
        Some(at) => {
            let value = words.get(at + 1).ok_or_else(|| format!("{name} needs a value"))?;
            value.parse().map_err(|_| format!("{name}: {value:?} is not a number"))
        }
    }
}
