//! Which events fire a workflow.
#![allow(clippy::unwrap_used)]

use model::RefName;
use workflow::{TriggerEvent, Workflow, fires, parse, skip_mark, workflow_files};

fn workflow(on: &str) -> Workflow {
    let text = format!("on: {on}\njobs: {{a: {{runs-on: x, steps: [{{run: a}}]}}}}\n");
    parse("w.yml", &text).unwrap_or_else(|error| panic!("{}", error.place()))
}

fn event(name: &str, ref_name: &str) -> TriggerEvent {
    TriggerEvent::new(name, ref_name.parse::<RefName>().unwrap())
}

/// Whether a push of `ref_name` with these changed files fires.
fn push(on: &str, ref_name: &str, changed: Option<&[&str]>) -> Result<(), String> {
    let changed_paths = changed.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
    fires(&workflow(on), &TriggerEvent { changed_paths, ..event("push", ref_name) })
}

#[test]
fn branches_and_tags() {
    let table = [
        ("push", "refs/heads/main", true),
        ("push", "refs/tags/v1", true),
        ("{push: }", "refs/heads/any/thing", true),
        ("[pull_request, push]", "refs/heads/main", true),
        ("pull_request", "refs/heads/main", false),
        ("workflow_dispatch", "refs/heads/main", false),
        ("{push: {branches: [main]}}", "refs/heads/main", true),
        ("{push: {branches: main}}", "refs/heads/main", true),
        ("{push: {branches: [main]}}", "refs/heads/main2", false),
        ("{push: {branches: [main]}}", "refs/heads/feature/main", false),
        // A workflow that filters branches only does not run for tags, and the other way round.
        ("{push: {branches: ['**']}}", "refs/tags/v1", false),
        ("{push: {branches-ignore: [x]}}", "refs/tags/v1", false),
        ("{push: {tags: ['v*']}}", "refs/tags/v1", true),
        ("{push: {tags: ['v*']}}", "refs/heads/v1", false),
        ("{push: {tags-ignore: ['v*']}}", "refs/tags/v1", false),
        ("{push: {tags-ignore: ['v*']}}", "refs/tags/w1", true),
        ("{push: {tags-ignore: ['v*']}}", "refs/heads/main", false),
        ("{push: {branches: [main], tags: ['v*']}}", "refs/heads/main", true),
        ("{push: {branches: [main], tags: ['v*']}}", "refs/tags/v1", true),
        ("{push: {branches: [main], tags: ['v*']}}", "refs/tags/w1", false),
        ("{push: {branches-ignore: ['feature/**']}}", "refs/heads/feature/a/b", false),
        ("{push: {branches-ignore: ['feature/**']}}", "refs/heads/main", true),
        ("{push: {branches: ['releases/**', '!releases/**-alpha']}}", "refs/heads/releases/10", true),
        ("{push: {branches: ['releases/**', '!releases/**-alpha']}}", "refs/heads/releases/beta/3-alpha", false),
        ("push", "refs/notes/commits", true),
        ("{push: {branches: ['**']}}", "refs/notes/commits", false),
    ];
    for (on, ref_name, fired) in table {
        assert_eq!(push(on, ref_name, None).is_ok(), fired, "{on} {ref_name}");
    }
}

#[test]
fn paths() {
    let paths = "{push: {paths: ['src/**', '!src/**/*.md', 'README.md']}}";
    let ignore = "{push: {paths-ignore: ['docs/**', '*.md']}}";
    let both = "{push: {branches: [main], paths: ['src/**']}}";
    let table: &[(&str, &str, Option<&[&str]>, bool)] = &[
        (paths, "refs/heads/main", Some(&["src/a.rs"]), true),
        (paths, "refs/heads/main", Some(&["src/a/b.md"]), false),
        (paths, "refs/heads/main", Some(&["src/a/b.md", "src/a.rs"]), true),
        (paths, "refs/heads/main", Some(&["README.md"]), true),
        (paths, "refs/heads/main", Some(&["other"]), false),
        (ignore, "refs/heads/main", Some(&["docs/a/b", "x.md"]), false),
        (ignore, "refs/heads/main", Some(&["docs/a/b", "x.rs"]), true),
        (ignore, "refs/heads/main", Some(&["a/x.md"]), true),
        (both, "refs/heads/main", Some(&["src/a"]), true),
        (both, "refs/heads/main", Some(&["a"]), false),
        (both, "refs/heads/other", Some(&["src/a"]), false),
        // An empty commit changes no file, so a workflow that filters paths does not run: neither way of filtering
        // can be talked into running everything.
        (paths, "refs/heads/main", Some(&[]), false),
        (ignore, "refs/heads/main", Some(&[]), false),
        ("push", "refs/heads/main", Some(&[]), true),
        // What changed is not known (too much, or nothing to compare with): it runs.
        (paths, "refs/heads/main", None, true),
        (ignore, "refs/heads/main", None, true),
        // Paths are not looked at where a tag is pushed.
        (paths, "refs/tags/v1", Some(&["other"]), true),
        (paths, "refs/tags/v1", Some(&[]), true),
    ];
    for (on, ref_name, changed, fired) in table {
        assert_eq!(push(on, ref_name, *changed).is_ok(), *fired, "{on} {ref_name} {changed:?}");
    }
}

#[test]
fn the_reason_is_said() {
    let reason = |on: &str, ref_name: &str, changed: Option<&[&str]>| push(on, ref_name, changed).unwrap_err();
    assert_eq!(
        reason("[pull_request, workflow_dispatch]", "refs/heads/x", None),
        "it runs on pull_request, workflow_dispatch, not on push"
    );
    assert_eq!(reason("{push: {branches: [main]}}", "refs/heads/x", None), "no pattern chooses the branch x");
    assert_eq!(reason("{push: {branches-ignore: [x]}}", "refs/heads/x", None), "the branch x is ignored");
    assert_eq!(reason("{push: {branches: [main]}}", "refs/tags/v1", None), "it filters branches only, and v1 is a tag");
    assert_eq!(
        reason("{push: {paths: [a]}}", "refs/heads/x", Some(&["b", "c"])),
        "none of the 2 changed files is in `paths`"
    );
    assert_eq!(
        reason("{push: {paths-ignore: [b]}}", "refs/heads/x", Some(&["b"])),
        "all 1 changed files are in `paths-ignore`"
    );
    assert_eq!(reason("{push: {paths: [a]}}", "refs/heads/x", Some(&[])), "no file changed, and it filters paths");
}

#[test]
fn commit_messages_that_ask_for_no_run() {
    for message in [
        "fix [skip ci]",
        "[ci skip] fix",
        "x\n\nbody [no ci]",
        "[skip actions]",
        "[actions skip]",
        "[CI SKIP]",
        "[Skip CI]",
        "fix\n\n\nskip-checks: true",
        "fix\n\n\nskip-checks:true\n",
        "fix\n\nSigned-off-by: a\nskip-checks: true",
    ] {
        assert!(skip_mark(message).is_some(), "{message:?}");
        let commit_message = message.to_owned();
        assert!(
            fires(
                &workflow("push"),
                &TriggerEvent { commit_message: commit_message.clone(), ..event("push", "refs/heads/a") }
            )
            .is_err()
        );
        assert!(
            fires(
                &workflow("pull_request"),
                &TriggerEvent { commit_message: commit_message.clone(), ..event("pull_request", "refs/heads/a") }
            )
            .is_err()
        );
        // Only pushes and pull requests can be skipped so: whoever starts a workflow by hand means it.
        assert!(
            fires(
                &workflow("workflow_dispatch"),
                &TriggerEvent { commit_message, ..event("workflow_dispatch", "refs/heads/a") }
            )
            .is_ok()
        );
    }
    for message in [
        "",
        "fix",
        "skip ci",
        "[skip-ci]",
        "[skip  ci]",
        "skip-checks: true",
        "x\n\nskip-checks: false",
        "x\nskip-checks: true\nmore",
    ] {
        assert_eq!(skip_mark(message), None, "{message:?}");
    }
}

#[test]
fn manual_workflows_never_fire_on_push() {
    let manual = workflow("workflow_dispatch");
    for ref_name in ["refs/heads/main", "refs/tags/v1"] {
        for name in ["push", "pull_request", "schedule", "create"] {
            assert!(fires(&manual, &event(name, ref_name)).is_err());
        }
        assert_eq!(fires(&manual, &event("workflow_dispatch", ref_name)), Ok(()));
    }
}

#[test]
fn activity_types() {
    let pull = |on: &str, action: &str| {
        fires(
            &workflow(on),
            &TriggerEvent { action: Some(action.to_owned()), ..event("pull_request", "refs/heads/main") },
        )
        .is_ok()
    };
    for action in ["opened", "synchronize", "reopened"] {
        assert!(pull("pull_request", action));
    }
    assert!(!pull("pull_request", "closed"));
    assert!(pull("{pull_request: {types: [closed]}}", "closed"));
    assert!(!pull("{pull_request: {types: closed}}", "opened"));
    assert!(!pull("{pull_request: {branches: [x]}}", "opened"));
    let release = |action: &str| TriggerEvent { action: Some(action.to_owned()), ..event("release", "refs/tags/v1") };
    assert!(fires(&workflow("release"), &release("published")).is_ok());
    let custom = TriggerEvent { action: Some("my-type".to_owned()), ..event("repository_dispatch", "refs/heads/main") };
    assert!(fires(&workflow("repository_dispatch"), &custom).is_ok());
    assert!(fires(&workflow("{repository_dispatch: {types: [other]}}"), &custom).is_err());
}

#[test]
fn schedules() {
    let scheduled = workflow("{schedule: [{cron: '30 5 * * 1-5'}, {cron: '0 0 1 jan *', timezone: Europe/Berlin}]}");
    let found: Vec<_> = scheduled.schedules().iter().map(|one| (one.cron.as_str(), one.timezone.as_deref())).collect();
    assert_eq!(found, [("30 5 * * 1-5", None), ("0 0 1 jan *", Some("Europe/Berlin"))]);
    assert_eq!(fires(&scheduled, &event("schedule", "refs/heads/main")), Ok(()));
    assert!(fires(&scheduled, &event("push", "refs/heads/main")).is_err());
}

#[test]
fn the_first_folder_with_workflows_counts() {
    let files = |paths: &[&'static str]| workflow_files(paths.iter().copied());
    assert_eq!(
        files(&[".github/workflows/b.yml", ".github/workflows/a.yaml", "x.yml"]),
        [".github/workflows/b.yml", ".github/workflows/a.yaml"]
    );
    assert_eq!(
        files(&[".github/workflows/a.yml", ".gitea/workflows/a.yml", ".forgejo/workflows/a.yml"]),
        [".gitea/workflows/a.yml"]
    );
    assert_eq!(files(&[".github/workflows/a.yml", ".towpath/workflows/z.yml"]), [".towpath/workflows/z.yml"]);
    // A folder without workflows does not hide another.
    assert_eq!(
        files(&[".towpath/workflows/README.md", ".towpath/workflows/sub/a.yml", ".github/workflows/a.yml"]),
        [".github/workflows/a.yml"]
    );
    assert_eq!(files(&["workflows/a.yml", "a/.github/workflows/a.yml"]), Vec::<&str>::new());
}
