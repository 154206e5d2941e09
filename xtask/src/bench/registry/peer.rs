//! Debian's `docker-registry`.

use std::path::{Path, PathBuf};

/// The program, if it is installed.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("docker-registry")).find(|program| program.is_file())
}

/// Its configuration: files below `dir`, an access log, deletion as ours.
pub(super) fn configuration(dir: &Path, port: u16) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: false}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"127.0.0.1:{port}\"}}\n",
        dir.display()
    )
}

/// Gives an image `count` tags of one manifest, as the peer's own files.
pub(super) fn seed(dir: &Path, image: &str, digest: &str, count: u64) -> std::io::Result<()> {
    let tags = dir.join("docker/registry/v2/repositories").join(image).join("_manifests/tags");
    for number in 0..count {
        let current = tags.join(format!("tag-{number:07}/current"));
        std::fs::create_dir_all(&current)?;
        std::fs::write(current.join("link"), digest)?;
    }
    Ok(())
}
