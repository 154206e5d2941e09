//! What an image is made of, and the identity that follows from it.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The version of the form below. A recipe of another version is never equal to one of this.
pub const SCHEMA: u32 = 1;

/// A base image of the recipe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseImage {
    /// As the Dockerfile names it, expanded.
    pub reference: String,
    /// The digest it resolved to.
    pub digest: Digest,
}

/// A file that the recipe reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputFile {
    /// Its path in the build context.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// `file`, `symlink` or `directory`.
    pub kind: String,
    /// Its content: `git:<object name>` or `sha256:<hex>`.
    pub object: String,
}

/// Everything an image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipe {
    /// [`SCHEMA`] of whoever wrote it.
    pub schema: u32,
    /// The platform it is built for, as `linux/amd64`.
    pub platform: String,
    /// The base images of the stages that are built, in their order.
    pub base_images: Vec<BaseImage>,
    /// The expanded instructions of the stages that are built, in their order.
    pub recipe: Vec<String>,
    /// The files that these read, by path.
    pub files: Vec<InputFile>,
    /// The build arguments that were given, without those that only name the build.
    pub args: BTreeMap<String, String>,
    /// The secrets that are used: name and version, never the value.
    pub secrets: BTreeMap<String, String>,
    /// The builder that would build it.
    pub builder_version: String,
}

/// Why a stored recipe cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It is not the JSON that [`Recipe::to_json`] writes.
    #[error("the stored recipe of an image cannot be read")]
    Json(#[from] serde_json::Error),
}

impl Recipe {
    /// The canonical text: compact JSON with the fields in their declared order and lists in a fixed order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.canonical()).expect("strings, numbers and string keys always serialise")
    }

    /// Reads [`Recipe::to_json`].
    ///
    /// # Errors
    /// When the text is something else.
    pub fn from_json(text: &str) -> Result<Self, RecipeError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The same with its files in order, each once.
    fn canonical(&self) -> Self {
        let mut copy = self.clone();
        copy.files.sort();
        copy.files.dedup();
        copy
    }
}

/// The identity of the image that `recipe` makes: the SHA-256 of its canonical text.
pub fn identity(recipe: &Recipe) -> Digest {
    hash(&recipe.to_json())
}

/// The identity of the environment alone: base images, instructions, arguments and secrets, without the files.
pub fn env_identity(recipe: &Recipe) -> Digest {
    hash(&Recipe { files: Vec::new(), ..recipe.clone() }.to_json())
}

fn hash(text: &str) -> Digest {
    Digest::sha256(Sha256::digest(text.as_bytes()).into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Recipe {
        Recipe {
            schema: SCHEMA,
            platform: "linux/amd64".into(),
            base_images: vec![BaseImage { reference: "busybox:1".into(), digest: Digest::sha256([1; 32]) }],
            recipe: vec!["FROM busybox:1".into(), "COPY page /www".into()],
            files: vec![file("page/a.html", "git:aa"), file("page/b.html", "git:bb")],
            args: BTreeMap::from([("MODE".into(), "fast".into())]),
            secrets: BTreeMap::new(),
            builder_version: "1".into(),
        }
    }

    pub(crate) fn file(path: &str, object: &str) -> InputFile {
        InputFile { path: path.into(), mode: 0o644, kind: "file".into(), object: object.into() }
    }

    #[test]
    fn the_order_of_files_does_not_matter_and_their_content_does() {
        let one = sample();
        let mut other = sample();
        other.files.reverse();
        other.files.push(other.files[0].clone());
        assert_eq!(identity(&one), identity(&other));
        other.files[0].object = "git:cc".into();
        assert_ne!(identity(&one), identity(&other));
        assert_eq!(env_identity(&one), env_identity(&other), "the environment does not hold the files");
    }

    #[test]
    fn the_identity_of_a_form_never_changes_by_accident() {
        assert_eq!(
            identity(&sample()).to_string(),
            "sha256:651de096349d56c82958dfb6013c5436dbab3f04a0a69832599994892217645a"
        );
        assert_eq!(
            sample().to_json(),
            concat!(
                r#"{"schema":1,"platform":"linux/amd64","baseImages":[{"reference":"busybox:1","digest":"sha256:"#,
                r#"0101010101010101010101010101010101010101010101010101010101010101"}],"recipe":["FROM busybox:1","#,
                r#""COPY page /www"],"files":[{"path":"page/a.html","mode":420,"kind":"file","object":"git:aa"},"#,
                r#"{"path":"page/b.html","mode":420,"kind":"file","object":"git:bb"}],"args":{"MODE":"fast"},"#,
                r#""secrets":{},"builderVersion":"1"}"#
            )
        );
    }

    proptest! {
        #[test]
        fn a_boundary_between_two_texts_is_never_lost(a in "[a-z\"\\\\,]{0,6}", b in "[a-z\"\\\\,]{0,6}") {
            let one = Recipe { recipe: vec![a.clone(), b.clone()], ..sample() };
            let other = Recipe { recipe: vec![format!("{a}{b}"), String::new()], ..sample() };
            prop_assert_eq!(identity(&one) == identity(&other), b.is_empty());
        }

        #[test]
        fn text_and_back(path in ".*", object in ".*") {
            let recipe = Recipe { files: vec![file(&path, &object)], ..sample() };
            prop_assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            let _ = Recipe::from_json(&text);
        }
    }
}
