//! An engine in a directory of its own, and rollouts of the web server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deploy::{Health, Identity, Local, LocalConfig, Rollout, RolloutFailure, RolloutReport, ServiceRollout};
use gitops::{Container, EnvVar, Workload, WorkloadKind};
use model::{CommitId, PinnedImage, TargetId};
use oci::{IdMap, LayerStore};

use crate::image::{Shop, perl_files};

pub const TARGET: TargetId = TargetId(7);

/// What these tests cannot do without.
pub fn prerequisites() -> Result<(), String> {
    let found = sandbox::probe();
    if let sandbox::Tier::None { reason } = &found.tier {
        return Err(format!("a sandbox: {reason}"));
    }
    if !found.overlay {
        return Err("overlay file systems".to_owned());
    }
    perl_files().map(|_| ()).ok_or_else(|| "/usr/bin/perl and ldd".to_owned())
}

/// An engine over `dir`, as a server that has just started has it.
pub fn engine(dir: &Path) -> Local {
    let ids = sandbox::id_map();
    let ids = if ids.count == 1 { IdMap::single() } else { IdMap::shifted(ids.outside) };
    let config = LocalConfig {
        dir: dir.to_owned(),
        layers: LayerStore::open(&dir.join("layers"), ids).unwrap(),
        images: Arc::new(Shop::open(&dir.join("shop"))),
        drain: Duration::from_secs(20),
    };
    Local::open(config).unwrap()
}

/// A directory and what is in it; everything that runs from it ends with it.
pub struct Site {
    pub local: Local,
    pub shop: Shop,
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { local: engine(dir.path()), shop: Shop::open(&dir.path().join("shop")), dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Rolls a version out, in a mode of the web server.
    pub async fn roll(&self, version: &str, mode: &str) -> Result<RolloutReport, RolloutFailure> {
        self.local.rollout(rollout(&self.shop, version, mode)).await
    }

    pub async fn end(self) {
        self.local.stop(TARGET).await.unwrap();
        assert_eq!(self.instances(), Vec::<PathBuf>::new());
    }

    /// The directories of all instances.
    pub fn instances(&self) -> Vec<PathBuf> {
        let dir = self.path().join("services").join(TARGET.to_string());
        std::fs::read_dir(dir).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    }

    /// Waits until there is one instance.
    pub async fn one_instance(&self) {
        eventually("one instance", || self.instances().len() == 1).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a failed test nothing shall run on.
        for pid in workloads(self.dir.path()) {
            kill(pid);
        }
        let _ = sandbox::remove_tree(&self.dir.path().join("services"));
    }
}

pub fn commit(version: &str) -> CommitId {
    let digit = version.bytes().last().unwrap_or(b'0');
    format!("{:040x}", u128::from(digit) + 1).parse().unwrap()
}

/// The rollout of one service.
pub fn rollout(shop: &Shop, version: &str, mode: &str) -> Rollout {
    let service = service("web", shop.perl_server(version), version, mode);
    Rollout {
        key: format!("rollout-{version}-{mode}"),
        target: TARGET,
        name: "demo".into(),
        revision: commit(version),
        services: vec![service],
        listen: None,
    }
}

pub fn service(name: &str, image: PinnedImage, version: &str, mode: &str) -> ServiceRollout {
    let container = Container {
        name: name.into(),
        image: "registry.example/demo/site:v0".into(),
        env: vec![EnvVar { name: "MODE".into(), value: mode.into() }],
        ..Container::default()
    };
    let workload = Workload {
        kind: WorkloadKind::Deployment,
        name: name.into(),
        namespace: None,
        file: "deploy.yaml".into(),
        line: 1,
        replicas: 1,
        grace_seconds: 5,
        containers: vec![container],
    };
    ServiceRollout {
        name: name.into(),
        expected: vec![commit(version).to_string(), image.digest.to_string()],
        image,
        source_commit: Some(commit(version)),
        workload,
        health: Health {
            path: "/health".into(),
            identity: Identity::Header("X-Build".into()),
            timeout_ms: 30_000,
            port: None,
        },
        env: vec![],
        public: name == "web",
    }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes that supervise something below `dir`.
pub fn workloads(dir: &Path) -> Vec<u32> {
    let prefix = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split(|b| *b == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
        if words.contains(&"__workload") && words.iter().any(|word| word.starts_with(prefix)) {
            found.push(pid);
        }
    }
    found
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
