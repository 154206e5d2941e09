//! Jobs in real sandboxes, from real repositories.
#![allow(clippy::unwrap_used)]

mod actions;
mod bed;
mod ends;
mod steps;
mod supervised;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use testkit as _;

/// Makes this program what the real binary is for `__workload job DIR`: the process of a job.
#[allow(unsafe_code)]
#[used]
// SAFETY: the section holds pointers to functions without parameters, and this is one. What it needs of the start-up
// code that runs later is nothing: the command line comes from /proc.
#[unsafe(link_section = ".init_array")]
static WORKLOAD: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(std::ffi::OsStr::from_bytes).skip(1).collect();
    if let [first, second, dir, ..] = words[..]
        && first == "__workload"
    {
        match second.to_str() {
            Some("job") => runner::supervisor_main(Path::new(dir)),
            Some("server") => supervised::server(Path::new(dir)),
            _ => {}
        }
    }
}
