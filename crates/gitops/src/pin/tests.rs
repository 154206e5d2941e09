//! Tables of manifests before and after.

use super::*;

const OLD: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const NEW: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn site(reference: &str) -> ImagePin {
    ImagePin {
        service: "web".into(),
        name: "demo/site".parse().unwrap(),
        reference: reference.into(),
        policies: Vec::new(),
    }
}

fn new_site() -> ImagePin {
    site(&format!("registry.example:5000/demo/site@{NEW}"))
}

fn one(text: &str, pin: ImagePin) -> Result<Option<String>, GitopsError> {
    let files = BTreeMap::from([("deploy/web.yaml".to_owned(), text.to_owned())]);
    super::pin(&files, &[pin]).map(|changes| changes.files.get("deploy/web.yaml").cloned())
}

#[test]
fn nothing_but_the_scalar_changes() {
    for (before, quote) in [
        ("# head\nspec:\n    containers:\n    -   image:   demo/site:v1   # keep   me\n        name: \"x\"\n", ""),
        ("a: &a {b: 1}\nimage: \"localhost:3000/demo/site\"\n\n\n# tail", "\""),
        ("image: 'ghcr.io/demo/site:latest'\r\nother: ü\r\n", "'"),
        ("ü: ß\nlist: [{image: demo/site:v1}, {image: nginx}]\n", ""),
        ("{\"image\": \"demo/site:v1\", \"name\": \"x\"}", "\""),
        ("%YAML 1.2\n---\nx: |\n  image: text\n...\n---\nimage: demo/site:v1\n---\nkind: Service\n", ""),
    ] {
        let start = before.find("demo/site").unwrap();
        let start = before[..start].rfind(['"', '\'', ' ']).map_or(start, |at| at + 1);
        let end = before[start..].find(['"', '\'', ' ', '\n', '\r', '}']).map_or(before.len(), |at| start + at);
        let expected = format!("{}registry.example:5000/demo/site@{NEW}{}", &before[..start], &before[end..]);
        let after = match one(before, new_site()) {
            Ok(after) => after.unwrap(),
            Err(error) => panic!("{before:?}: {error}"),
        };
        assert_eq!(after, expected, "quote {quote:?}");
    }
}

#[test]
fn any_registry_tag_and_digest_of_the_repository_matches_and_no_other_repository() {
    let text = format!(
        "a:\n- image: demo/site\n- image: x.example/demo/site:1@{OLD}\n- image: other/site\n- image: demo/site2:v1\n- image: \
         a/demo/site\n- imageName: demo/site:v1\n- command: [demo/site]\n"
    );
    let after = one(&text, new_site()).unwrap().unwrap();
    assert_eq!(after.matches(NEW).count(), 2);
    for kept in
        ["image: other/site\n", "demo/site2:v1", "image: a/demo/site\n", "imageName: demo/site:v1", "[demo/site]"]
    {
        assert!(after.contains(kept), "{kept}: {after}");
    }
}

#[test]
fn what_is_right_already_is_not_written_but_counted() {
    let text = format!("image: registry.example:5000/demo/site@{NEW}\n");
    let files = BTreeMap::from([("a.yml".to_owned(), text)]);
    let changes = super::pin(&files, &[new_site()]).unwrap();
    assert!(changes.files.is_empty());
    assert_eq!((changes.pinned.len(), changes.pinned[0].line), (1, 1));
}

#[test]
fn markers_name_the_part() {
    let text = "values:\n  repository: ghcr.io/demo/site # {\"$imagepolicy\": \"flux:site:name\"}\n  tag: v1 # \
                {\"$imagepolicy\": \"flux:site:tag\"}\n  digest: \"\" # {\"$imagepolicy\": \"flux:site:digest\"}\n  full: \
                ghcr.io/demo/site:v1 # {\"$imagepolicy\": \"flux:site\"}\n  alien: x # {\"$imagepolicy\": \"flux:other:tag\"}\n";
    let text = text.replace("\"\" #", &format!("{OLD} #"));
    let after = one(&text, site(&format!("r.example/demo/site:1.0@{NEW}"))).unwrap().unwrap();
    assert!(after.contains("repository: r.example/demo/site #"), "{after}");
    assert!(after.contains("tag: \"1.0\" #"), "a tag that looks like a number gets quotes: {after}");
    assert!(after.contains(&format!("digest: {NEW} #")), "{after}");
    assert!(after.contains(&format!("full: r.example/demo/site:1.0@{NEW} #")), "{after}");
    assert!(after.contains("alien: x #"), "{after}");
}

#[test]
fn a_policy_may_be_named_by_the_caller() {
    let text = "tag: v1 # {\"$imagepolicy\": \"flux:site:tag\"}\n";
    let mut pin = site(&format!("r.example/demo/site:v2@{NEW}"));
    assert!(matches!(one(text, pin.clone()), Err(GitopsError::Nowhere { .. })));
    pin.policies.push("flux:site".into());
    assert_eq!(one(text, pin).unwrap().unwrap(), text.replace("v1", "v2"));
}

#[test]
fn a_marker_for_a_part_that_is_missing_is_refused_with_its_place() {
    let text = "a: demo/site # {\"$imagepolicy\": \"n:p:name\"}\nb: v1 # {\"$imagepolicy\": \"n:p:tag\"}\n";
    let error = one(text, new_site()).unwrap_err();
    assert!(error.to_string().starts_with("deploy/web.yaml:2:4: the marker asks for the tag of"), "{error}");
    assert!(error.hint().is_some() && error.place().unwrap().contains("2 | b: v1"));
}

#[test]
fn flux_scanning_resources_keep_their_repository() {
    let scan = "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nspec:\n  image: ghcr.io/demo/site\n";
    let after = one(&format!("{scan}---\nimage: demo/site:v1\n"), new_site()).unwrap().unwrap();
    assert!(after.starts_with(scan), "{after}");
    assert!(matches!(one(scan, new_site()), Err(GitopsError::Nowhere { .. })));
}

#[test]
fn an_alias_changes_where_its_anchor_is() {
    let text = "x: &img demo/site:v1\nimage: *img\n";
    let after = one(text, new_site()).unwrap().unwrap();
    assert_eq!(after, format!("x: &img registry.example:5000/demo/site@{NEW}\nimage: *img\n"));
}

#[test]
fn nowhere_names_the_files_and_what_was_found() {
    let files = BTreeMap::from([
        ("a.yaml".to_owned(), "image: demo/size:v1\n".to_owned()),
        ("README.md".to_owned(), "image: demo/site:v1\n".to_owned()),
    ]);
    let error = super::pin(&files, &[new_site()]).unwrap_err();
    assert_eq!(error.to_string(), "no manifest uses the image demo/site of service web; looked in a.yaml");
    assert!(error.hint().unwrap().contains("demo/size:v1 (a.yaml:1)"));
}

#[test]
fn refusals() {
    assert!(matches!(one("image: >-\n  demo/site:v1\n", new_site()), Err(GitopsError::NotPlain { .. })));
    assert!(matches!(one("demo/site: [\n", new_site()), Err(GitopsError::Yaml { .. })));
    assert!(matches!(one("image: demo/site\n", site("demo/other:v1")), Err(GitopsError::Reference { .. })));
    assert!(matches!(one("image: demo/site\n", site("demo/site v1")), Err(GitopsError::Reference { .. })));
    let files = BTreeMap::from([("a.yaml".to_owned(), "image: demo/site\n".to_owned())]);
    let two = [new_site(), site("demo/site:v2")];
    assert!(matches!(super::pin(&files, &two), Err(GitopsError::Conflict { .. })));
}

#[test]
fn a_broken_file_that_does_not_name_the_image_is_no_obstacle() {
    let files = BTreeMap::from([
        ("chart/templates/x.yaml".to_owned(), "{{ if .Values }}\na: [\n".to_owned()),
        ("web.yaml".to_owned(), "image: demo/site\n".to_owned()),
    ]);
    assert_eq!(super::pin(&files, &[new_site()]).unwrap().files.len(), 1);
}

proptest::proptest! {
    #[test]
    fn what_surrounds_the_image_stays(
        head in "(# [a-zé ]{0,12}\n|k[a-z]{1,4}: [a-zé0-9]{1,8}\n){0,4}",
        indent in 0usize..5,
        quote in proptest::sample::select(vec!["", "'", "\""]),
        tag in "(:[a-z0-9]{1,6})?",
        comment in "( +# [a-zé ]{0,9})?",
        tail in "(\n# [a-z]{0,5}|\nz: \"[a-zé ]{0,8}\")?\n",
    ) {
        let pad = " ".repeat(indent);
        let (before, after) = (format!("{head}a:\n{pad} - image: {quote}"), format!("{quote}{comment}{tail}"));
        let text = format!("{before}demo/site{tag}{after}");
        let changed = one(&text, new_site()).unwrap().unwrap();
        proptest::prop_assert_eq!(changed, format!("{before}registry.example:5000/demo/site@{NEW}{after}"));
    }

    #[test]
    fn any_text_ends_in_an_answer(text in "[-a:{}\\[\\],&*|>'\"# \n\té]{0,20}image: ?[-'\"&*|> ]{0,3}demo/site[-a:{}\\[\\],'\"# \n]{0,20}") {
        if let Ok(Some(after)) = one(&text, new_site()) {
            proptest::prop_assert!(after.contains(NEW));
        }
    }
}
