//! A file system in memory that knows what a power cut would leave of it.
//!
//! Every file and directory has two states: what a reader sees, and what was synced. Syncing a file makes its bytes and
//! attributes durable, not its name; syncing a directory makes its entries durable, not what they name. A rename is two
//! entries. What a cut leaves is what can be reached from the root over durable entries.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::{Errno, FileType, RenameFlags};

use super::content::Content;

/// The number of the root.
pub(super) const ROOT: u64 = 1;

/// What a file holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Directory(BTreeMap<OsString, u64>),
    Link(PathBuf),
    /// A socket, a pipe or a device.
    Special,
}

/// What is said of a file.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) kind: FileType,
    pub(super) mode: u16,
    pub(super) owner: (u32, u32),
    pub(super) device: u32,
    pub(super) accessed: SystemTime,
    pub(super) modified: SystemTime,
    pub(super) changed: SystemTime,
    pub(super) extended: BTreeMap<OsString, Vec<u8>>,
}

impl Attributes {
    pub(super) fn new(kind: FileType, mode: u16, owner: (u32, u32), device: u32) -> Self {
        let now = SystemTime::now();
        let extended = BTreeMap::new();
        Self { kind, mode, owner, device, accessed: now, modified: now, changed: now, extended }
    }

    fn touch(&mut self) {
        self.modified = SystemTime::now();
        self.changed = self.modified;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) body: Body,
    pub(super) links: u32,
    durable: Option<Box<(Attributes, Body)>>,
}

impl Node {
    fn new(attributes: Attributes, body: Body) -> Self {
        Self { attributes, body, links: 0, durable: None }
    }

    pub(super) fn entries(&self) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match &self.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        match &mut self.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn content_mut(&mut self) -> Result<&mut Content, Errno> {
        match &mut self.body {
            Body::File(content) => {
                self.attributes.touch();
                Ok(content)
            }
            _ => Err(Errno::EISDIR),
        }
    }

    /// What a cut leaves of it, if anything names it.
    fn after_cut(&self) -> Self {
        let (attributes, body) = match &self.durable {
            Some(durable) => (**durable).clone(),
            None => {
                let body = match &self.body {
                    Body::File(_) => Body::File(Content::default()),
                    Body::Directory(_) => Body::Directory(BTreeMap::new()),
                    // These have nothing but their name.
                    other => other.clone(),
                };
                (self.attributes.clone(), body)
            }
        };
        let durable = Some(Box::new((attributes.clone(), body.clone())));
        Self { attributes, body, links: 0, durable }
    }
}

/// The whole of it.
#[derive(Debug)]
pub(super) struct Disk {
    nodes: HashMap<u64, Node>,
    last: u64,
}

impl Disk {
    pub(super) fn new(owner: (u32, u32)) -> Self {
        let attributes = Attributes::new(FileType::Directory, 0o700, owner, 0);
        let mut root = Node::new(attributes, Body::Directory(BTreeMap::new()));
        root.links = 2;
        let mut disk = Self { nodes: HashMap::from([(ROOT, root)]), last: ROOT };
        let _ = disk.sync(ROOT);
        disk
    }

    pub(super) fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ENOENT)
    }

    pub(super) fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    pub(super) fn find(&self, directory: u64, name: &OsStr) -> Result<u64, Errno> {
        self.node(directory)?.entries()?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes a file and its name.
    pub(super) fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        attributes: Attributes,
        body: Body,
    ) -> Result<u64, Errno> {
        self.last += 1;
        let number = self.last;
        let mut node = Node::new(attributes, body);
        if matches!(node.body, Body::Directory(_)) {
            node.links = 1;
        }
        self.nodes.insert(number, node);
        self.name(directory, name, number)?;
        Ok(number)
    }

    /// Gives a file a name that is free.
    pub(super) fn name(&mut self, directory: u64, name: &OsStr, number: u64) -> Result<(), Errno> {
        let parent = self.node_mut(directory)?;
        if parent.links == 0 {
            return Err(Errno::ENOENT);
        }
        let entries = parent.entries_mut()?;
        if entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        entries.insert(name.to_owned(), number);
        parent.attributes.touch();
        let node = self.node_mut(number)?;
        node.links += 1;
        node.attributes.changed = SystemTime::now();
        Ok(())
    }

    /// Takes a name away. The file stays as long as this is one world: somebody may have it open.
    pub(super) fn unname(&mut self, directory: u64, name: &OsStr, is_directory: bool) -> Result<(), Errno> {
        let number = self.find(directory, name)?;
        match &self.node(number)?.body {
            Body::Directory(_) if !is_directory => return Err(Errno::EISDIR),
            Body::Directory(entries) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            Body::Directory(_) => {}
            _ if is_directory => return Err(Errno::ENOTDIR),
            _ => {}
        }
        let parent = self.node_mut(directory)?;
        parent.entries_mut()?.remove(name);
        parent.attributes.touch();
        let node = self.node_mut(number)?;
        node.links = if is_directory { 0 } else { node.links.saturating_sub(1) };
        node.attributes.changed = SystemTime::now();
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new_name): (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let number = self.find(from, name)?;
        let there = self.find(to, new_name).ok();
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            let other = there.ok_or(Errno::ENOENT)?;
            self.node_mut(from)?.entries_mut()?.insert(name.to_owned(), other);
            self.node_mut(to)?.entries_mut()?.insert(new_name.to_owned(), number);
            return Ok(());
        }
        match there {
            Some(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            Some(there) if there == number => return Ok(()),
            Some(_) => {
                let is_directory = matches!(self.node(number)?.body, Body::Directory(_));
                self.unname(to, new_name, is_directory)?;
            }
            None => {}
        }
        self.name(to, new_name, number)?;
        let parent = self.node_mut(from)?;
        parent.entries_mut()?.remove(name);
        parent.attributes.touch();
        self.node_mut(number)?.links -= 1;
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            let owner = self.node(number)?.attributes.owner;
            self.make(from, name, Attributes::new(FileType::CharDevice, 0, owner, 0), Body::Special)?;
        }
        Ok(())
    }

    /// What is seen of a file is now durable.
    pub(super) fn sync(&mut self, number: u64) -> Result<(), Errno> {
        let node = self.node_mut(number)?;
        node.durable = Some(Box::new((node.attributes.clone(), node.body.clone())));
        Ok(())
    }

    /// What a power cut leaves.
    pub(super) fn after_cut(&self) -> Self {
        let mut left = Self { nodes: HashMap::new(), last: self.last };
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            let Some(node) = self.nodes.get(&number) else { continue };
            let links = left.nodes.get(&number).map(|node| node.links);
            if links.is_none() {
                let node = node.after_cut();
                if let Body::Directory(entries) = &node.body {
                    open.extend(entries.values());
                }
                left.nodes.insert(number, node);
            }
            if let Some(node) = left.nodes.get_mut(&number) {
                node.links += if matches!(node.body, Body::Directory(_)) { 2 } else { 1 };
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(disk: &mut Disk, directory: u64, name: &str, bytes: &[u8]) -> u64 {
        let attributes = Attributes::new(FileType::RegularFile, 0o600, (0, 0), 0);
        let number = disk.make(directory, OsStr::new(name), attributes, Body::File(Content::default())).expect(name);
        disk.node_mut(number).expect(name).content_mut().expect(name).write(0, bytes);
        number
    }

    fn read(disk: &Disk, directory: u64, name: &str) -> Option<Vec<u8>> {
        let number = disk.find(directory, OsStr::new(name)).ok()?;
        match &disk.node(number).ok()?.body {
            Body::File(content) => Some(content.read(0, 100)),
            _ => None,
        }
    }

    #[test]
    fn a_name_and_its_bytes_are_durable_each_for_itself() {
        let mut disk = Disk::new((0, 0));
        let both = file(&mut disk, ROOT, "both", b"1");
        disk.sync(both).expect("sync");
        file(&mut disk, ROOT, "name", b"2");
        disk.sync(ROOT).expect("sync");
        let bytes = file(&mut disk, ROOT, "bytes", b"3");
        disk.sync(bytes).expect("sync");
        let left = disk.after_cut();
        assert_eq!(read(&left, ROOT, "both"), Some(b"1".to_vec()));
        assert_eq!(read(&left, ROOT, "name"), Some(Vec::new()));
        assert_eq!(read(&left, ROOT, "bytes"), None);
        assert_eq!(read(&disk, ROOT, "bytes"), Some(b"3".to_vec()));
    }

    #[test]
    fn a_rename_is_durable_with_its_directory() {
        let mut disk = Disk::new((0, 0));
        for (name, bytes) in [("old", b"1"), ("new", b"2")] {
            let number = file(&mut disk, ROOT, name, bytes);
            disk.sync(number).expect("sync");
        }
        disk.sync(ROOT).expect("sync");
        disk.rename((ROOT, OsStr::new("new")), (ROOT, OsStr::new("old")), RenameFlags::empty()).expect("rename");
        assert_eq!(read(&disk, ROOT, "old"), Some(b"2".to_vec()));
        let left = disk.after_cut();
        assert_eq!((read(&left, ROOT, "old"), read(&left, ROOT, "new")), (Some(b"1".to_vec()), Some(b"2".to_vec())));
        disk.sync(ROOT).expect("sync");
        let left = disk.after_cut();
        assert_eq!((read(&left, ROOT, "old"), read(&left, ROOT, "new")), (Some(b"2".to_vec()), None));
    }

    #[test]
    fn bytes_written_after_a_sync_are_gone() {
        let mut disk = Disk::new((0, 0));
        let number = file(&mut disk, ROOT, "a", b"one");
        disk.sync(number).expect("sync");
        disk.sync(ROOT).expect("sync");
        disk.node_mut(number).expect("node").content_mut().expect("file").write(0, b"two");
        let left = disk.after_cut();
        assert_eq!(read(&left, ROOT, "a"), Some(b"one".to_vec()));
    }

    #[test]
    fn a_directory_that_was_not_synced_is_empty() {
        let mut disk = Disk::new((0, 0));
        let attributes = Attributes::new(FileType::Directory, 0o700, (0, 0), 0);
        let dir = disk.make(ROOT, OsStr::new("dir"), attributes, Body::Directory(BTreeMap::new())).expect("dir");
        let number = file(&mut disk, dir, "a", b"1");
        disk.sync(number).expect("sync");
        disk.sync(ROOT).expect("sync");
        let left = disk.after_cut();
        assert!(left.node(dir).and_then(Node::entries).expect("dir").is_empty());
        disk.sync(dir).expect("sync");
        assert_eq!(read(&disk.after_cut(), dir, "a"), Some(b"1".to_vec()));
        assert_eq!(disk.unname(ROOT, OsStr::new("dir"), true).err(), Some(Errno::ENOTEMPTY));
    }
}
