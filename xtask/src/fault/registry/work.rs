//! What a client does all day.

use super::book::State;
use super::worker::{Stop, Verdict, Worker};
use super::{Wrong, http::Ask};

/// Manifests of an image, from which on more is deleted than pushed.
const MANY: usize = 14;
/// Tags that are moved about.
pub(super) const TAGS: u64 = 8;

impl Worker<'_> {
    /// Works until the server is dead, or `more` says that it is enough.
    pub(super) fn work(&mut self, more: impl Fn() -> bool) {
        while more() {
            if self.step().is_err() {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), Stop> {
        let many = self.book.present().len() > MANY;
        match self.random.below(26) {
            _ if many && self.one_in(2) => self.delete_manifest(),
            0..=6 => self.push_image(),
            7..=9 => self.push_index(),
            10..=11 => self.move_tag(),
            12..=13 => self.delete_tag(),
            14..=15 => self.delete_manifest(),
            16 => self.delete_blob(),
            17 => self.give_up(),
            18..=19 => self.bring_back(),
            20..=21 => self.push_again(),
            22..=23 => self.push_retained(),
            _ => self.pull(),
        }
    }

    fn a_tag(&mut self) -> String {
        format!("t{}", self.random.below(TAGS))
    }

    fn push_image(&mut self) -> Result<(), Stop> {
        let Some(image) = self.image()? else { return Ok(()) };
        let tag = (!self.one_in(4)).then(|| self.a_tag());
        self.push_manifest(image, tag.as_deref()).map(drop)
    }

    fn push_index(&mut self) -> Result<(), Stop> {
        let Some(index) = self.index()? else { return Ok(()) };
        let tag = self.a_tag();
        self.push_manifest(index, Some(&tag)).map(drop)
    }

    fn move_tag(&mut self) -> Result<(), Stop> {
        let present: Vec<_> = self.book.present().into_iter().cloned().collect();
        let Some(manifest) = self.choose(&present) else { return Ok(()) };
        let tag = self.a_tag();
        self.push_manifest(manifest, Some(&tag)).map(drop)
    }

    fn delete_tag(&mut self) -> Result<(), Stop> {
        let tag = self.a_tag();
        let before = self.book.tag(&tag);
        self.book.tag_may(&tag, None);
        let path = self.path(&format!("manifests/{tag}"));
        let answer = self.ask("DELETE", &path)?;
        let absent: &[u16] = if before.contains(&None) { &[404] } else { &[] };
        match self.judge(&format!("DELETE {path}"), &answer, &[202], absent) {
            Verdict::Done => self.book.tag_is(&tag, None),
            Verdict::Refused if answer.status == 404 => self.book.tag_is(&tag, None),
            Verdict::Refused => _ = self.book.tags.insert(tag, before),
            Verdict::Wrong => {}
        }
        Ok(())
    }

    fn delete_manifest(&mut self) -> Result<(), Stop> {
        let present: Vec<String> = self.book.present().iter().map(|it| it.content.digest.clone()).collect();
        let Some(digest) = self.choose(&present) else { return Ok(()) };
        let tags: Vec<_> = self.book.tags_of(&digest).into_iter().map(|tag| (self.book.tag(&tag), tag)).collect();
        let used: &[u16] = if self.book.is_used(&digest) { &[405] } else { &[] };
        self.book.set_manifest(&digest, State::Unsure);
        tags.iter().for_each(|(_, tag)| self.book.tag_may(tag, None));
        let path = self.path(&format!("manifests/{digest}"));
        let answer = self.ask("DELETE", &path)?;
        match self.judge(&format!("DELETE {path}"), &answer, &[202], used) {
            Verdict::Done => {
                self.book.set_manifest(&digest, State::Gone);
                for (may, tag) in tags {
                    let others = may.into_iter().filter(|it| it.as_deref() != Some(&digest)).chain([None]).collect();
                    self.book.tags.insert(tag, others);
                }
            }
            Verdict::Refused => {
                self.book.set_manifest(&digest, State::There);
                for (may, tag) in tags {
                    self.book.tags.insert(tag, may);
                }
            }
            Verdict::Wrong => {}
        }
        Ok(())
    }

    fn delete_blob(&mut self) -> Result<(), Stop> {
        let there: Vec<_> = self.book.blobs.values().filter(|it| it.state == State::There).cloned().collect();
        let Some(blob) = self.choose(&there) else { return Ok(()) };
        let digest = blob.content.digest.clone();
        let used = self.book.is_used(&digest);
        if let Some(known) = self.book.blobs.get_mut(&digest) {
            known.state = State::Unsure;
        }
        let path = self.path(&format!("blobs/{digest}"));
        let answer = self.ask("DELETE", &path)?;
        if let Some(known) = self.book.blobs.get_mut(&digest) {
            known.state = State::There;
        }
        let refused: &[u16] = match (used, self.is_protected(&digest)) {
            (true, true) => &[405],
            (true, false) => &[404, 405],
            (false, true) => &[],
            (false, false) => &[404],
        };
        let state = match self.judge(&format!("DELETE {path}"), &answer, &[202], refused) {
            Verdict::Done => State::Gone,
            Verdict::Refused if answer.status == 404 => State::Gone,
            Verdict::Refused => State::There,
            Verdict::Wrong => State::Unsure,
        };
        let known = self.book.blobs.entry(digest).or_insert(blob);
        known.state = state;
        Ok(())
    }

    /// Pushes something again that was deleted just now.
    fn push_again(&mut self) -> Result<(), Stop> {
        let gone = self.book.manifests.values().filter(|it| it.state == State::Gone).cloned();
        let gone: Vec<_> = gone.collect();
        let Some(manifest) = self.choose(&gone) else { return Ok(()) };
        let there = |it: &String| self.book.manifests.get(it).is_some_and(|it| it.state == State::There);
        let contents = manifest.blobs.iter().map(|it| self.book.blobs.get(it).map(|blob| blob.content.clone()));
        let Some(contents) = contents.collect::<Option<Vec<_>>>() else { return Ok(()) };
        if !manifest.children.iter().all(there) {
            return Ok(());
        }
        for content in contents {
            if !self.ensure(&content)? {
                return Ok(());
            }
        }
        let tag = self.one_in(2).then(|| self.a_tag());
        self.push_manifest(manifest, tag.as_deref()).map(drop)
    }

    /// Begins an upload and leaves it, or says that it is not wanted any more.
    fn give_up(&mut self) -> Result<(), Stop> {
        let Ok(location) = self.begin("blobs/uploads/")? else { return Ok(()) };
        if !self.one_in(3) {
            let layer = self.layer();
            let answer =
                self.send(&Ask { method: "PATCH", path: &location, body: Some(&layer.bytes), ..Ask::default() })?;
            self.judge("PATCH", &answer, &[202], &[]);
        }
        if self.one_in(2) {
            let answer = self.ask("DELETE", &location)?;
            self.judge("DELETE of an upload", &answer, &[204], &[]);
        }
        Ok(())
    }

    /// Pulls an image as a client does, and looks at every byte.
    fn pull(&mut self) -> Result<(), Stop> {
        let tag = self.a_tag();
        let may = self.book.tag(&tag);
        let path = self.path(&format!("manifests/{tag}"));
        let answer = self.ask("GET", &path)?;
        let found = answer.header("docker-content-digest").map(str::to_owned).filter(|_| answer.status == 200);
        if !may.contains(&found) {
            self.found(Wrong::Lost, format!("tag {tag} points to {found:?}, not to {may:?}"));
        }
        if let Some(digest) = found {
            self.read_manifest(&digest)?;
            let blobs = self.book.manifests.get(&digest).map(|it| it.blobs.clone()).unwrap_or_default();
            blobs.iter().try_for_each(|digest| self.read_blob(digest))?;
        }
        Ok(())
    }
}
