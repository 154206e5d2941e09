//! Starting, asking and stopping the instances of a service.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{HealthEvidence, PinnedImage};

use super::Local;
use crate::health::{Check, Seen};
use crate::request::ServiceRollout;
use crate::service::{self, InstanceSpec, last_lines};
use crate::{DeployError, RolloutFailure, RunnableImage, control, files};

/// How many lines of output a failure shows.
const LINES: usize = 20;
/// The first pause between two questions.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause as long as nothing listens: what does not listen does not notice either.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after an answer, which may well be a line in the program's output.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The least time an answer gets, also when the timeout is near.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// An instance that is to serve.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub name: String,
    pub dir: PathBuf,
    pub spec: InstanceSpec,
    pub check: Check,
    pub public: bool,
}

impl Instance {
    /// The port its health is asked on.
    fn probe_port(&self) -> u16 {
        self.check.health.port.unwrap_or(self.spec.port)
    }

    /// Asks once.
    pub async fn ask(&self, limit: Duration) -> Seen {
        let connected = tokio::time::timeout(limit, control::connect(&self.dir, self.probe_port())).await;
        match connected {
            Ok(Ok(stream)) => self.check.ask(stream, limit).await,
            Ok(Err(error)) => Seen::Nothing(error.to_string()),
            Err(_) => Seen::Nothing("its supervisor does not answer".to_owned()),
        }
    }

    /// Starts its supervisor, unless it lives.
    pub async fn start(&self) -> Result<(), RolloutFailure> {
        files::make_dir(&self.dir).map_err(DeployError::file("make the directory", &self.dir))?;
        if !control::alive(&self.dir) || InstanceSpec::read(&self.dir)?.as_ref() != Some(&self.spec) {
            self.spec.write(&self.dir)?;
        }
        Ok(control::start(&self.dir, "service").await?)
    }

    /// Waits until it is healthy. A process that ended is not waited for.
    pub async fn healthy(&self) -> Result<HealthEvidence, RolloutFailure> {
        let began = Instant::now();
        let timeout = Duration::from_millis(self.check.health.timeout_ms.max(1));
        let mut pause = FIRST_PAUSE;
        loop {
            let left = timeout.saturating_sub(began.elapsed());
            let seen = match self.ask(left.clamp(LAST_ANSWER, ANSWER)).await {
                Seen::Healthy(evidence) => return Ok(evidence),
                seen => seen,
            };
            let status = self.status().await.ok();
            if let Some(status) = &status
                && let (false, Some(ended)) = (status.running, &status.ended)
            {
                return Err(self.crashed(ended));
            }
            if began.elapsed() >= timeout {
                let listening = status.map(|status| status.listening);
                return Err(self.unhealthy(&seen, timeout, listening.as_deref()));
            }
            tokio::time::sleep(pause.min(timeout.saturating_sub(began.elapsed()))).await;
            pause = match seen {
                Seen::Nothing(_) => (pause * 3 / 2).min(SHORT_PAUSE),
                _ => (pause * 2).min(LONG_PAUSE),
            };
        }
    }

    pub async fn status(&self) -> Result<service::Reply, DeployError> {
        control::ask(&self.dir, &service::Request::Status).await
    }

    fn failure(&self, message: String) -> RolloutFailure {
        RolloutFailure {
            service: Some(self.check.service.clone()),
            probe: Some(format!("{} on port {}", self.check.probe(), self.probe_port())),
            message,
            last_lines: last_lines(&self.dir, LINES),
            hint: None,
        }
    }

    fn crashed(&self, ended: &service::Ended) -> RolloutFailure {
        let service = &self.check.service;
        if !ended.ran {
            return self.failure(format!("{service} could not be started: {}", ended.how));
        }
        let after = Duration::from_millis(ended.after_ms).as_secs_f64();
        let probe = self.check.probe();
        self.failure(format!("{service} ended with {} after {after:.1} s, before {probe} was answered well", ended.how))
    }

    fn unhealthy(&self, seen: &Seen, timeout: Duration, listening: Option<&[u16]>) -> RolloutFailure {
        let (port, probe) = (self.probe_port(), self.check.probe());
        let message = format!(
            "{} did not become healthy within {} s: {probe} on port {port}: {}",
            self.check.service,
            timeout.as_secs_f64(),
            self.check.describe(seen)
        );
        let failure = self.failure(message);
        let others: Vec<String> =
            listening.unwrap_or_default().iter().filter(|other| **other != port).map(u16::to_string).collect();
        match (seen, listening) {
            (Seen::Nothing(_), Some([])) => failure.hint(format!(
                "nothing in it listens on any port; the program must listen on port {port}, which $PORT names"
            )),
            (Seen::Nothing(_), Some(ports)) if !ports.contains(&port) => {
                let hint = "it listens on port {}: say so with containerPort in the manifest, EXPOSE in the Dockerfile, or the \
                            target's health port";
                failure.hint(hint.replace("{}", &others.join(", ")))
            }
            (Seen::Other { identity: None, .. }, _) => failure.hint(
                "let the answer carry the build identity, which is in $TOWPATH_SOURCE_COMMIT and $TOWPATH_IMAGE_DIGEST, or set the \
                 target's identity to none",
            ),
            _ => failure,
        }
    }
}

/// Stops the instance in `dir` and removes everything of it. Its process gets at most `limit` to stop.
pub(super) async fn remove(dir: &Path, limit: Option<Duration>) -> Result<(), DeployError> {
    if control::alive(dir) {
        let own = InstanceSpec::read(dir).ok().flatten().map_or(ANSWER, |spec| Duration::from_millis(spec.grace_ms));
        let limit_ms = limit.and_then(|limit| u64::try_from(limit.as_millis()).ok());
        let _: Result<service::Reply, _> = control::ask(dir, &service::Request::Stop { limit_ms }).await;
        control::gone(dir, limit.unwrap_or(own).min(own) + ANSWER).await?;
    }
    sandbox::remove_tree(dir).map_err(DeployError::file("remove", dir))
}

impl Local {
    /// The image and the directories of its layers, topmost first.
    pub(super) async fn layers(
        &self,
        service: &str,
        image: &PinnedImage,
    ) -> Result<(RunnableImage, Vec<PathBuf>), RolloutFailure> {
        let failed = |why: String| RolloutFailure::of(service, format!("the image {image} cannot be used: {why}"));
        let images = self.inner.config.images.clone();
        let runnable = images.image(image).await.map_err(|error| failed(error.to_string()))?;
        let (layers, image) = (self.inner.config.layers.clone(), image.clone());
        let manifest = runnable.manifest.clone();
        let diff_ids = runnable.config.rootfs.diff_ids.clone();
        let unpack = move || {
            let mut lower = Vec::new();
            for (index, layer) in manifest.layers.iter().enumerate() {
                let open = || Ok(images.open_layer(&image, layer)? as Box<dyn std::io::Read>);
                lower.push(layers.ensure(layer, diff_ids.get(index), open)?);
            }
            lower.reverse();
            Ok::<_, oci::LayerError>(lower)
        };
        let unpacked = tokio::task::spawn_blocking(unpack).await.map_err(|error| failed(error.to_string()))?;
        let lower = unpacked.map_err(|error| failed(crate::health::chain(&error)))?;
        Ok((runnable, lower))
    }

    /// What is to run for a service.
    pub(super) async fn instance(
        &self,
        rollout: &crate::Rollout,
        service: &ServiceRollout,
        public: bool,
    ) -> Result<Instance, RolloutFailure> {
        let (image, lower) = self.layers(&service.name, &service.image).await?;
        let spec = crate::launch::instance(rollout.target, &rollout.name, service, &image.config, lower)?;
        // The key is part of the name, so that a rollout that is asked for again finds what it started.
        let seed = format!("{}\0{}", rollout.key, spec.fingerprint());
        let digest = oci::digest_of(model::Algorithm::Sha256, seed.as_bytes()).hex();
        let name = format!("{}-{}", service.name, &digest[..12]);
        let dir = self.instance_dir(rollout.target, &name);
        Ok(Instance { name, dir, spec, check: service.check(), public })
    }
}
