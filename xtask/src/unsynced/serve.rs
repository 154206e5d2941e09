//! The disk as a file system of the kernel.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::content::Content;
use super::disk::{Attributes, Body, Disk, Node};

/// How long the kernel may remember: nobody else changes anything.
const REMEMBER: Duration = Duration::from_secs(60);

/// A disk, and whether its power is on.
pub(super) struct Powered {
    disk: Disk,
    on: bool,
    /// What readers of directories saw when they began.
    listings: HashMap<u64, Vec<(u64, FileType, OsString)>>,
    last_listing: u64,
}

/// A disk that several may hold.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Powered>>);

impl Shared {
    pub(super) fn new(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(Powered { disk, on: true, listings: HashMap::new(), last_listing: 0 })))
    }

    /// From now on nothing is read or written; what is left.
    pub(super) fn cut(&self) -> Disk {
        let mut powered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        powered.on = false;
        powered.disk.after_cut()
    }

    fn with<T>(&self, what: impl FnOnce(&mut Powered) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut powered: MutexGuard<'_, Powered> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if powered.on { what(&mut powered) } else { Err(Errno::EIO) }
    }

    fn disk<T>(&self, what: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        self.with(|powered| what(&mut powered.disk))
    }

    /// Makes something in a directory; what is to be said of it.
    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, new: New<'_>) -> Result<FileAttr, Errno> {
        self.disk(|disk| {
            let above = &disk.node(parent.0)?.attributes;
            // A directory with the set-group-id bit hands its group down.
            let inherits = above.mode & 0o2000 != 0;
            let group = if inherits { above.owner.1 } else { request.gid() };
            let (kind, body) = match new {
                New::Directory => (FileType::Directory, Body::Directory(std::collections::BTreeMap::new())),
                New::Link(target) => (FileType::Symlink, Body::Link(target.to_owned())),
                New::Node(FileType::RegularFile, _, _) => (FileType::RegularFile, Body::File(Content::default())),
                New::Node(kind, _, _) => (kind, Body::Special),
            };
            let (mode, device) = match new {
                New::Node(_, mode, device) => (mode, device),
                _ => (0o777, 0),
            };
            let set_group = if inherits && kind == FileType::Directory { 0o2000 } else { 0 };
            let attributes = Attributes::new(kind, mode | set_group, (request.uid(), group), device);
            let number = disk.make(parent.0, name, attributes, body)?;
            Ok(attr(number, disk.node(number)?))
        })
    }
}

/// What is to be made.
enum New<'a> {
    Directory,
    Link(&'a Path),
    Node(FileType, u16, u32),
}

fn attr(number: u64, node: &Node) -> FileAttr {
    let Attributes { kind, mode, owner, device, accessed, modified, changed, .. } = node.attributes;
    let size = match &node.body {
        Body::File(content) => content.size(),
        Body::Link(target) => target.as_os_str().len() as u64,
        Body::Directory(_) | Body::Special => 0,
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: accessed,
        mtime: modified,
        ctime: changed,
        crtime: changed,
        kind,
        perm: mode,
        nlink: node.links,
        uid: owner.0,
        gid: owner.1,
        rdev: device,
        blksize: 4096,
        flags: 0,
    }
}

fn kind_of(mode: u32) -> Result<FileType, Errno> {
    match mode & 0o170_000 {
        0o100_000 | 0 => Ok(FileType::RegularFile),
        0o020_000 => Ok(FileType::CharDevice),
        0o060_000 => Ok(FileType::BlockDevice),
        0o010_000 => Ok(FileType::NamedPipe),
        0o140_000 => Ok(FileType::Socket),
        _ => Err(Errno::EINVAL),
    }
}

/// The permission bits of a mode.
fn bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

fn time(wanted: TimeOrNow) -> SystemTime {
    match wanted {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Answers with an entry, or with an error.
fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&REMEMBER, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// Answers with bytes, or first with how many there are.
fn extended(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match result {
        Err(error) => reply.error(error),
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk(|disk| {
            let number = disk.find(parent.0, name)?;
            Ok(attr(number, disk.node(number)?))
        });
        entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk(|disk| Ok(attr(ino.0, disk.node(ino.0)?))) {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = self.disk(|disk| {
            let node = disk.node_mut(ino.0)?;
            if let Some(size) = size {
                node.content_mut()?.resize(size);
            }
            let attributes = &mut node.attributes;
            attributes.mode = mode.map_or(attributes.mode, bits);
            attributes.owner = (uid.unwrap_or(attributes.owner.0), gid.unwrap_or(attributes.owner.1));
            attributes.accessed = atime.map_or(attributes.accessed, time);
            attributes.modified = mtime.map_or(attributes.modified, time);
            attributes.changed = SystemTime::now();
            Ok(attr(ino.0, node))
        });
        match result {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.disk(|disk| match &disk.node(ino.0)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        });
        match target {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, rdev: u32, reply: ReplyEntry) {
        let made = kind_of(mode).and_then(|kind| self.make(request, parent, name, New::Node(kind, bits(mode), rdev)));
        entry(made, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.make(request, parent, name, New::Directory).and_then(|made| {
            self.disk(|disk| {
                let node = disk.node_mut(made.ino.0)?;
                node.attributes.mode = (node.attributes.mode & 0o2000) | bits(mode);
                Ok(attr(made.ino.0, node))
            })
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk(|disk| disk.unname(parent.0, name, false)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk(|disk| disk.unname(parent.0, name, true)), reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(self.make(request, parent, name, New::Link(target)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(self.disk(|disk| disk.rename((parent.0, name), (new_parent.0, new_name), flags)), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.disk(|disk| {
            disk.name(parent.0, name, ino.0)?;
            Ok(attr(ino.0, disk.node(ino.0)?))
        });
        entry(linked, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk(|disk| disk.node(ino.0).map(|_| ())) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(request, parent, name, New::Node(FileType::RegularFile, bits(mode), 0)) {
            Ok(attr) => {
                reply.created(&REMEMBER, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.disk(|disk| match &disk.node(ino.0)?.body {
            Body::File(content) => Ok(content.read(offset, size as usize)),
            _ => Err(Errno::EISDIR),
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.disk(|disk| {
            disk.node_mut(ino.0)?.content_mut()?.write(offset, data);
            Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
        });
        match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk(|disk| disk.sync(ino.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.disk(|disk| disk.sync(ino.0)), reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.with(|powered| {
            powered.last_listing += 1;
            Ok(powered.last_listing)
        });
        match handle {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = self.with(|powered| {
            if offset == 0 || !powered.listings.contains_key(&handle.0) {
                let disk = &powered.disk;
                let mut listing =
                    vec![(ino.0, FileType::Directory, ".".into()), (ino.0, FileType::Directory, "..".into())];
                for (name, number) in disk.node(ino.0)?.entries()? {
                    listing.push((*number, disk.node(*number)?.attributes.kind, name.clone()));
                }
                powered.listings.insert(handle.0, listing);
            }
            Ok(powered.listings.get(&handle.0).cloned().unwrap_or_default())
        });
        match listing {
            Ok(listing) => {
                for (index, (number, kind, name)) in (1..).zip(listing).skip(usize::try_from(offset).unwrap_or(0)) {
                    if reply.add(INodeNo(number), index, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let forgotten = self.with(|powered| {
            powered.listings.remove(&handle.0);
            Ok(())
        });
        empty(forgotten, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // As much as nobody here fills.
        let blocks = 1 << 22;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096);
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        let set = self.disk(|disk| {
            disk.node_mut(ino.0)?.attributes.extended.insert(name.to_owned(), value.to_vec());
            Ok(())
        });
        empty(set, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.disk(|disk| disk.node(ino.0)?.attributes.extended.get(name).cloned().ok_or(Errno::ENODATA));
        extended(value, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.disk(|disk| {
            let names = disk.node(ino.0)?.attributes.extended.keys();
            Ok(names.flat_map(|name| name.as_encoded_bytes().iter().copied().chain([0])).collect())
        });
        extended(names, size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.disk(|disk| {
            let removed = disk.node_mut(ino.0)?.attributes.extended.remove(name);
            removed.map(|_| ()).ok_or(Errno::ENODATA)
        });
        empty(removed, reply);
    }
}
