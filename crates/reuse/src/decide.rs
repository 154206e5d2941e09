//! Hit or miss, with the reason.

use std::collections::BTreeMap;

use model::{CommitId, PinnedImage, ReuseDecision, RunId};

use crate::{InputFile, Recipe, identity};

/// The last image that was built for a service and went live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastArtifact {
    /// What it was made of.
    pub recipe: Recipe,
    /// The image.
    pub image: PinnedImage,
    /// The commit it was built from.
    pub source_commit: CommitId,
    /// The run that built it.
    pub run: RunId,
    /// Whether the registry still holds its manifest and everything below it.
    pub exists: bool,
}

/// Whether `last` can stand for what `current` would make.
///
/// A miss names the first input that differs, in the order in which they matter: builder, platform, base images,
/// instructions, arguments, secrets, files.
pub fn decide(current: &Recipe, last: Option<&LastArtifact>) -> ReuseDecision {
    let Some(last) = last else {
        return miss("there is no earlier image of this service");
    };
    if let Some(why) = difference(current, &last.recipe) {
        return miss(why);
    }
    if identity(current) != identity(&last.recipe) {
        // Cannot differ without a named input; if it ever does, doubt builds.
        return miss("the identity differs");
    }
    if !last.exists {
        return miss(format!("the registry no longer holds {}", last.image));
    }
    ReuseDecision::Hit { image: last.image.clone(), source_commit: last.source_commit.clone(), run: last.run }
}

fn miss(why: impl Into<String>) -> ReuseDecision {
    ReuseDecision::Miss { why: why.into() }
}

fn difference(now: &Recipe, was: &Recipe) -> Option<String> {
    if now.schema != was.schema {
        return Some(format!("recipes have form {} now, the earlier image has form {}", now.schema, was.schema));
    }
    if now.builder_version != was.builder_version {
        return Some(format!("the builder is {} now, was {}", now.builder_version, was.builder_version));
    }
    if now.platform != was.platform {
        return Some(format!("the platform is {} now, was {}", now.platform, was.platform));
    }
    base_images(now, was)
        .or_else(|| instructions(now, was))
        .or_else(|| named("build argument", &now.args, &was.args))
        .or_else(|| named("secret", &now.secrets, &was.secrets))
        .or_else(|| files(now, was))
}

fn base_images(now: &Recipe, was: &Recipe) -> Option<String> {
    for (new, old) in now.base_images.iter().zip(&was.base_images) {
        if new.reference != old.reference {
            return Some(format!("base image {} took the place of {}", new.reference, old.reference));
        }
        if new.digest != old.digest {
            return Some(format!("base image {} is {} now, was {}", new.reference, new.digest, old.digest));
        }
    }
    let (new, old) = (now.base_images.len(), was.base_images.len());
    (new != old).then(|| format!("there are {new} base images now, were {old}"))
}

fn instructions(now: &Recipe, was: &Recipe) -> Option<String> {
    for (index, (new, old)) in now.recipe.iter().zip(&was.recipe).enumerate() {
        if new != old {
            return Some(format!("instruction {} is {:?} now, was {:?}", index + 1, clip(new), clip(old)));
        }
    }
    if let Some(added) = now.recipe.get(was.recipe.len()) {
        return Some(format!("instruction {:?} was added", clip(added)));
    }
    was.recipe.get(now.recipe.len()).map(|gone| format!("instruction {:?} is gone", clip(gone)))
}

fn named(kind: &str, now: &BTreeMap<String, String>, was: &BTreeMap<String, String>) -> Option<String> {
    for (name, value) in now {
        match was.get(name) {
            None => return Some(format!("{kind} {name} is new")),
            // The values stay out of it: an argument may hold what should have been a secret.
            Some(old) if old != value => return Some(format!("{kind} {name} changed")),
            Some(_) => {}
        }
    }
    was.keys().find(|name| !now.contains_key(*name)).map(|name| format!("{kind} {name} is gone"))
}

fn files(now: &Recipe, was: &Recipe) -> Option<String> {
    let by_path =
        |recipe: &Recipe| recipe.files.iter().map(|file| (file.path.clone(), file.clone())).collect::<BTreeMap<_, _>>();
    let (now, was) = (by_path(now), by_path(was));
    for (path, file) in &now {
        match was.get(path) {
            None => return Some(format!("file {path} is new")),
            Some(old) if old != file => return Some(changed(file, old)),
            Some(_) => {}
        }
    }
    was.keys().find(|path| !now.contains_key(*path)).map(|path| format!("file {path} is gone"))
}

fn changed(now: &InputFile, was: &InputFile) -> String {
    if now.kind != was.kind {
        format!("{} is a {} now, was a {}", now.path, now.kind, was.kind)
    } else if now.object == was.object {
        format!("file {} has mode {:o} now, had {:o}", now.path, now.mode, was.mode)
    } else {
        format!("file {} changed", now.path)
    }
}

/// At most 120 characters of an instruction.
fn clip(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::{file, sample};
    use model::Digest;
    use proptest::prelude::*;

    fn last(recipe: Recipe, exists: bool) -> LastArtifact {
        LastArtifact {
            recipe,
            image: PinnedImage { name: "demo/site".parse().unwrap(), digest: Digest::sha256([9; 32]) },
            source_commit: "a".repeat(40).parse().unwrap(),
            run: RunId(7),
            exists,
        }
    }

    fn why(change: impl FnOnce(&mut Recipe)) -> String {
        let mut now = sample();
        change(&mut now);
        match decide(&now, Some(&last(sample(), true))) {
            ReuseDecision::Miss { why } => why,
            ReuseDecision::Hit { .. } => "hit".to_owned(),
        }
    }

    #[test]
    fn the_same_recipe_is_a_hit_while_its_image_exists() {
        assert!(matches!(decide(&sample(), Some(&last(sample(), true))), ReuseDecision::Hit { run: RunId(7), .. }));
        assert_eq!(why(|now| now.files.reverse()), "hit");
        let gone = decide(&sample(), Some(&last(sample(), false)));
        let expected = format!("the registry no longer holds demo/site@{}", Digest::sha256([9; 32]));
        assert_eq!(gone, ReuseDecision::Miss { why: expected });
        let first = decide(&sample(), None);
        assert_eq!(first, ReuseDecision::Miss { why: "there is no earlier image of this service".into() });
    }

    #[test]
    fn a_miss_names_the_first_input_that_differs() {
        assert_eq!(why(|now| now.files[0].object = "git:cc".into()), "file page/a.html changed");
        assert_eq!(why(|now| now.files[1].mode = 0o755), "file page/b.html has mode 755 now, had 644");
        assert_eq!(why(|now| now.files[1].kind = "symlink".into()), "page/b.html is a symlink now, was a file");
        assert_eq!(why(|now| now.files.push(file("page/c.html", "git:c"))), "file page/c.html is new");
        assert_eq!(why(|now| drop(now.files.remove(0))), "file page/a.html is gone");
        assert_eq!(why(|now| drop(now.args.insert("MODE".into(), "slow".into()))), "build argument MODE changed");
        assert_eq!(why(|now| now.args.clear()), "build argument MODE is gone");
        assert_eq!(why(|now| drop(now.secrets.insert("key".into(), "2".into()))), "secret key is new");
        assert_eq!(why(|now| now.platform = "linux/arm64".into()), "the platform is linux/arm64 now, was linux/amd64");
        assert_eq!(why(|now| now.builder_version = "2".into()), "the builder is 2 now, was 1");
        assert_eq!(why(|now| now.schema = 2), "recipes have form 2 now, the earlier image has form 1");
        assert_eq!(
            why(|now| now.recipe[1] = "COPY page /srv".into()),
            r#"instruction 2 is "COPY page /srv" now, was "COPY page /www""#
        );
        assert_eq!(why(|now| now.recipe.push("USER 1".into())), r#"instruction "USER 1" was added"#);
        assert_eq!(why(|now| drop(now.recipe.pop())), r#"instruction "COPY page /www" is gone"#);
        assert_eq!(
            why(|now| now.base_images[0].digest = Digest::sha256([2; 32])),
            format!("base image busybox:1 is {} now, was {}", Digest::sha256([2; 32]), Digest::sha256([1; 32]))
        );
        assert_eq!(why(|now| now.base_images.clear()), "there are 0 base images now, were 1");
    }

    proptest! {
        /// A hit needs equal identities, and equal identities of an existing image are a hit.
        #[test]
        fn hit_means_equal_identity(objects in proptest::collection::vec("[ab]", 0..4), other in proptest::collection::vec("[ab]", 0..4)) {
            let with = |objects: &[String]| Recipe {
                files: objects.iter().enumerate().map(|(i, o)| file(&format!("f{i}"), o)).collect(),
                ..sample()
            };
            let (now, was) = (with(&objects), with(&other));
            let hit = matches!(decide(&now, Some(&last(was.clone(), true))), ReuseDecision::Hit { .. });
            prop_assert_eq!(hit, identity(&now) == identity(&was));
        }
    }
}
