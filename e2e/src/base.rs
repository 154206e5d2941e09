//! A base image of busybox, pushed as any client pushes one.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::World;

/// The statically linked busybox of Debian's `busybox-static`.
pub fn busybox() -> Option<Vec<u8>> {
    let bytes = std::fs::read("/bin/busybox").ok()?;
    // A dynamic one would not run in an image of its own.
    let dynamic = bytes.windows(15).any(|window| window == b"/lib64/ld-linux");
    (!dynamic).then_some(bytes)
}

const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "cp",
    "date",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "httpd",
    "id",
    "ls",
    "mkdir",
    "mv",
    "nc",
    "printf",
    "rm",
    "sed",
    "sleep",
    "tail",
    "test",
    "touch",
    "tr",
    "true",
    "wc",
    "dd",
    "sync",
    "seq",
    "sha256sum",
    "find",
    "chmod",
];

/// What an image has besides busybox.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Files below `/www`, with what they hold.
    pub files: &'a [(&'a str, &'a str)],
    /// What it runs.
    pub command: &'a [&'a str],
    /// The commit that it says it was made of.
    pub revision: Option<&'a str>,
}

fn layer(files: &[(&str, &str)]) -> (Vec<u8>, String) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directory = |path: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if path == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    };
    for path in ["bin", "etc", "tmp", "www"] {
        directory(path);
    }
    let file = |tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    file(&mut tar, "bin/busybox", 0o755, &busybox().expect("busybox-static"));
    file(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    file(&mut tar, "etc/group", 0o644, b"root:x:0:\n");
    for (name, text) in files {
        file(&mut tar, &format!("www/{name}"), 0o644, text.as_bytes());
    }
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), Path::new("busybox")).unwrap();
    }
    let plain = tar.into_inner().unwrap();
    let diff_id = digest(&plain);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    (gzip.finish().unwrap(), diff_id)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Pushes an image of busybox alone to `name:tag` through `/v2`. `send` sends a request (method, path, type, body) and
/// answers the status.
///
/// # Panics
/// As [`push_image`].
pub fn push_base(name: &str, tag: &str, send: impl Fn(&str, &str, &str, &[u8]) -> u16) {
    push(name, tag, &Image { files: &[], command: &["sh"], revision: None }, send);
}

/// Pushes an image as [`push_base`] does, with a page `index.html` that holds `page`.
///
/// # Panics
/// As [`push_image`].
pub fn push_page(name: &str, tag: &str, page: &str, send: impl Fn(&str, &str, &str, &[u8]) -> u16) {
    let files = [("index.html", page)];
    push(name, tag, &Image { files: &files, command: &["sh"], revision: None }, send);
}

/// Pushes an image to `name:tag` through `/v2`.
///
/// # Panics
/// When there is no busybox or the registry refuses it.
pub fn push_image(world: &World, name: &str, tag: &str, image: Image<'_>) {
    push(name, tag, &image, |method, path, kind, bytes| world.put_bytes(method, path, kind, bytes));
}

fn push(name: &str, tag: &str, image: &Image<'_>, send: impl Fn(&str, &str, &str, &[u8]) -> u16) {
    let (layer, diff_id) = layer(image.files);
    let labels = image.revision.map(|commit| json!({ "org.opencontainers.image.revision": commit }));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": image.command, "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
    .to_string()
    .into_bytes();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    for blob in [layer, config] {
        let path = format!("/v2/{name}/blobs/uploads/?digest={}", digest(&blob));
        let status = send("POST", &path, "application/octet-stream", &blob);
        assert_eq!(status, 201, "POST {path}");
    }
    let path = format!("/v2/{name}/manifests/{tag}");
    let body = manifest.to_string().into_bytes();
    let status = send("PUT", &path, "application/vnd.oci.image.manifest.v1+json", &body);
    assert_eq!(status, 201, "PUT {path}");
}
