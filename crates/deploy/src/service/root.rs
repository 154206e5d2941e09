//! The file system of an instance: the image's layers, and a layer on top that is thrown away with each process.

use std::path::Path;
use std::time::Duration;

use sandbox::{Limits, Mount, MountSource, Network, Root, Spec, Stdio};

use super::spec::InstanceSpec;

/// The size of an `emptyDir`, which lies in memory, in bytes.
const SCRATCH_BYTES: u64 = 256 << 20;

/// What is run, on a fresh top layer below `dir`.
pub(crate) fn sandbox_spec(dir: &Path, spec: &InstanceSpec) -> std::io::Result<Spec> {
    discard(dir)?;
    let root = Root::Layers { lower: spec.lower.clone(), upper: dir.join("upper"), work: dir.join("work") };
    let scratch =
        |target: &String| Mount { source: MountSource::Tmpfs { bytes: SCRATCH_BYTES }, target: target.clone() };
    let mut sandbox = Spec::new(root, spec.argv.clone());
    sandbox.mounts = spec.scratch.iter().map(scratch).collect();
    sandbox.env.clone_from(&spec.env);
    sandbox.cwd.clone_from(&spec.cwd);
    sandbox.user = spec.user;
    sandbox.groups.clone_from(&spec.groups);
    sandbox.alias_user = true;
    sandbox.hostname.clone_from(&spec.hostname);
    sandbox.network = Network::Published { ports: spec.ports.clone() };
    sandbox.limits = Limits { memory: spec.memory, cpu_millis: spec.cpu_millis, ..Limits::default() };
    sandbox.stdout = Stdio::Piped;
    sandbox.stderr = Stdio::Stdout;
    Ok(sandbox)
}

/// Removes the top layer.
pub(crate) fn discard(dir: &Path) -> std::io::Result<()> {
    sandbox::remove_tree(&dir.join("upper"))?;
    sandbox::remove_tree(&dir.join("work"))
}

/// How long to wait before a process that ended is started again: from 100 ms, twice as long each time, up to 30 s; from
/// the beginning again after one that ran for a minute.
pub(crate) fn pause(before: Duration, ran: Duration) -> Duration {
    if ran >= Duration::from_secs(60) || before.is_zero() {
        return Duration::from_millis(100);
    }
    (before * 2).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_start_over() {
        let mut last = Duration::ZERO;
        let mut all = Vec::new();
        for _ in 0..12 {
            last = pause(last, Duration::from_secs(1));
            all.push(last.as_millis());
        }
        assert_eq!(all[..4], [100, 200, 400, 800]);
        assert_eq!(all[11], 30_000);
        assert_eq!(pause(last, Duration::from_secs(61)).as_millis(), 100);
    }
}
