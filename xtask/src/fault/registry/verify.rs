//! After a restart: is everything there that was acknowledged, and nothing that was deleted?

use std::time::Instant;

use super::Wrong;
use super::book::{State, Upload};
use super::worker::{Stop, Verdict, Worker};

/// Of what nothing happened to, one in so many is looked at.
const SAMPLE: u64 = 6;
/// Deleted things of an image that are asked for again.
const GONE: usize = 20;

impl Worker<'_> {
    /// Compares the image with what is known of it, and learns what was unsure. `all` looks at every byte.
    pub(super) fn verify(&mut self, all: bool) {
        // A server that dies meanwhile is asked again after its next start.
        let _: Result<(), Stop> = self.verify_all(all);
        self.book.forget(GONE, self.shared.times.window * 10);
    }

    fn verify_all(&mut self, all: bool) -> Result<(), Stop> {
        self.verify_manifests(all)?;
        self.verify_tags()?;
        self.verify_blobs(all)?;
        self.verify_retained()?;
        for upload in self.book.uploads.clone() {
            let location = upload.location.clone();
            self.verify_upload(upload)?;
            self.book.uploads.retain(|it| it.location != location);
        }
        Ok(())
    }

    fn verify_manifests(&mut self, all: bool) -> Result<(), Stop> {
        for manifest in self.book.manifests.clone().into_values() {
            let digest = &manifest.content.digest;
            if !all && !manifest.touched && !self.one_in(SAMPLE) {
                continue;
            }
            let there = self.read_manifest(digest)?;
            match (manifest.state, there) {
                (State::There, false) => self.found(Wrong::Lost, format!("manifest {digest} is not there")),
                (State::Gone, true) => self.found(Wrong::Back, format!("manifest {digest} is back")),
                _ => {}
            }
            let state = if there { State::There } else { State::Gone };
            self.book.set_manifest(digest, state);
            if let Some(known) = self.book.manifests.get_mut(digest) {
                known.touched = false;
            }
            if there {
                self.verify_parts(digest)?;
            }
        }
        Ok(())
    }

    /// Everything that a manifest stands on.
    fn verify_parts(&mut self, digest: &str) -> Result<(), Stop> {
        let Some(manifest) = self.book.manifests.get(digest).cloned() else { return Ok(()) };
        for child in &manifest.children {
            if !self.read_manifest(child)? {
                self.found(Wrong::Torn, format!("the index {digest} is without its child {child}"));
            }
        }
        manifest.blobs.iter().try_for_each(|blob| self.read_blob(blob))
    }

    /// Gets a manifest; whether it is there.
    pub(super) fn read_manifest(&mut self, digest: &str) -> Result<bool, Stop> {
        let path = self.path(&format!("manifests/{digest}"));
        let answer = self.ask("GET", &path)?;
        let verdict = self.judge(&format!("GET {path}"), &answer, &[200], &[404]);
        let Some(manifest) = self.book.manifests.get(digest) else { return Ok(verdict == Verdict::Done) };
        if verdict == Verdict::Done
            && (answer.body != *manifest.content.bytes || answer.header("content-type") != Some(manifest.media_type))
        {
            self.found(Wrong::Torn, format!("manifest {digest} is not what was pushed: {}", answer.said()));
        }
        Ok(verdict == Verdict::Done)
    }

    /// Gets a blob that a manifest refers to.
    pub(super) fn read_blob(&mut self, digest: &str) -> Result<(), Stop> {
        if !self.is_whole(digest)? {
            self.found(Wrong::Torn, format!("blob {digest} of a manifest is not there"));
        }
        Ok(())
    }

    /// Gets a blob and compares its bytes; whether the image has it.
    fn is_whole(&mut self, digest: &str) -> Result<bool, Stop> {
        let path = self.path(&format!("blobs/{digest}"));
        let answer = self.ask("GET", &path)?;
        let there = self.judge(&format!("GET {path}"), &answer, &[200], &[404]) == Verdict::Done;
        let differs = self.book.blobs.get(digest).is_some_and(|blob| answer.body != *blob.content.bytes);
        if there && differs {
            let length = answer.body.len();
            self.found(Wrong::Torn, format!("blob {digest} is not what was pushed: {length} bytes"));
        }
        Ok(there)
    }

    fn verify_tags(&mut self) -> Result<(), Stop> {
        let path = self.path("tags/list");
        let answer = self.ask("GET", &path)?;
        let verdict = self.judge(&format!("GET {path}"), &answer, &[200], &[404]);
        let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let listed = list["tags"].as_array().filter(|_| verdict == Verdict::Done).into_iter().flatten();
        let mut names: Vec<String> = listed.filter_map(|tag| Some(tag.as_str()?.to_owned())).collect();
        let listed = names.clone();
        names.extend(self.book.tags.keys().cloned());
        names.sort();
        names.dedup();
        for tag in names {
            let path = self.path(&format!("manifests/{tag}"));
            let answer = self.ask("HEAD", &path)?;
            let found = answer.header("docker-content-digest").map(str::to_owned).filter(|_| answer.status == 200);
            if found.is_some() != listed.contains(&tag) {
                self.found(Wrong::Torn, format!("tag {tag} points to {found:?}, and the list is {listed:?}"));
            }
            let may = self.book.tag(&tag);
            if !may.contains(&found) {
                let wrong =
                    if found.is_none() || may.len() > 1 || may[0].is_some() { Wrong::Lost } else { Wrong::Back };
                self.found(wrong, format!("tag {tag} points to {found:?}, not to {may:?}"));
            }
            self.book.tag_is(&tag, found.as_deref());
        }
        Ok(())
    }

    fn verify_blobs(&mut self, all: bool) -> Result<(), Stop> {
        for blob in self.book.blobs.clone().into_values() {
            let digest = &blob.content.digest;
            if !all && blob.state == State::There && !self.one_in(SAMPLE) {
                continue;
            }
            let there = self.is_whole(digest)?;
            let kept = self.is_protected(digest);
            match (blob.state, there) {
                (State::There, false) if kept => self.found(Wrong::Lost, format!("blob {digest} is not there")),
                (State::Gone, true) => self.found(Wrong::Back, format!("blob {digest} is back")),
                _ => {}
            }
            if let Some(known) = self.book.blobs.get_mut(digest) {
                known.state = if there { State::There } else { State::Gone };
            }
        }
        Ok(())
    }

    /// An upload that was cut off goes on from where the registry says it is.
    fn verify_upload(&mut self, mut upload: Upload) -> Result<(), Stop> {
        let Upload { acknowledged, sent, finishing, .. } = upload;
        let path = upload.location.clone();
        let answer = self.ask("GET", &path)?;
        if self.judge("GET of an upload", &answer, &[204], &[404]) != Verdict::Done {
            // What was only begun is not remembered, and what was ended may have ended.
            let expired = self.shared.times.is_expired(upload.since);
            if acknowledged > 0 && !finishing && !expired && !self.shared.power_cut {
                let said = answer.said();
                self.found(Wrong::Lost, format!("an upload of {acknowledged} acknowledged bytes is gone: {said}"));
            }
            return Ok(());
        }
        let range = answer.header("range").unwrap_or_default().to_owned();
        let end = range.strip_prefix("0-").and_then(|end| end.parse::<usize>().ok());
        // An empty one says 0-0, as one of a single byte does.
        let Some(end) = end.map(|end| if end == 0 { 0 } else { end + 1 }) else {
            self.found(Wrong::Answer, format!("an upload has the range {range:?}"));
            return Ok(());
        };
        if end > sent || (end < acknowledged && !self.shared.power_cut) {
            let text = format!("an upload has {end} bytes; {acknowledged} were acknowledged, {sent} were sent");
            self.found(Wrong::Lost, text);
        }
        upload.acknowledged = end;
        let (content, since) = (upload.content.clone(), Instant::now());
        if self.book.blobs.get(&content.digest).is_none_or(|blob| blob.state != State::There) {
            // The server may die in this as well.
            self.book.set_blob(&content, State::Unsure, since);
        }
        if self.go_on(upload)? == Verdict::Done {
            self.book.set_blob(&content, State::There, since);
        }
        Ok(())
    }
}
