//! Where the entries of an archive go that ADD unpacks.

use super::place::{Archive, Content, Entry, EntryKind, PlaceError, Placer};
use super::{Kind, Picked, base_name, join, parent};

impl Placer<'_> {
    /// Finds the place of each entry of an archive that is unpacked into the destination.
    pub(super) fn archive(&mut self, picked: &Picked, entries: &[oci::tar::Entry]) -> Result<(), PlaceError> {
        use oci::tar::EntryKind as Tar;
        let base = self.directory(&self.destination.path.clone(), None)?;
        let mut paths = Vec::with_capacity(entries.len());
        for entry in entries {
            let relative = archived(&entry.path)?;
            let kind = match entry.kind {
                Tar::Directory => Kind::Directory,
                Tar::File => Kind::File(entry.size),
                Tar::Symlink => Kind::Symlink(archived_text(&entry.link)?),
                Tar::HardLink => Kind::File(0),
                // A sandbox has devices and pipes of its own.
                Tar::Device | Tar::Fifo => {
                    paths.push(None);
                    continue;
                }
            };
            if relative.is_empty() {
                paths.push(None);
                continue;
            }
            if kind == Kind::Directory && self.is_directory(&join(&base, &relative))? {
                // Through a link, perhaps: then the link stays, and what is in the directory goes where it leads.
                let at = self.directory(&join(&base, &relative), None)?;
                paths.push((at == join(&base, &relative)).then_some(at));
                continue;
            }
            let directory = self.directory(&join(&base, parent(&relative)), None)?;
            let path = join(&directory, base_name(&relative));
            match self.lookup(&path)? {
                Some(there) if there.is_directory() != (kind == Kind::Directory) => {
                    let message =
                        format!("/{path} is there already, and the archive holds something of another kind for it");
                    return Err(PlaceError::Conflict(message));
                }
                _ => {}
            }
            if kind == Kind::Directory {
                self.fresh.insert(path.clone());
            }
            let entry =
                Entry { kind: EntryKind::Archived(kind), mode: entry.mode, uid: 0, gid: 0, mtime: Some(entry.mtime) };
            self.out.entries.insert(path.clone(), entry);
            paths.push(Some(path));
        }
        let content = Content::Tree(picked.path.clone());
        self.out.archives.push(Archive { content, paths, owner: self.destination.owner });
        Ok(())
    }
}

fn archived_text(path: &[u8]) -> Result<String, PlaceError> {
    let refused = |_| PlaceError::Archive {
        path: String::from_utf8_lossy(path).chars().take(200).collect(),
        reason: "its name is not UTF-8",
    };
    String::from_utf8(path.to_vec()).map_err(refused)
}

/// The path of an archive's entry, relative to where the archive goes.
pub(crate) fn archived(path: &[u8]) -> Result<String, PlaceError> {
    let text = archived_text(path)?;
    if text.split('/').any(|part| part == "..") {
        return Err(PlaceError::Archive { path: text, reason: "it climbs out with .." });
    }
    Ok(super::clean(&text))
}
