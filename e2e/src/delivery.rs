//! What became of a push, as it can be seen from outside.

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Site, World};

impl World {
    /// The status of the target run of a pushed commit, once it has ended.
    pub fn delivered(&self, site: &Site, commit: &str) -> Value {
        self.delivered_within(site, commit, Duration::from_secs(120))
    }

    /// The same, for a run that may take longer.
    ///
    /// # Panics
    /// When the run has not ended by then.
    pub fn delivered_within(&self, site: &Site, commit: &str, limit: Duration) -> Value {
        let run = self.run_of(&site.repository, "target", commit);
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let status = self.get(&format!("/runs/{run}/wait?timeoutSeconds=30"));
            if !status["outcome"].is_null() {
                return status;
            }
        }
        panic!("run {run} does not end: {:#}", self.get(&format!("/runs/{run}")));
    }

    /// Waits until a stage of a run is under way; its status then.
    ///
    /// # Panics
    /// When it has ended already or does not begin within half a minute.
    pub fn until_stage(&self, run: i64, stage: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.get(&format!("/runs/{run}"));
            let stages = status["stages"].as_array().unwrap();
            let found = stages.iter().find(|it| it["stage"] == stage).unwrap();
            if found["state"] == "running" {
                return status;
            }
            let waiting = status["outcome"].is_null() && found["state"] == "pending" && Instant::now() < until;
            assert!(waiting, "stage {stage} of run {run} is not seen under way: {status:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All events of the log.
    pub fn whole_log(&self) -> Vec<Value> {
        let (status, text) = self.api("GET", "/events", None);
        assert_eq!(status, 200, "{text}");
        text.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many events of this kind the log holds for a run.
    pub fn count(&self, event: &str, run: i64) -> usize {
        self.whole_log().iter().filter(|it| it["event"] == event && it["run"] == run).count()
    }

    /// Gets from the registry with the administrator's token; status and body.
    pub fn pull(&self, path: &str) -> (u16, Vec<u8>) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent
            .get(format!("{}/v2/{path}", self.url()))
            .header("authorization", format!("Bearer {}", self.token()))
            .header("accept", "application/vnd.oci.image.manifest.v1+json");
        let mut response = request.call().unwrap();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
        (response.status().as_u16(), body)
    }

    /// The tags of an image, sorted.
    pub fn tags(&self, image: &str) -> Vec<String> {
        let (status, body) = self.pull(&format!("{image}/tags/list"));
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let listed: Value = serde_json::from_slice(&body).unwrap();
        let mut tags: Vec<_> =
            listed["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
        tags.sort();
        tags
    }

    /// Pulls an image by digest: every byte of it, each checked. Its manifest and configuration.
    ///
    /// # Panics
    /// When anything of it is missing or is not what its digest says.
    pub fn pull_image(&self, name: &str, digest: &str) -> (Value, Value) {
        let checked = |path: String, digest: &str| {
            let (status, body) = self.pull(&path);
            assert_eq!(status, 200, "{path}");
            assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(&body))), digest, "{path}");
            body
        };
        let manifest: Value = serde_json::from_slice(&checked(format!("{name}/manifests/{digest}"), digest)).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let body = checked(format!("{name}/blobs/{digest}"), digest);
            assert_eq!(descriptor["size"], body.len(), "{digest}");
            body
        };
        for layer in manifest["layers"].as_array().unwrap() {
            blob(layer);
        }
        let config = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        (manifest, config)
    }
}

impl Site {
    /// The head of the GitOps branch on the server.
    pub fn deploy_head(&self) -> String {
        self.remote_head("refs/heads/deploy").unwrap()
    }

    /// The manifest as the GitOps branch has it now.
    pub fn pinned_manifest(&self) -> String {
        self.remote_file("refs/heads/deploy", "deploy/web.yaml") + "\n"
    }

    /// A file of the work tree.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir().join(path)).unwrap()
    }

    /// Changes the text of a file of the work tree.
    ///
    /// # Panics
    /// When the file does not hold `from`.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no {from:?}: {text}");
        self.write(path, text.replace(from, to));
    }
}

/// The page that a site serves according to a status.
///
/// # Panics
/// When it does not answer with 200.
pub fn page(status: &Value) -> String {
    let address = status["address"].as_str().unwrap_or_else(|| panic!("no address: {status:#}"));
    let (code, text) = World::ask(address).unwrap_or_else(|| panic!("{address} does not answer"));
    assert_eq!(code, 200, "{address}: {text}");
    text
}
