//! Extended attributes, and what overlayfs means by its own.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::io::Errno;

/// Overlayfs, mounted with `userxattr`, takes a directory with this attribute for one that hides what lies below it.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// The attribute of file capabilities.
pub(crate) const CAPABILITY: &str = "security.capability";

/// The longest value that Linux stores.
const MAX_VALUE: usize = 64 << 10;

/// Whether a layer may give a file this attribute. Overlayfs' own would make an unpacked layer mean something else,
/// and those of other name spaces are the machine's.
pub(crate) fn allowed(name: &str) -> bool {
    name.starts_with("user.") && !name.starts_with("user.overlay.")
}

/// One attribute; nothing if it is not there or the filesystem knows none.
pub(crate) fn get(fd: impl AsFd, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(256);
    match rustix::fs::fgetxattr(&fd, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => return Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut value = Vec::with_capacity(MAX_VALUE);
    rustix::fs::fgetxattr(&fd, name, rustix::buffer::spare_capacity(&mut value))?;
    Ok(Some(value))
}

/// The names of all attributes.
pub(crate) fn names(fd: impl AsFd) -> rustix::io::Result<Vec<String>> {
    let mut list = Vec::with_capacity(1024);
    match rustix::fs::flistxattr(&fd, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            list = Vec::with_capacity(MAX_VALUE);
            rustix::fs::flistxattr(&fd, rustix::buffer::spare_capacity(&mut list))?;
        }
        Err(error) => return Err(error),
    }
    let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect())
}

/// What of a file's attributes belongs into a layer.
pub(crate) fn portable(fd: impl AsFd) -> rustix::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in names(&fd)? {
        if !allowed(&name) && name != CAPABILITY {
            continue;
        }
        if let Some(value) = get(&fd, &name)? {
            let value = if name == CAPABILITY { without_namespace(value) } else { value };
            found.insert(name, value);
        }
    }
    Ok(found)
}

/// File capabilities that were set inside a user namespace carry the id of its root (version 3); in a layer they must not.
fn without_namespace(value: Vec<u8>) -> Vec<u8> {
    match value.as_slice() {
        [flags, 0, 0, 3, sets @ ..] if sets.len() == 20 => [&[*flags, 0, 0, 2], &sets[..16]].concat(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_user_attributes_come_from_a_layer() {
        assert!(allowed("user.mime_type"));
        for bad in [OPAQUE, "user.overlay.redirect", "trusted.overlay.opaque", CAPABILITY, "system.posix_acl_access"] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn capabilities_lose_their_namespace() {
        let mut three = vec![1, 0, 0, 3];
        three.extend([9; 16]);
        three.extend([1, 2, 3, 4]);
        let mut two = vec![1, 0, 0, 2];
        two.extend([9; 16]);
        assert_eq!(without_namespace(three), two);
        assert_eq!(without_namespace(two.clone()), two);
    }
}
