//! What a client knows of its image: what it was told is there, what it was told is gone, and what it was told nothing of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256, Sha512};

use super::retained::Pushed;

/// The media types that are pushed.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes and their digest.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) digest: String,
    pub(super) bytes: Arc<[u8]>,
}

impl Content {
    pub(super) fn sha256(bytes: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), bytes: bytes.into() }
    }

    pub(super) fn sha512(bytes: Vec<u8>) -> Self {
        Self { digest: format!("sha512:{}", hex::encode(Sha512::digest(&bytes))), bytes: bytes.into() }
    }
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The registry said so, or it was seen.
    There,
    /// The registry said that it is deleted.
    Gone,
    /// The server died before it said anything.
    Unsure,
}

/// A blob of the image.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) content: Content,
    pub(super) state: State,
    /// When the registry was asked to put it into the image, or whether it is there: it stays for a grace from then on.
    pub(super) since: Instant,
}

/// A manifest of the image.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) content: Content,
    pub(super) media_type: &'static str,
    pub(super) blobs: Vec<String>,
    pub(super) children: Vec<String>,
    pub(super) state: State,
    /// Whether anything happened to it since it was last looked at.
    pub(super) touched: bool,
    /// When its state was last set.
    pub(super) changed: Instant,
}

/// An upload that was not finished.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) location: String,
    pub(super) content: Content,
    /// Bytes that the registry said it has; nothing if it was only begun.
    pub(super) acknowledged: usize,
    /// The most bytes it can have.
    pub(super) sent: usize,
    /// Whether its end was sent.
    pub(super) finishing: bool,
    /// When the last part was sent that was answered, or it was begun.
    pub(super) since: Instant,
}

/// One image, which one client alone changes.
#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) image: String,
    pub(super) blobs: BTreeMap<String, Blob>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    /// What each tag may point to; nothing where it may be absent. One entry is certain.
    pub(super) tags: BTreeMap<String, Vec<Option<String>>>,
    pub(super) uploads: Vec<Upload>,
    /// What was pushed to the image that retention is about, the newest last.
    pub(super) pushed: Vec<Pushed>,
    /// The number of the last tag there.
    pub(super) serial: u64,
}

impl Book {
    pub(super) fn new(image: String) -> Self {
        let (blobs, manifests, tags) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { image, blobs, manifests, tags, uploads: Vec::new(), pushed: Vec::new(), serial: 0 }
    }

    /// Whether a manifest that is there, or may be, refers to it.
    pub(super) fn is_used(&self, digest: &str) -> bool {
        let uses = |it: &Manifest| it.blobs.iter().chain(&it.children).any(|used| used == digest);
        self.manifests.values().any(|it| it.state != State::Gone && uses(it))
    }

    pub(super) fn set_blob(&mut self, content: &Content, state: State, since: Instant) {
        let blob = Blob { content: content.clone(), state, since };
        self.blobs.insert(content.digest.clone(), blob);
    }

    pub(super) fn set_manifest(&mut self, digest: &str, state: State) {
        if let Some(manifest) = self.manifests.get_mut(digest) {
            (manifest.state, manifest.touched, manifest.changed) = (state, true, Instant::now());
        }
    }

    /// What a tag may point to.
    pub(super) fn tag(&self, tag: &str) -> Vec<Option<String>> {
        self.tags.get(tag).cloned().unwrap_or_else(|| vec![None])
    }

    /// A tag may now also point to `to`.
    pub(super) fn tag_may(&mut self, tag: &str, to: Option<&str>) {
        let mut may = self.tag(tag);
        if !may.iter().any(|it| it.as_deref() == to) {
            may.push(to.map(str::to_owned));
        }
        self.tags.insert(tag.to_owned(), may);
    }

    /// A tag points to `to` and to nothing else.
    pub(super) fn tag_is(&mut self, tag: &str, to: Option<&str>) {
        self.tags.insert(tag.to_owned(), vec![to.map(str::to_owned)]);
    }

    /// The tags that may point to a manifest.
    pub(super) fn tags_of(&self, digest: &str) -> Vec<String> {
        let leads = |may: &Vec<Option<String>>| may.iter().any(|it| it.as_deref() == Some(digest));
        self.tags.iter().filter(|(_, may)| leads(may)).map(|(tag, _)| tag.clone()).collect()
    }

    /// Manifests that are known to be there.
    pub(super) fn present(&self) -> Vec<&Manifest> {
        self.manifests.values().filter(|it| it.state == State::There).collect()
    }

    /// A manifest and everything it stands on, as far as that is known.
    pub(super) fn closure(&self, digest: &str) -> (Vec<String>, Vec<String>) {
        let (mut manifests, mut blobs, mut ahead) = (Vec::new(), Vec::new(), vec![digest.to_owned()]);
        while let Some(next) = ahead.pop() {
            if let Some(manifest) = self.manifests.get(&next) {
                ahead.extend(manifest.children.iter().cloned());
                blobs.extend(manifest.blobs.iter().cloned());
            }
            manifests.push(next);
        }
        (manifests, blobs)
    }

    /// A deleted manifest may be back, with what it stands on: nobody knows until it is looked at.
    pub(super) fn may_be_back(&mut self, digest: &str) {
        let (manifests, blobs) = self.closure(digest);
        for digest in manifests {
            if self.manifests.get(&digest).is_some_and(|it| it.state == State::Gone) {
                self.set_manifest(&digest, State::Unsure);
            }
        }
        let gone = |blob: &&mut Blob| blob.state == State::Gone;
        let blobs: Vec<_> = blobs.iter().collect();
        let known = self.blobs.iter_mut().filter(|(digest, _)| blobs.contains(digest)).map(|(_, blob)| blob);
        known.filter(gone).for_each(|blob| blob.state = State::Unsure);
    }

    /// A deleted manifest is back, with what it stands on.
    pub(super) fn is_back(&mut self, digest: &str, since: Instant) {
        let (manifests, blobs) = self.closure(digest);
        manifests.iter().for_each(|digest| self.set_manifest(digest, State::There));
        for digest in blobs {
            if let Some(blob) = self.blobs.get_mut(&digest) {
                (blob.state, blob.since) = (State::There, since);
            }
        }
    }

    /// Forgets what is long gone, and cannot be brought back: it was asked for often enough.
    pub(super) fn forget(&mut self, most: usize, window: Duration) {
        let gone = |it: &Manifest| it.state == State::Gone && !it.touched && it.changed.elapsed() > window;
        while self.manifests.values().filter(|it| gone(it)).count() > most {
            let Some(digest) = self.manifests.values().find(|it| gone(it)).map(|it| it.content.digest.clone()) else {
                break;
            };
            self.manifests.remove(&digest);
        }
        let gone = |it: &Blob| it.state == State::Gone;
        while self.blobs.values().filter(|it| gone(it)).count() > most {
            let Some(digest) = self.blobs.values().find(|it| gone(it)).map(|it| it.content.digest.clone()) else {
                break;
            };
            self.blobs.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_one_of_what_it_may_be() {
        let mut book = Book::new("a/b".into());
        assert_eq!(book.tag("t"), [None]);
        book.tag_may("t", Some("x"));
        book.tag_may("t", Some("x"));
        assert_eq!(book.tag("t"), [None, Some("x".into())]);
        assert_eq!(book.tags_of("x"), ["t"]);
        book.tag_is("t", None);
        assert!(book.tags_of("x").is_empty());
    }
}
