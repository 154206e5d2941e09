//! Paths inside a tree.

use crate::GitError;

/// The longest path that is written, in bytes: what Linux can open.
const LONGEST: usize = 4095;

/// A path from the root of a tree without what does not matter (`./`, a `/` at the end); empty for the root itself.
pub(crate) fn normal(path: &str) -> Result<String, GitError> {
    let bad = |why| GitError::BadPath { path: clip(path), why };
    if path.starts_with('/') {
        return Err(bad("it is absolute"));
    }
    if path.contains('\0') {
        return Err(bad("it contains a NUL byte"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(bad("it contains \"..\""));
    }
    Ok(parts.join("/"))
}

/// Why a file must not be written at a path of a tree; nothing if it may.
pub(crate) fn forbidden(path: &[u8]) -> Option<&'static str> {
    if path.len() > LONGEST {
        return Some("it is longer than 4095 bytes");
    }
    path.split(|b| *b == b'/').find_map(|part| match part {
        b"" => Some("a part of it is empty"),
        b"." | b".." => Some("it contains \".\" or \"..\""),
        _ if part.contains(&0) => Some("it contains a NUL byte"),
        _ if part.eq_ignore_ascii_case(b".git") => Some("it leads into .git"),
        _ => None,
    })
}

/// A path as text. What is not UTF-8 becomes U+FFFD and two hexadecimal digits for each byte, so that different paths
/// stay different.
pub(crate) fn text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\u{fffd}{byte:02x}"));
        }
    }
    text
}

/// At most 200 characters of a path, for an error message.
pub(crate) fn clip(path: &str) -> String {
    match path.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_normal_or_refused() {
        for (path, normal_path) in [("", ""), (".", ""), ("./a//b/", "a/b"), ("a/./b", "a/b"), ("--x", "--x")] {
            assert_eq!(normal(path).unwrap(), normal_path);
        }
        for bad in ["/etc/passwd", "..", "a/../b", "a\0b"] {
            assert!(matches!(normal(bad), Err(GitError::BadPath { .. })), "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_written_into_git_or_upwards() {
        for bad in ["", "a//b", "a/", "..", "a/../b", ".", ".git/config", "sub/.GIT/hooks/x", "a\0b"] {
            assert!(forbidden(bad.as_bytes()).is_some(), "{bad:?}");
        }
        assert!(forbidden(&[b'a'; 5000]).is_some());
        for good in ["a", ".gitignore", "...", "a b/\n", "-rf", ".github/workflows/x.yml", "x.git/y"] {
            assert_eq!(forbidden(good.as_bytes()), None, "{good:?}");
        }
    }

    #[test]
    fn text_keeps_different_paths_different() {
        assert_eq!(text("é/x".as_bytes()), "é/x");
        assert_eq!(text(b"caf\xe9"), "caf\u{fffd}e9");
        assert_ne!(text(b"caf\xe9"), text(b"caf\xe8"));
    }
}
