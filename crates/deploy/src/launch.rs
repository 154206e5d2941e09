//! From an image and a manifest to what an instance runs.

use std::path::PathBuf;

use gitops::{Container, expand_references};
use model::TargetId;
use oci::{ImageConfig, Platform};

use crate::RolloutFailure;
use crate::request::ServiceRollout;
use crate::service::InstanceSpec;

/// The port of a service that says nothing about it.
const DEFAULT_PORT: u16 = 8080;
/// The search path of an image that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs a service. `lower` are the layers of its image, topmost first.
pub(crate) fn instance(
    target: TargetId,
    target_name: &str,
    service: &ServiceRollout,
    image: &ImageConfig,
    lower: Vec<PathBuf>,
) -> Result<InstanceSpec, RolloutFailure> {
    let container = container(service)?;
    runs_here(service, image)?;
    let merged = oci::merged::Merged::new(lower.clone());
    let user = oci::user::resolve(&merged, &user(container, image))
        .map_err(|error| RolloutFailure::of(&service.name, format!("{}: {error}", service.image)))?;
    let port = port(service, container, image);
    let env = environment(service, container, image, port, &user.home);
    let argv = argv(service, container, image, &env)?;
    let config = &image.config;
    let cwd = container.working_dir.clone().unwrap_or_else(|| config.working_dir.clone());
    let mut ports = vec![port];
    ports.extend(service.health.port.filter(|other| *other != port));
    Ok(InstanceSpec {
        target,
        service: service.name.clone(),
        image: service.image.clone(),
        lower,
        argv,
        env,
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user: (user.uid, user.gid),
        groups: user.groups,
        hostname: hostname(target_name, &service.name),
        port,
        ports,
        memory: container.resources.memory,
        cpu_millis: container.resources.cpu_millis,
        scratch: container.scratch.clone(),
        stop_signal: config.stop_signal.as_deref().and_then(signal).unwrap_or(15),
        grace_ms: u64::from(service.workload.grace_seconds) * 1000,
    })
}

fn container(service: &ServiceRollout) -> Result<&Container, RolloutFailure> {
    let workload = &service.workload;
    let refused = |what: String| {
        let who = format!("{} {} ({}:{})", workload.kind.name(), workload.name, workload.file, workload.line);
        Err(RolloutFailure::of(&service.name, format!("{who} {what}")))
    };
    match workload.containers.as_slice() {
        [only] if only.runs(&service.image.name) => Ok(only),
        [only] => refused(format!("runs {}, not {}", only.image, service.image.name)),
        more => refused(format!("has {} containers: the local engine runs one in each workload", more.len())),
    }
}

fn runs_here(service: &ServiceRollout, image: &ImageConfig) -> Result<(), RolloutFailure> {
    let (platform, here) = (image.platform(), Platform::here());
    if platform.architecture.is_empty() || platform.serves(&here) {
        return Ok(());
    }
    let message = format!("{} is an image for {platform}, and this machine is {here}", service.image);
    Err(RolloutFailure::of(&service.name, message))
}

fn user(container: &Container, image: &ImageConfig) -> String {
    match (container.user, container.group) {
        (None, None) => image.config.user.clone(),
        (Some(user), None) => user.to_string(),
        (user, Some(group)) => {
            let image_user = image.config.user.split(':').next().filter(|user| !user.is_empty());
            let user = user.map(|user| user.to_string());
            format!("{}:{group}", user.as_deref().or(image_user).unwrap_or("0"))
        }
    }
}

/// The port it serves on: the manifest's, else the image's, else 8080.
fn port(service: &ServiceRollout, container: &Container, image: &ImageConfig) -> u16 {
    let exposed = || {
        let tcp = |port: &String| match port.split_once('/') {
            Some((number, "tcp")) => number.parse().ok(),
            Some(_) => None,
            None => port.parse().ok(),
        };
        image.config.exposed_ports.keys().filter_map(tcp).min()
    };
    let said = || service.env.iter().find(|(name, _)| name == "PORT").and_then(|(_, value)| value.parse().ok());
    let written = || container.env.iter().find(|var| var.name == "PORT").and_then(|var| var.value.parse().ok());
    let declared = container.ports.first().map(|port| port.number);
    declared.or_else(said).or_else(written).or_else(exposed).unwrap_or(DEFAULT_PORT)
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    }
}

fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_references(text, |name| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
}

fn environment(
    service: &ServiceRollout,
    container: &Container,
    image: &ImageConfig,
    port: u16,
    home: &str,
) -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("HOME".to_owned(), home.to_owned())];
    for (name, value) in image.config.env.iter().filter_map(|variable| variable.split_once('=')) {
        set(&mut env, name, value.to_owned());
    }
    set(&mut env, "PORT", port.to_string());
    for variable in &container.env {
        let value = expand(&variable.value, &env);
        set(&mut env, &variable.name, value);
    }
    for (name, value) in &service.env {
        set(&mut env, name, value.clone());
    }
    if let Some(commit) = &service.source_commit {
        set(&mut env, "TOWPATH_SOURCE_COMMIT", commit.to_string());
    }
    set(&mut env, "TOWPATH_IMAGE_DIGEST", service.image.digest.to_string());
    env
}

/// Command and arguments, as Kubernetes puts those of image and manifest together.
fn argv(
    service: &ServiceRollout,
    container: &Container,
    image: &ImageConfig,
    env: &[(String, String)],
) -> Result<Vec<String>, RolloutFailure> {
    let config = &image.config;
    let mut argv: Vec<String> = match container.command.is_empty() {
        true => config.entrypoint.clone().unwrap_or_default(),
        false => container.command.iter().map(|part| expand(part, env)).collect(),
    };
    match (container.args.is_empty(), container.command.is_empty()) {
        (false, _) => argv.extend(container.args.iter().map(|part| expand(part, env))),
        (true, true) => argv.extend(config.cmd.clone().unwrap_or_default()),
        (true, false) => {}
    }
    if argv.first().is_none_or(String::is_empty) {
        let message = format!("{} has neither an entrypoint nor a command, and the manifest gives none", service.image);
        return Err(RolloutFailure::of(&service.name, message).hint("add CMD to the Dockerfile"));
    }
    Ok(argv)
}

/// A host name of letters, digits and dashes.
fn hostname(target: &str, service: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = format!("{target}-{service}").chars().map(legal).take(63).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "site".to_owned() } else { name.to_owned() }
}

/// The number of a signal by name (`SIGQUIT`, `QUIT`) or number, as an image's `StopSignal` has it.
fn signal(text: &str) -> Option<i32> {
    let number = match text.strip_prefix("SIG").unwrap_or(text) {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "WINCH" => 28,
        other => other.parse().ok()?,
    };
    (1..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests;
