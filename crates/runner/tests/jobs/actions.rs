//! `uses:` steps.

use serde_json::json;

use crate::bed::Bed;

#[tokio::test]
async fn checkout_gives_the_files_and_a_repository() {
    let files = [("README", "hello\n"), ("src/deep/file", "x\n"), ("build.sh", "#!/bin/sh\n")];
    let Some(bed) = Bed::with(&files).await else { return };
    // The branch moves on; the job sees its own commit.
    bed.commit_on("main", Some(bed.commit.clone()), &[("README", "later\n")]).await;
    let ran = bed
        .steps(json!([
            {"id": "co", "uses": "actions/checkout@v4"},
            {"run": "cat README src/deep/file; git rev-parse HEAD; git rev-parse --abbrev-ref HEAD; git log --format=%an"},
            {"run": "git status --porcelain; git diff --stat; echo clean; git rev-list --count HEAD; git fsck"},
            {"run": "echo more >> README; git -c user.name=a -c user.email=b commit -qam x; git log --format=%s | head -1"},
            {"run": "git remote get-url origin; git config --get http.http://towpath.example:8080/.extraheader"},
            {"run": "echo ${{ steps.co.outputs.commit }} ${{ steps.co.outputs.ref }}"},
        ]))
        .await
        .good();
    for line in ["hello", "x", "main", "Ann", "clean", "1", "http://towpath.example:8080/demo/site.git"] {
        ran.must_say(line);
    }
    ran.must_say(bed.commit.as_str());
    ran.must_say(&format!("{} refs/heads/main", bed.commit));
    // The part of it that is no secret is shown.
    ran.must_say("AUTHORIZATION: basic eC1hY2Nlc3MtdG9rZW46***");
    let clean = ran.lines.iter().position(|line| line == "clean").unwrap();
    assert!(ran.lines[clean - 1].starts_with("##[endgroup]"), "git status is not empty: {:?}", ran.lines);
}

#[tokio::test]
async fn checkout_inputs() {
    let Some(mut bed) = Bed::with(&[("a/x", "1"), ("b/y", "2"), ("top", "3")]).await else { return };
    let first = bed.commit.clone();
    bed.commit = bed.commit_on("main", Some(first.clone()), &[("top", "4")]).await;
    bed.commit_on("side", Some(first.clone()), &[("top", "side")]).await;
    let checkout = "https://github.com/actions/checkout@v5";
    let ran = bed
        .steps(json!([
            {"uses": checkout, "with": {"path": "one/two", "fetch-depth": "0", "persist-credentials": "false"}},
            {"run": "cat top; echo; git rev-list --count HEAD; git branch -r | xargs; cat .git/config | grep -c AUTH || true",
             "workingDirectory": "one/two"},
            {"uses": checkout, "with": {"ref": "side", "path": "side", "sparse-checkout": "a\n", "odd": "1"}},
            {"run": "cat side/top; echo; ls side | xargs; git -C side rev-parse --abbrev-ref HEAD"},
            {"uses": checkout, "with": {"ref": first.to_string()}},
            {"run": "cat top; echo; ls | xargs; git rev-parse --abbrev-ref HEAD"},
        ]))
        .await
        .good();
    for line in ["4", "2", "origin/main origin/side", "0", "side", "a top", "3", "a b top", "HEAD"] {
        ran.must_say(line);
    }
    ran.must_say("##[warning]Unexpected input \"odd\" of actions/checkout.");
}

#[tokio::test]
async fn checkout_refuses_by_name() {
    let Some(bed) = Bed::with(&[(".gitmodules", "[submodule \"x\"]\n")]).await else { return };
    for (with, expected) in [
        (json!({"repository": "other/thing"}), "\"other/thing\" cannot be checked out"),
        (json!({"path": "../out"}), "not below the workspace"),
        (json!({"path": "/etc"}), "not below the workspace"),
        (json!({"ref": "no-such"}), "\"no-such\" is no branch, tag or commit"),
        (json!({"ref": "--upload-pack=x"}), "is no branch"),
        (json!({"submodules": "true"}), "submodules are not supported"),
        (json!({"lfs": "true"}), "lfs"),
        (json!({"fetch-depth": "many"}), "fetch-depth \"many\""),
        (json!({"clean": "maybe"}), "clean \"maybe\""),
    ] {
        let message = bed.steps(json!([{"uses": "actions/checkout@v4", "with": with}])).await.failure();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn checkout_follows_no_link() {
    let Some(bed) = Bed::new().await else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("kept"), "x").unwrap();
    let script = format!("ln -s {} out; mkdir -p in; ln -s /etc in/.git", outside.path().display());
    let ran = bed.steps(json!([{"run": script}, {"uses": "actions/checkout@v4", "with": {"path": "out"}}])).await;
    assert!(ran.failure().contains("symbolic link"), "{}", ran.failure());
    let inside = json!([{"run": script}, {"uses": "actions/checkout@v4", "with": {"path": "in", "clean": "false"}},
        {"run": "test -d in/.git && test ! -L in/.git && git -C in rev-parse HEAD"}]);
    bed.steps(inside).await.good().must_say(bed.commit.as_str());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

const ACTION: &str = "name: Greet
description: says hello
inputs:
  who: {description: whom, default: nobody}
  times: {description: how often, default: 1}
outputs:
  said: {description: what, value: '${{ steps.say.outputs.text }}'}
runs:
  using: composite
  steps:
    - id: say
      shell: bash
      run: |
        echo \"hello ${{ inputs.who }} x${{ inputs.times }} from $GITHUB_ACTION_PATH\"
        echo \"text=hello ${{ inputs.who }}\" >> $GITHUB_OUTPUT
        echo \"FROM_ACTION=$OUTER\" >> $GITHUB_ENV
    - if: ${{ inputs.who == 'trouble' }}
      shell: bash
      run: exit 9
    - shell: bash
      run: echo \"still here\"
";

#[tokio::test]
async fn composite_actions() {
    let files = [(".github/actions/greet/action.yml", ACTION), ("js/action.yaml", "runs: {using: node20, main: x.js}")];
    let Some(bed) = Bed::with(&files).await else { return };
    let ran = bed
        .steps(json!([
            {"uses": "actions/checkout@v4"},
            {"id": "greet", "uses": "./.github/actions/greet", "with": {"who": "${{ github.actor }}"}, "env": {"OUTER": "o"}},
            {"run": "echo \"said ${{ steps.greet.outputs.said }}, env $FROM_ACTION, ${{ steps.say.outputs.text }}.\""},
        ]))
        .await
        .good();
    ran.must_say("hello ann x1 from /workspace/.github/actions/greet");
    ran.must_say("still here");
    ran.must_say("said hello ann, env o, .");
    assert_eq!(ran.results(), ["success", "success", "success"]);
    let failing = bed
        .steps(json!([
            {"uses": "actions/checkout@v4"},
            {"name": "Greet", "uses": "./.github/actions/greet", "with": {"who": "trouble"}},
        ]))
        .await;
    assert!(failing.failure().contains("exit code 9"), "{}", failing.failure());
    assert!(!failing.says("still here"));
    let node = bed.steps(json!([{"uses": "actions/checkout@v4"}, {"uses": "./js"}])).await;
    assert!(node.failure().contains("\"node20\""), "{}", node.failure());
    let absent = bed.steps(json!([{"uses": "./nothing"}])).await;
    assert!(absent.failure().contains("no nothing/action.yml"), "{}", absent.failure());
}

#[tokio::test]
async fn other_actions_are_refused_by_name() {
    let Some(bed) = Bed::new().await else { return };
    for uses in ["actions/setup-node@v4", "docker://alpine:3", "actions/checkout/sub@v4", "actions/upload-artifact@v4"]
    {
        let message = bed.steps(json!([{"uses": uses}])).await.failure();
        assert!(message.contains(uses) && message.contains("it has actions/checkout"), "{message}");
    }
}
