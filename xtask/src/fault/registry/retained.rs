//! An image whose tags go by themselves: a rule keeps the newest [`KEPT`] of them, and what was pushed within the grace.

use std::time::Instant;

use serde_json::{Value, json};

use super::Wrong;
use super::book::{Content, INDEX, MANIFEST};
use super::http::Ask;
use super::push::descriptor;
use super::worker::{Stop, Verdict, Worker};

/// How many tags the rule keeps.
pub(super) const KEPT: usize = 3;

/// Pushes that are remembered.
const REMEMBERED: usize = 12;

/// A push to the image, in the order of the pushes.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    tag: String,
    digest: String,
    /// Whether the registry said that it is there; else nobody knows.
    acknowledged: bool,
    since: Instant,
}

impl Worker<'_> {
    fn retained(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.book.image.replace("client", "retained"))
    }

    /// Pushes an image, or an index over two that are pushed before it, under a new tag.
    pub(super) fn push_retained(&mut self) -> Result<(), Stop> {
        let since = Instant::now();
        let content = if self.one_in(2) {
            let Some(image) = self.retained_image()? else { return Ok(()) };
            (image, MANIFEST)
        } else {
            let mut children = Vec::new();
            for _ in 0..2 {
                let Some(child) = self.retained_image()? else { return Ok(()) };
                if !self.put_retained(&child.digest.clone(), MANIFEST, &child, since)? {
                    return Ok(());
                }
                children.push(descriptor(MANIFEST, &child));
            }
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
            (Content::sha256(index.to_string().into_bytes()), INDEX)
        };
        let (content, media_type) = content;
        self.book.serial += 1;
        let (tag, digest) = (format!("r{}", self.book.serial), content.digest.clone());
        self.book.pushed.push(Pushed { tag: tag.clone(), digest, acknowledged: false, since });
        if self.put_retained(&tag, media_type, &content, since)? {
            if let Some(last) = self.book.pushed.last_mut() {
                last.acknowledged = true;
            }
        } else {
            self.book.pushed.pop();
        }
        let over = self.book.pushed.len().saturating_sub(REMEMBERED);
        self.book.pushed.drain(..over);
        Ok(())
    }

    /// Pushes the blobs of an image, and gives its manifest.
    fn retained_image(&mut self) -> Result<Option<Content>, Stop> {
        let mut descriptors = Vec::new();
        for _ in 0..2 {
            let blob = self.layer();
            let path = self.retained(&format!("blobs/uploads/?digest={}", blob.digest));
            let headers = [("Content-Type", "application/octet-stream")];
            let answer = self.send(&Ask { method: "POST", path: &path, headers: &headers, body: Some(&blob.bytes) })?;
            if self.judge("POST of a blob that retention may take", &answer, &[201], &[]) != Verdict::Done {
                return Ok(None);
            }
            descriptors.push(descriptor("application/vnd.oci.image.layer.v1.tar", &blob));
        }
        let text = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptors[0], "layers": [descriptors[1]],
            "annotations": { "number": self.random.below(u64::MAX).to_string() },
        });
        Ok(Some(Content::sha256(text.to_string().into_bytes())))
    }

    /// Pushes a manifest; what it stands on was pushed since `since`.
    fn put_retained(
        &mut self,
        reference: &str,
        media_type: &str,
        content: &Content,
        since: Instant,
    ) -> Result<bool, Stop> {
        let path = self.retained(&format!("manifests/{reference}"));
        let headers = [("Content-Type", media_type)];
        let answer = self.send(&Ask { method: "PUT", path: &path, headers: &headers, body: Some(&content.bytes) })?;
        let refused: &[u16] = if since.elapsed() < self.shared.times.grace { &[] } else { &[400] };
        let verdict = self.judge(&format!("PUT {path}"), &answer, &[201], refused);
        Ok(verdict == Verdict::Done)
    }

    /// The newest tags are there, and whatever is there is whole.
    pub(super) fn verify_retained(&mut self) -> Result<(), Stop> {
        let pushed = self.book.pushed.clone();
        for (age, Pushed { tag, digest, acknowledged, since }) in pushed.iter().rev().enumerate() {
            let path = self.retained(&format!("manifests/{tag}"));
            let answer = self.ask("GET", &path)?;
            match answer.status {
                200 if answer.header("docker-content-digest") != Some(digest) => {
                    self.found(Wrong::Torn, format!("{path} is not {digest}"));
                }
                200 => self.is_whole_image(digest, &answer.body)?,
                _ if *acknowledged && (age < KEPT || since.elapsed() < self.shared.times.grace) => {
                    self.found(Wrong::Lost, format!("{path} is not there, the newest but {age}: {}", answer.said()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Pulls what a manifest stands on.
    fn is_whole_image(&mut self, digest: &str, bytes: &[u8]) -> Result<(), Stop> {
        let mut ahead = vec![(digest.to_owned(), bytes.to_vec())];
        while let Some((digest, bytes)) = ahead.pop() {
            if !matches(&digest, &bytes) {
                self.found(Wrong::Torn, format!("{digest} has other bytes in an image that retention may take"));
                continue;
            }
            let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            for (kind, of) in [("manifests", "manifests"), ("blobs", "layers"), ("blobs", "config")] {
                let listed = manifest[of].as_array().cloned().unwrap_or_else(|| vec![manifest[of].clone()]);
                for part in listed.iter().filter_map(|it| it["digest"].as_str()) {
                    let path = self.retained(&format!("{kind}/{part}"));
                    let answer = self.ask("GET", &path)?;
                    if answer.status != 200 {
                        self.found(Wrong::Torn, format!("{path} of {digest} is not there: {}", answer.said()));
                    } else if kind == "manifests" {
                        ahead.push((part.to_owned(), answer.body));
                    } else if !matches(part, &answer.body) {
                        self.found(Wrong::Torn, format!("{path} has other bytes"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether these are the bytes of a digest.
pub(super) fn matches(digest: &str, bytes: &[u8]) -> bool {
    let content = match digest.starts_with("sha512:") {
        true => Content::sha512(bytes.to_vec()),
        false => Content::sha256(bytes.to_vec()),
    };
    content.digest == digest
}
