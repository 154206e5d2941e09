//! The local engine with real images, sandboxes, supervisors and proxies.
//!
//! This program is three things, as the real binary is: the sandbox's helper (through `testkit`), the supervisor of a
//! workload, and who asks for all that.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod client;
mod failures;
mod image;
mod proxying;
mod replacing;
mod setup;
mod surviving;

use testkit as _;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Test = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), (|| Box::pin($module::$name())) as Test)),*]
    };
}

const TESTS: &[(&str, Test)] = tests![
    replacing::no_request_is_dropped,
    replacing::an_equal_service_is_left_running,
    replacing::two_services_have_their_own_addresses,
    replacing::a_fixed_address_is_kept_and_a_taken_one_refused,
    proxying::large_bodies_stream_both_ways,
    proxying::connections_change_protocol,
    proxying::many_connections_in_little_memory,
    failures::a_sick_version_does_not_take_over,
    failures::another_build_does_not_take_over,
    failures::a_crash_is_seen_at_once,
    failures::the_port_it_listens_on_is_guessed,
    failures::what_cannot_be_started_says_why,
    surviving::a_process_that_dies_is_started_again,
    surviving::supervisors_that_die_are_started_again,
    surviving::a_new_server_takes_over,
    surviving::a_server_killed_in_a_rollout_converges,
    surviving::a_rollout_that_is_given_up_leaves_nothing,
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["__workload", kind, dir] => std::process::exit(deploy::workload_main(kind, dir.as_ref())),
        ["__server", dir] => surviving::server(dir.as_ref()),
        ["--list", ..] => TESTS.iter().for_each(|(name, _)| println!("{name}: test")),
        others => {
            let filter = others.iter().find(|argument| !argument.starts_with('-')).copied().unwrap_or_default();
            std::process::exit(run(filter));
        }
    }
}

fn run(filter: &str) -> i32 {
    if let Err(missing) = setup::prerequisites() {
        testkit::skipped(&missing);
        return 0;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(async {
        // Some wait for seconds, and each has several processes.
        let places = Arc::new(tokio::sync::Semaphore::new(4));
        let mut running = Vec::new();
        for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(filter)) {
            let places = places.clone();
            let task = tokio::spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let began = std::time::Instant::now();
                let ended = tokio::spawn(test()).await;
                println!(
                    "test {name} ... {} ({:.1} s)",
                    if ended.is_ok() { "ok" } else { "FAILED" },
                    began.elapsed().as_secs_f64()
                );
                ended.is_err()
            });
            running.push(task);
        }
        let mut failed = 0;
        for task in running {
            failed += i32::from(task.await.unwrap());
        }
        failed
    });
    println!("{failed} failed");
    i32::from(failed > 0)
}
