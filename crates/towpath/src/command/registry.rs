//! `towpath registry`.

use std::process::ExitCode;

use config::ServerSpec;

use crate::cli::registry::{Anonymous, ServeArgs};
use crate::command::up;
use crate::error::Failure;

/// The registry alone.
pub(crate) async fn serve(args: ServeArgs) -> Result<ExitCode, Failure> {
    up::prepare(args.log_json);
    let mut spec = match &args.config {
        Some(path) => up::read_spec(path)?,
        None => ServerSpec::default(),
    };
    spec.actions = None;
    let registry = spec.registry.get_or_insert_default();
    if !args.anonymous.is_empty() {
        registry.anonymous = args.anonymous.iter().map(|it| right(*it)).collect();
    }
    if registry.anonymous == [config::Anonymous::Push] {
        return Err(Failure::usage("--anonymous push: who may push may pull").hint("write --anonymous pull,push"));
    }
    if let Some(address) = args.listen {
        spec.listeners.truncate(1);
        spec.listeners[0].address = address;
    }
    for listener in &mut spec.listeners {
        listener.hosts.extend(args.hosts.iter().cloned());
    }
    up::serve(spec, args.data).await
}

const fn right(given: Anonymous) -> config::Anonymous {
    match given {
        Anonymous::Pull => config::Anonymous::Pull,
        Anonymous::Push => config::Anonymous::Push,
    }
}
