//! What the tests of several rooms need. Never in the binary.
//!
//! A test binary that links this crate (`use testkit as _;` is enough) can be started again as the sandbox's helper,
//! as the real binary can: the test harness has no `main` that could call [`sandbox::dispatch`], so it is called before it.

/// Runs before `main`, because the C start-up code calls everything in this section.
#[allow(unsafe_code)]
#[used]
// SAFETY: the section holds pointers to functions without parameters, and this is one. The helper uses nothing that
// the start-up code sets up later: its arguments come from /proc.
#[unsafe(link_section = ".init_array")]
static HELPER: extern "C" fn() = before_main;

extern "C" fn before_main() {
    sandbox::dispatch();
}

/// Says why a test did nothing: what it needs is not on this machine.
#[allow(clippy::print_stderr)]
pub fn skipped(missing: &str) {
    eprintln!("skipped: {missing}");
}
