//! The Dockerfile's text, parsed. Pure.
//!
//! Every word keeps the place it was written at, so that whatever is found wrong with it later still shows the line.

mod directives;
mod flags;
mod instruction;
mod lines;
mod operands;
mod parse;
mod text;
mod words;

pub use instruction::{
    Command, CopyInstruction, CopySource, Healthcheck, Heredoc, Instruction, MountFlag, RunInstruction,
};
pub use parse::{Dockerfile, Located, parse, parse_trigger};
pub use text::{DockerfileError, Source, Span, Text};
