//! Where an image is, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use model::{ImageName, ImageRef, NameError};

use crate::{Reference, RegistryHost};

/// An image in a registry, an image layout or an archive.
///
/// `docker://host/name:tag@digest`, or the same without `docker://`; `oci:DIR[:name]`, `oci-archive:FILE[:name]`,
/// `docker-archive:FILE[:name]`. What has no host is docker's; what is no registry is split at its first colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a registry. A digest wins over a tag; without either it is `latest` for whoever needs one.
    Registry {
        /// Where the registry is.
        host: RegistryHost,
        /// The repository there.
        name: ImageName,
        /// The tag or digest, if written.
        reference: Option<Reference>,
    },
    /// In an OCI image layout.
    Layout {
        /// Its directory.
        dir: PathBuf,
        /// The image's name in its index.
        name: Option<String>,
    },
    /// In a tar of an OCI image layout.
    OciArchive {
        /// The file.
        file: PathBuf,
        /// The image's name in its index.
        name: Option<String>,
    },
    /// In what `docker save` writes.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// The image's name, such as `site:v1`.
        name: Option<String>,
    },
}

impl FromStr for Place {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let local = |rest: &str| {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() || name.is_some_and(|name| name.is_empty() || name.len() > 512) {
                let shown = text.chars().take(80).collect();
                return Err(NameError::new("image", shown, "oci:DIR[:name], oci-archive:FILE or docker-archive:FILE"));
            }
            Ok((PathBuf::from(path), name.map(str::to_owned)))
        };
        match text.split_once(':') {
            Some(("oci", rest)) => local(rest).map(|(dir, name)| Self::Layout { dir, name }),
            Some(("oci-archive", rest)) => local(rest).map(|(file, name)| Self::OciArchive { file, name }),
            Some(("docker-archive", rest)) => local(rest).map(|(file, name)| Self::DockerArchive { file, name }),
            _ => registry(text.strip_prefix("docker://").unwrap_or(text)),
        }
    }
}

fn registry(text: &str) -> Result<Place, NameError> {
    let image: ImageRef = text.parse()?;
    let host = image.registry.as_deref().map_or_else(|| Ok(RegistryHost::docker()), str::parse)?;
    let official = host.is_docker() && !image.name.as_str().contains('/');
    let name = if official { format!("library/{}", image.name).parse()? } else { image.name };
    let reference = image.digest.map(Reference::Digest).or(image.tag.map(Reference::Tag));
    Ok(Place::Registry { host, name, reference })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = |f: &mut fmt::Formatter<'_>, kind: &str, path: &PathBuf, name: &Option<String>| match name {
            Some(name) => write!(f, "{kind}:{}:{name}", path.display()),
            None => write!(f, "{kind}:{}", path.display()),
        };
        match self {
            Self::Registry { host, name, reference: None } => write!(f, "{host}/{name}"),
            Self::Registry { host, name, reference: Some(Reference::Tag(tag)) } => write!(f, "{host}/{name}:{tag}"),
            Self::Registry { host, name, reference: Some(Reference::Digest(digest)) } => {
                write!(f, "{host}/{name}@{digest}")
            }
            Self::Layout { dir, name } => local(f, "oci", dir, name),
            Self::OciArchive { file, name } => local(f, "oci-archive", file, name),
            Self::DockerArchive { file, name } => local(f, "docker-archive", file, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_place() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, shown) in [
            ("docker://ghcr.io/acme/site:v1".to_owned(), "ghcr.io/acme/site:v1".to_owned()),
            ("localhost:5000/site".to_owned(), "localhost:5000/site".to_owned()),
            ("alpine".to_owned(), "docker.io/library/alpine".to_owned()),
            (format!("docker.io/acme/site:v1@{digest}"), format!("docker.io/acme/site@{digest}")),
            ("oci:/srv/layout:v1".to_owned(), "oci:/srv/layout:v1".to_owned()),
            ("oci-archive:a.tar".to_owned(), "oci-archive:a.tar".to_owned()),
            ("docker-archive:a.tar:acme/site:v1".to_owned(), "docker-archive:a.tar:acme/site:v1".to_owned()),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for bad in ["", "oci:", "oci::v1", "docker-archive:x:", "https://ghcr.io/x", "ghcr.io/X:v1", "a b"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
