//! Files on their way into a layer: a tar in the blob store, or a directory that an overlay can stand on.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::{Algorithm, Timestamp};
use oci::IdMap;
use oci::compress::GzipWriter;
use oci::decompress::Decoder;
use oci::diff::{DiffError, DiffOptions, write_upper};
use oci::tar::{EntryKind as TarKind, LayerWriter, Meta, TarReader, WriteError};
use rustix::fs::{AtFlags, CWD, Gid, Timespec, Timestamps, Uid};
use store::{BlobLease, Blobs};
use tokio_util::sync::CancellationToken;

use crate::cache::{LayerBlob, LayerRecord};
use crate::context::ContextFiles;
use crate::error::BuildError;
use crate::files::{Archive, Content, Entry, EntryKind, Placement};
use crate::view::View;

/// Where the content of placed files comes from.
#[derive(Clone, Copy)]
pub(crate) enum Contents<'a> {
    /// The build context.
    Context(&'a ContextFiles),
    /// The files of a stage or image.
    View(&'a View),
}

impl Contents<'_> {
    /// Gives the content to `read`.
    pub fn with<T>(&self, content: &Content, read: &mut dyn FnMut(&mut dyn Read) -> T) -> io::Result<T> {
        match (content, self) {
            (Content::Inline(text), _) => Ok(read(&mut text.as_bytes())),
            (Content::Tree(path), Self::Context(files)) => files.with_content(path, read),
            (Content::Tree(path), Self::View(view)) => Ok(read(&mut fs::File::open(view.host_path(path)?)?)),
        }
    }

    /// The entries of the archive that a file is; nothing if it is none.
    pub fn archive(&self, content: &Content) -> io::Result<Option<Vec<oci::tar::Entry>>> {
        self.with(content, &mut |file| {
            let mut file = BufReader::with_capacity(64 << 10, file);
            let start = io::BufRead::fill_buf(&mut file)?;
            for (magic, name) in [(&b"BZh"[..], "bzip2"), (&b"\xfd7zXZ\0"[..], "xz")] {
                if start.starts_with(magic) {
                    return Err(io::Error::other(format!("archives that are compressed with {name} are not unpacked")));
                }
            }
            let Ok(decoder) = Decoder::new(file) else { return Ok(None) };
            let mut archive = TarReader::new(decoder);
            // What does not begin like an archive is a file like any other.
            let Ok(Some(first)) = archive.next_entry() else { return Ok(None) };
            let mut entries = vec![first];
            while let Some(entry) = archive.next_entry()? {
                entries.push(entry);
                if entries.len() > 1_000_000 {
                    return Err(io::Error::other("the archive holds more than 1000000 files"));
                }
            }
            Ok(Some(entries))
        })?
    }
}

/// Reads until the build is cancelled.
struct Cancellable<'a> {
    inner: &'a mut dyn Read,
    cancel: &'a CancellationToken,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(Cancelled));
        }
        self.inner.read(buffer)
    }
}

/// What a cancelled read ends with.
#[derive(Debug, thiserror::Error)]
#[error("the build was cancelled")]
struct Cancelled;

/// What a layer is written with.
pub(crate) struct LayerOutput<'a> {
    pub blobs: &'a Blobs,
    pub lease: &'a BlobLease,
    pub epoch: Timestamp,
    pub cancel: &'a CancellationToken,
}

impl LayerOutput<'_> {
    /// Writes placed files as a layer.
    pub fn placement(&self, placement: &Placement, contents: Contents<'_>) -> Result<LayerRecord, BuildError> {
        if placement.entries.is_empty() {
            return Ok(LayerRecord::Empty);
        }
        self.blob(|writer| {
            for (path, entry) in &placement.entries {
                self.entry(writer, path, entry, contents)?;
            }
            placement.archives.iter().try_for_each(|archive| self.archive(writer, archive, placement, contents))
        })
    }

    /// Writes what an overlay's upper directory holds as a layer.
    pub fn upper(&self, upper: &Path, ids: IdMap) -> Result<LayerRecord, BuildError> {
        let mut entries = 0;
        let record = self.blob(|writer| {
            let cancelled = |_: &[u8]| false;
            let options = DiffOptions { ids, epoch: Some(self.epoch), skip: &cancelled };
            let summary = write_upper(upper, writer, &options).map_err(|error| match error {
                DiffError::Write(error) => write_error(error),
                DiffError::Read { path, source } => {
                    BuildError::Io { what: format!("cannot read {path} of the changed files"), source }
                }
                DiffError::Refused { .. } => BuildError::Broken(error.to_string()),
            })?;
            entries = summary.entries;
            Ok(())
        })?;
        // The blob of an empty layer stays unreferenced, and is collected as such.
        Ok(if entries == 0 { LayerRecord::Empty } else { record })
    }

    fn blob(
        &self,
        write: impl FnOnce(&mut LayerWriter<GzipWriter<store::blobs::blocking::Writer>>) -> Result<(), BuildError>,
    ) -> Result<LayerRecord, BuildError> {
        let blob = self.blobs.blocking_writer(self.lease, Algorithm::Sha256)?;
        let mut writer = LayerWriter::new(GzipWriter::new(blob));
        write(&mut writer)?;
        self.check()?;
        let failed = |source| BuildError::io("cannot write a layer")(source);
        let gzipped = writer.finish().and_then(GzipWriter::finish).map_err(failed)?;
        let stored = gzipped.inner.finish()?;
        let diff_id = gzipped.diff_id;
        Ok(LayerRecord::Blob(LayerBlob { digest: stored.digest(), size: stored.size(), diff_id }))
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.cancel.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    fn meta(&self, mode: u32, uid: u32, gid: u32, mtime: Option<i64>) -> Meta {
        let epoch = self.epoch.seconds();
        Meta { mode, uid, gid, mtime: mtime.map_or(epoch, |time| time.min(epoch)), ..Meta::default() }
    }

    fn entry<W: Write>(
        &self,
        writer: &mut LayerWriter<W>,
        path: &str,
        entry: &Entry,
        contents: Contents<'_>,
    ) -> Result<(), BuildError> {
        self.check()?;
        let meta = self.meta(entry.mode, entry.uid, entry.gid, entry.mtime);
        match &entry.kind {
            EntryKind::Directory => writer.directory(path.as_bytes(), &meta).map_err(write_error),
            EntryKind::Symlink(target) => {
                writer.symlink(path.as_bytes(), target.as_bytes(), &meta).map_err(write_error)
            }
            EntryKind::Archived(_) => Ok(()),
            EntryKind::File { size, content } => {
                let mut read = |file: &mut dyn Read| {
                    let mut file = Cancellable { inner: file, cancel: self.cancel };
                    writer.file(path.as_bytes(), &meta, *size, &mut file)
                };
                let written =
                    contents.with(content, &mut read).map_err(BuildError::io(format!("cannot read {path}")))?;
                self.check()?;
                written.map_err(write_error)
            }
        }
    }

    /// Writes the entries of an archive in their order, each where it was placed.
    fn archive<W: Write>(
        &self,
        writer: &mut LayerWriter<W>,
        archive: &Archive,
        placement: &Placement,
        contents: Contents<'_>,
    ) -> Result<(), BuildError> {
        let mut read = |file: &mut dyn Read| -> Result<(), BuildError> {
            let failed = |source| BuildError::io("cannot read an archive of the context")(source);
            let file = Cancellable { inner: file, cancel: self.cancel };
            let decoder = Decoder::new(BufReader::with_capacity(256 << 10, file)).map_err(failed)?;
            let mut reader = TarReader::new(decoder);
            let mut names = std::collections::HashMap::new();
            for path in &archive.paths {
                let Some(entry) = reader.next_entry().map_err(failed)? else { break };
                let Some(path) = path else { continue };
                names.insert(
                    crate::files::archived(&entry.path).map_err(|error| BuildError::Broken(error.to_string()))?,
                    path,
                );
                // Of several entries with one name, only what the last one is was kept.
                let replaced =
                    placement.entries.get(path).is_none_or(|kept| !matches!(kept.kind, EntryKind::Archived(_)));
                if replaced {
                    continue;
                }
                let id = |id: u64| u32::try_from(id).unwrap_or(65_534);
                let (uid, gid) = archive.owner.unwrap_or((id(entry.uid), id(entry.gid)));
                let meta = Meta { xattrs: entry.xattrs.clone(), ..self.meta(entry.mode, uid, gid, Some(entry.mtime)) };
                let bytes = path.as_bytes();
                match entry.kind {
                    TarKind::Directory => writer.directory(bytes, &meta),
                    TarKind::File => writer.file(bytes, &meta, entry.size, &mut reader),
                    TarKind::Symlink => writer.symlink(bytes, &entry.link, &meta),
                    TarKind::HardLink => {
                        let target = crate::files::archived(&entry.link).ok();
                        let target = target.and_then(|target| names.get(&target).copied());
                        let missing =
                            || BuildError::Broken(format!("the archive links {path} to a file that it does not hold"));
                        writer.hard_link(bytes, target.ok_or_else(missing)?.as_bytes(), &meta)
                    }
                    TarKind::Device | TarKind::Fifo => Ok(()),
                }
                .map_err(write_error)?;
            }
            Ok(())
        };
        contents.with(&archive.content, &mut read).map_err(BuildError::io("cannot read an archive of the context"))?
    }

    /// Writes placed files, none of which is an archive, into the empty directory `root` in the form of a layer.
    pub fn tree(
        &self,
        root: &Path,
        placement: &Placement,
        contents: Contents<'_>,
        ids: IdMap,
    ) -> Result<(), BuildError> {
        let mut late = vec![(root.to_owned(), self.meta(0o755, 0, 0, None))];
        for (path, entry) in &placement.entries {
            self.check()?;
            let at = root.join(path);
            let meta = self.meta(entry.mode, entry.uid, entry.gid, entry.mtime);
            let failed = |source| BuildError::io(format!("cannot write {path}"))(source);
            match &entry.kind {
                EntryKind::Directory => {
                    fs::DirBuilder::new().mode(0o700).create(&at).map_err(failed)?;
                    late.push((at, meta));
                }
                EntryKind::Symlink(target) => {
                    std::os::unix::fs::symlink(target, &at)
                        .and_then(|()| settle(&at, &meta, ids, true))
                        .map_err(failed)?;
                }
                EntryKind::File { content, .. } => {
                    let mut write = |file: &mut dyn Read| -> io::Result<()> {
                        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at)?;
                        io::copy(&mut Cancellable { inner: file, cancel: self.cancel }, &mut out)?;
                        Ok(())
                    };
                    let written = contents.with(content, &mut write).and_then(|written| written);
                    self.check()?;
                    written.and_then(|()| settle(&at, &meta, ids, false)).map_err(failed)?;
                }
                EntryKind::Archived(_) => {
                    return Err(BuildError::Broken("an archive is not unpacked by itself".to_owned()));
                }
            }
        }
        // Children before their parents: a parent may forbid its owner to write in it.
        for (at, meta) in late.into_iter().rev() {
            settle(&at, &meta, ids, false).map_err(BuildError::io(format!("cannot write {}", at.display())))?;
        }
        Ok(())
    }
}

/// Sets owner, mode and time of something that was just made here.
fn settle(path: &PathBuf, meta: &Meta, ids: IdMap, link: bool) -> io::Result<()> {
    if let (Some(uid), Some(gid)) = (ids.outside(u64::from(meta.uid)), ids.outside(u64::from(meta.gid))) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !link {
        fs::set_permissions(path, fs::Permissions::from_mode(meta.mode))?;
    }
    let time = Timespec { tv_sec: meta.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn write_error(error: WriteError) -> BuildError {
    match error {
        WriteError::Io { source, .. } if source.get_ref().is_some_and(|inner| inner.is::<Cancelled>()) => {
            BuildError::Cancelled
        }
        WriteError::Io { path, source } => BuildError::Io { what: format!("cannot write {path} to a layer"), source },
        other => BuildError::Broken(other.to_string()),
    }
}
