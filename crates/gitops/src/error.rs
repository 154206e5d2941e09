//! What can be wrong with a GitOps directory, and where.

use std::fmt;

/// A place in a file of the GitOps directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The text of the line, without its end.
    pub text: String,
}

impl Place {
    pub(crate) fn new(file: &str, source: &str, line: usize, column: usize) -> Self {
        let text = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        Self { file: file.to_owned(), line, column, text: text.chars().take(200).collect() }
    }

    /// The place over three lines: `path:line:column`, the line, and a caret below the column.
    pub fn snippet(&self) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let before: String =
            self.text.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{self}\n  {number} | {}\n  {margin} | {before}^", self.text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why the files of a GitOps directory cannot be read or changed. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitopsError {
    /// The file is not YAML.
    #[error("{place}: this is not valid YAML: {message}")]
    Yaml {
        /// Where.
        place: Place,
        /// What the parser found.
        message: String,
    },
    /// The file is beyond the limits.
    #[error("{file}: {what}")]
    TooLarge {
        /// The file.
        file: String,
        /// Which limit.
        what: String,
    },
    /// The reference to write is not an image reference of the image it stands for.
    #[error("the reference {reference:?} cannot be written for the image {image}: {why}")]
    Reference {
        /// The image.
        image: String,
        /// The text.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two services ask for different references of one image.
    #[error("the services {first} and {second} both ask for the image {image}, with different references")]
    Conflict {
        /// One service.
        first: String,
        /// The other service.
        second: String,
        /// The image.
        image: String,
    },
    /// No file names the image.
    #[error("no manifest uses the image {image} of service {service}; looked in {}", list(.files, "no YAML file"))]
    Nowhere {
        /// The service.
        service: String,
        /// The image.
        image: String,
        /// The files that were looked at.
        files: Vec<String>,
        /// The images that were found instead, each with its place.
        seen: Vec<String>,
    },
    /// The scalar is written in a way that cannot be edited in place.
    #[error("{place}: the image {image} is written as a block or multi-line scalar, which cannot be edited in place")]
    NotPlain {
        /// Where.
        place: Place,
        /// The image.
        image: String,
    },
    /// A marker asks for a part that the reference does not have.
    #[error("{place}: the marker asks for the {part} of {reference}, which has none")]
    MissingPart {
        /// Where.
        place: Place,
        /// `tag` or `digest`.
        part: &'static str,
        /// The reference.
        reference: String,
    },
    /// The edited file did not read back as intended.
    #[error("{file}: the edited file does not read back as intended; it was left alone")]
    Damaged {
        /// The file.
        file: String,
    },
    /// A manifest is not what its kind asks for.
    #[error("{place}: {message}")]
    Manifest {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// A manifest asks for what the local engine does not do.
    #[error("{place}: {workload}: the local engine does not run {what}")]
    Refused {
        /// Where.
        place: Place,
        /// Kind and name of the workload.
        workload: String,
        /// What it does not run.
        what: String,
    },
}

fn list(names: &[String], none: &str) -> String {
    match names {
        [] => none.to_owned(),
        names if names.len() > 10 => format!("{} and {} more", names[..10].join(", "), names.len() - 10),
        names => names.join(", "),
    }
}

impl GitopsError {
    /// The place in the user's text, with the line and a caret, if there is one.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Yaml { place, .. }
            | Self::NotPlain { place, .. }
            | Self::MissingPart { place, .. }
            | Self::Manifest { place, .. }
            | Self::Refused { place, .. } => Some(place.snippet()),
            _ => None,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nowhere { image, seen, .. } if seen.is_empty() => {
                Some(format!("add a manifest with `image: {image}` to the GitOps path"))
            }
            Self::Nowhere { image, seen, .. } => {
                Some(format!("write `image: {image}` where it belongs; found instead: {}", list(seen, "")))
            }
            Self::NotPlain { .. } => Some("write the image on one line".to_owned()),
            Self::MissingPart { part: "tag", .. } => {
                Some("use the marker without a suffix, or :digest: images are pinned by digest".to_owned())
            }
            Self::Refused { what, .. } if what.starts_with("the volume") => {
                Some("put the files into the image; emptyDir is the only volume kind it knows".to_owned())
            }
            Self::Refused { what, .. } if what.contains("From") => Some("write the value with `value:`".to_owned()),
            _ => None,
        }
    }
}
