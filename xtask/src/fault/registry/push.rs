//! The ways in which clients push a blob, and manifests over blobs.

use std::time::Instant;

use serde_json::{Value, json};

use super::Wrong;
use super::book::{Content, INDEX, MANIFEST, Manifest, State, Upload};
use super::http::Ask;
use super::worker::{Stop, Verdict, Worker};

/// The most pieces of an upload.
const PIECES: usize = 4;

impl Worker<'_> {
    /// Pushes a blob in one of the ways there are. Whether the image has it now.
    pub(super) fn push_blob(&mut self, content: &Content) -> Result<bool, Stop> {
        let since = Instant::now();
        if self.book.blobs.get(&content.digest).is_none_or(|blob| blob.state != State::There) {
            self.book.set_blob(content, State::Unsure, since);
        }
        let digest = &content.digest;
        let verdict = match self.random.below(5) {
            0 => {
                let path = self.path(&format!("blobs/uploads/?digest={digest}"));
                self.whole("POST", &path, content)?
            }
            1 => match self.begin("blobs/uploads/")? {
                Ok(location) => self.whole("PUT", &joined(&location, digest), content)?,
                Err(verdict) => verdict,
            },
            2 => {
                let images = self.shared.images.clone();
                let from = self.choose(&images).unwrap_or_default();
                let path = self.path(&format!("blobs/uploads/?mount={digest}&from={from}"));
                let answer = self.ask("POST", &path)?;
                match (self.judge("mount", &answer, &[201, 202], &[]), answer.header("location")) {
                    (Verdict::Done, Some(location)) if answer.status == 202 => {
                        self.whole("PUT", &joined(location, digest), content)?
                    }
                    (verdict, _) => verdict,
                }
            }
            _ => match self.begin("blobs/uploads/")? {
                Ok(location) => self.in_pieces(location, content)?,
                Err(verdict) => verdict,
            },
        };
        // What was refused may have come as far as the image: then it is the end of the upload that found no room.
        if verdict == Verdict::Done {
            self.book.set_blob(content, State::There, since);
        }
        Ok(verdict == Verdict::Done)
    }

    /// Begins an upload; where it is.
    pub(super) fn begin(&mut self, rest: &str) -> Result<Result<String, Verdict>, Stop> {
        let path = self.path(rest);
        let answer = self.ask("POST", &path)?;
        let verdict = self.judge("begin an upload", &answer, &[202], &[]);
        Ok(answer.header("location").filter(|_| verdict == Verdict::Done).map(str::to_owned).ok_or(verdict))
    }

    /// Sends all of a blob with one request.
    fn whole(&mut self, method: &str, path: &str, content: &Content) -> Result<Verdict, Stop> {
        let headers = [("Content-Type", "application/octet-stream")];
        let answer = self.send(&Ask { method, path, headers: &headers, body: Some(&content.bytes) })?;
        Ok(self.judge(&format!("{method} of {} bytes", content.bytes.len()), &answer, &[201], &[]))
    }

    /// Sends a blob with several requests, the last of which may bring bytes as well.
    fn in_pieces(&mut self, location: String, content: &Content) -> Result<Verdict, Stop> {
        let (content, finishing) = (content.clone(), false);
        let upload = Upload { location, content, acknowledged: 0, sent: 0, finishing, since: Instant::now() };
        self.book.uploads.push(upload.clone());
        let verdict = self.go_on(upload.clone())?;
        // What was refused stays where it was; the client does not come back to it.
        self.book.uploads.retain(|it| it.location != upload.location);
        Ok(verdict)
    }

    /// Sends what is missing of an upload.
    pub(super) fn go_on(&mut self, mut upload: Upload) -> Result<Verdict, Stop> {
        let bytes = upload.content.bytes.clone();
        let piece = (bytes.len() / (1 + self.below(PIECES))).max(1);
        let keep_last = self.one_in(2);
        while upload.acknowledged < bytes.len() {
            let (from, to) = (upload.acknowledged, bytes.len().min(upload.acknowledged + piece));
            if to == bytes.len() && keep_last {
                break;
            }
            upload.sent = to;
            self.remember(&upload);
            let range = format!("{from}-{}", to - 1);
            let headers = [("Content-Range", range.as_str()), ("Content-Type", "application/octet-stream")];
            let path = upload.location.clone();
            let sent = Instant::now();
            let answer =
                self.send(&Ask { method: "PATCH", path: &path, headers: &headers, body: Some(&bytes[from..to]) })?;
            let verdict = self.judge(&format!("PATCH {range}"), &answer, &[202], self.expired(&upload));
            if verdict != Verdict::Done {
                return Ok(verdict);
            }
            if answer.header("range") != Some(&format!("0-{}", to - 1)) {
                self.found(Wrong::Answer, format!("PATCH {range}: Range: {:?}", answer.header("range")));
            }
            (upload.acknowledged, upload.since) = (to, sent);
            self.remember(&upload);
        }
        (upload.sent, upload.finishing) = (bytes.len(), true);
        self.remember(&upload);
        let path = joined(&upload.location, &upload.content.digest);
        let body = Some(&bytes[upload.acknowledged..]);
        let answer = self.send(&Ask { method: "PUT", path: &path, body, ..Ask::default() })?;
        Ok(self.judge("PUT of an upload", &answer, &[201], self.expired(&upload)))
    }

    /// What is answered to a client that was away for too long.
    fn expired(&self, upload: &Upload) -> &'static [u16] {
        if self.shared.times.is_expired(upload.since) { &[404] } else { &[] }
    }

    fn remember(&mut self, upload: &Upload) {
        if let Some(known) = self.book.uploads.iter_mut().find(|it| it.location == upload.location) {
            *known = upload.clone();
        }
    }

    /// Pushes a manifest over what the image has, under a tag or its digest.
    pub(super) fn push_manifest(&mut self, mut manifest: Manifest, tag: Option<&str>) -> Result<Verdict, Stop> {
        let digest = manifest.content.digest.clone();
        let before = (self.book.manifests.get(&digest).cloned(), tag.map(|tag| self.book.tag(tag)));
        if before.0.as_ref().is_none_or(|it| it.state != State::There) {
            (manifest.state, manifest.touched, manifest.changed) = (State::Unsure, true, Instant::now());
            self.book.manifests.insert(digest.clone(), manifest.clone());
        }
        if let Some(tag) = tag {
            self.book.tag_may(tag, Some(&digest));
        }
        let path = self.path(&format!("manifests/{}", tag.unwrap_or(&digest)));
        let headers = [("Content-Type", manifest.media_type)];
        let bytes = manifest.content.bytes.clone();
        let answer = self.send(&Ask { method: "PUT", path: &path, headers: &headers, body: Some(&bytes) })?;
        // What nothing held for a whole grace may be gone.
        let whole = manifest.blobs.iter().chain(&manifest.children).all(|digest| self.is_protected(digest));
        let refused: &[u16] = if whole { &[] } else { &[400] };
        let verdict = self.judge(&format!("PUT {path}"), &answer, &[201], refused);
        match (verdict, before) {
            (Verdict::Done, _) => {
                self.book.set_manifest(&digest, State::There);
                if let Some(tag) = tag {
                    self.book.tag_is(tag, Some(&digest));
                }
            }
            (Verdict::Refused, (known, may)) => {
                match known {
                    Some(known) => _ = self.book.manifests.insert(digest, known),
                    None => _ = self.book.manifests.remove(&digest),
                }
                if let (Some(tag), Some(may)) = (tag, may) {
                    self.book.tags.insert(tag.to_owned(), may);
                }
            }
            (Verdict::Wrong, _) => {}
        }
        Ok(verdict)
    }

    /// Pushes the blobs of an image; its manifest, unless one of them was refused.
    pub(super) fn image(&mut self) -> Result<Option<Manifest>, Stop> {
        let mut layers = Vec::new();
        for _ in 0..1 + self.below(3) {
            let layer = self.layer();
            if !self.ensure(&layer)? {
                return Ok(None);
            }
            layers.push(layer);
        }
        let config =
            json!({ "architecture": "amd64", "os": "linux", "created": self.random.below(u64::MAX).to_string() });
        let config = Content::sha256(config.to_string().into_bytes());
        if !self.ensure(&config)? {
            return Ok(None);
        }
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let text = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|it| descriptor(layer, it)).collect::<Vec<_>>(),
        });
        let blobs = layers.iter().chain([&config]).map(|it| it.digest.clone()).collect();
        Ok(Some(manifest(MANIFEST, &text, blobs, Vec::new())))
    }

    /// As clients do: what the image has is not pushed again, as far as they know or are told.
    pub(super) fn ensure(&mut self, content: &Content) -> Result<bool, Stop> {
        let asks = self.one_in(2);
        let knows = self.is_safe(&content.digest) && !self.one_in(4);
        if knows || (asks && self.has_blob(&content.digest)?) { Ok(true) } else { self.push_blob(content) }
    }

    /// Asks for a blob. One that is said to be there stays for half a grace at least.
    fn has_blob(&mut self, digest: &str) -> Result<bool, Stop> {
        let asked = Instant::now();
        let path = self.path(&format!("blobs/{digest}"));
        let answer = self.ask("HEAD", &path)?;
        let half = asked.checked_sub(self.shared.times.grace / 2);
        let protected = self.is_protected(digest);
        let Some(blob) = self.book.blobs.get_mut(digest) else { return Ok(answer.status == 200) };
        match (answer.status, blob.state) {
            (200, State::There) => {
                blob.since = half.map_or(blob.since, |half| half.max(blob.since));
                return Ok(true);
            }
            (200, State::Gone) => self.found(Wrong::Back, format!("blob {digest} is back")),
            (404, State::There) if protected => self.found(Wrong::Lost, format!("blob {digest} is not there")),
            _ => {}
        }
        Ok(false)
    }

    /// An index over images that are pushed before it.
    pub(super) fn index(&mut self) -> Result<Option<Manifest>, Stop> {
        let mut children = Vec::new();
        for _ in 0..2 {
            let Some(child) = self.image()? else { return Ok(None) };
            if self.push_manifest(child.clone(), None)? != Verdict::Done {
                return Ok(None);
            }
            children.push(child);
        }
        let text = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": children.iter().map(|it| descriptor(it.media_type, &it.content)).collect::<Vec<_>>(),
        });
        let children = children.iter().map(|it| it.content.digest.clone()).collect();
        Ok(Some(manifest(INDEX, &text, Vec::new(), children)))
    }
}

fn manifest(media_type: &'static str, text: &Value, blobs: Vec<String>, children: Vec<String>) -> Manifest {
    let content = Content::sha256(text.to_string().into_bytes());
    let (state, changed) = (State::Unsure, Instant::now());
    Manifest { content, media_type, blobs, children, state, touched: true, changed }
}

pub(super) fn descriptor(media_type: &str, content: &Content) -> Value {
    json!({ "mediaType": media_type, "digest": content.digest, "size": content.bytes.len() })
}

/// Where an upload is finished.
fn joined(location: &str, digest: &str) -> String {
    let mark = if location.contains('?') { '&' } else { '?' };
    format!("{location}{mark}digest={digest}")
}
