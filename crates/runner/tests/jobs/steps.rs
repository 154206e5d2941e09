//! `run:` steps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::JobResult;
use serde_json::json;

use crate::bed::Bed;

#[tokio::test]
async fn prints_and_reports() {
    let Some(bed) = Bed::new().await else { return };
    let ran =
        bed.steps(json!([{"run": "echo out; echo err >&2; pwd"}, {"name": "Second", "run": "true"}])).await.good();
    for line in ["Job \"build\" of demo/site", "##[group]Run echo out; echo err >&2; pwd", "Job ended: success"] {
        assert!(ran.lines.iter().any(|text| text.starts_with(line)), "{:?}", ran.lines);
    }
    let at = |line: &str| ran.lines.iter().position(|text| text == line).unwrap();
    assert!(at("out") < at("err") && at("err") < at("/workspace"), "{:?}", ran.lines);
    let step = &ran.report.steps[0];
    assert!(step.log_from as usize <= at("out") && at("/workspace") < step.log_to as usize);
    assert_eq!(ran.report.steps[1].name, "Second");
    assert_eq!(runner::JobReport::read(&ran.dir).unwrap().unwrap(), ran.report);
}

#[tokio::test]
async fn a_trivial_job_is_quick() {
    let Some(bed) = Bed::new().await else { return };
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        bed.script("true").await.good();
        best = best.min(began.elapsed());
    }
    // Some 30 ms on an idle machine; this one may be busy with other tests.
    assert!(best < Duration::from_millis(700), "{best:?}");
}

#[tokio::test]
async fn a_failure_names_the_step_and_its_last_lines() {
    let Some(bed) = Bed::new().await else { return };
    let ran = bed
        .steps(json!([{"name": "Test it", "run": "echo before\nfalse\necho after", "line": 9}, {"run": "echo no"}]))
        .await;
    assert_eq!(ran.failure(), "step \"Test it\": ended with exit code 1");
    let cause = ran.report.cause.clone().unwrap();
    assert_eq!(cause.place.as_deref(), Some(".github/workflows/ci.yml:9"));
    assert_eq!(cause.last_lines, ["before"]);
    assert_eq!(ran.results(), ["failure", "skipped"]);
    assert!(!ran.says("after") && !ran.says("no"));
}

#[tokio::test]
async fn files_carry_values_to_later_steps() {
    let Some(bed) = Bed::new().await else { return };
    let first = "echo \"A=1\" >> $GITHUB_ENV\n\
                 { echo 'text<<EOF'; echo one; echo two; echo EOF; } >> $GITHUB_OUTPUT\n\
                 mkdir -p $HOME/bin; printf '#!/bin/sh\\necho mine\\n' > $HOME/bin/tool; chmod +x $HOME/bin/tool\n\
                 echo $HOME/bin >> $GITHUB_PATH\n\
                 echo '# Done' >> $GITHUB_STEP_SUMMARY\n\
                 echo kept > /tmp/file; echo kept > $RUNNER_TEMP/file";
    let second =
        "echo \"A is $A\"; echo \"text is $T\"; tool; cat /tmp/file $RUNNER_TEMP/file; echo ${{ env.A }}${{ env.B }}";
    let mut spec = bed.spec(&json!([
        {"id": "first", "run": first},
        {"run": second, "env": {"T": "${{ steps.first.outputs.text }}", "B": "2"}},
        {"run": "echo ::set-output name=old::way", "id": "old"},
    ]));
    spec.plan.outputs = [("t", "${{ steps.first.outputs.text }}"), ("o", "${{ steps.old.outputs.old }}")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let ran = bed.run(&spec).await.good();
    for line in ["A is 1", "text is one", "two", "mine", "kept", "12"] {
        ran.must_say(line);
    }
    assert_eq!(ran.report.outputs["t"], "one\ntwo");
    assert_eq!(ran.report.outputs["o"], "way");
    assert_eq!(std::fs::read_to_string(ran.dir.join("summary.md")).unwrap().trim(), "# Done");
}

#[tokio::test]
async fn what_the_files_may_not_do() {
    let Some(bed) = Bed::new().await else { return };
    for (script, expected) in [
        ("echo GITHUB_SHA=x >> $GITHUB_ENV", "GITHUB_* and RUNNER_* belong to the runner"),
        ("echo NODE_OPTIONS=x >> $GITHUB_ENV", "NODE_OPTIONS"),
        ("echo nonsense >> $GITHUB_OUTPUT", "GITHUB_OUTPUT: line 1"),
        ("rm $GITHUB_OUTPUT; ln -s /etc/passwd $GITHUB_OUTPUT", "symbolic link"),
        ("rm $GITHUB_ENV; mkfifo $GITHUB_ENV", "not a regular file"),
        ("head -c 9000000 /dev/zero > $GITHUB_OUTPUT", "more than 8 MiB"),
        ("echo '::set-env name=A::1'", "set-env is disabled"),
    ] {
        let message = bed.script(script).await.failure();
        assert!(message.contains(expected), "{script}: {message}");
    }
    bed.script("rm -r /runner/files/* || true").await.good();
}

#[tokio::test]
async fn variables_and_contexts() {
    let Some(bed) = Bed::new().await else { return };
    let script = "echo \"$GITHUB_SHA $GITHUB_REF $GITHUB_REF_NAME $GITHUB_REPOSITORY $GITHUB_RUN_ID $GITHUB_RUN_NUMBER\"\n\
                  echo \"$GITHUB_WORKSPACE $GITHUB_ACTOR $GITHUB_EVENT_NAME $RUNNER_OS $CI $GITHUB_ACTIONS $GITHUB_JOB\"\n\
                  cat $GITHUB_EVENT_PATH; echo\n\
                  echo \"${{ github.sha == env.WANTED }} ${{ github.event.ref }} ${{ runner.os }} ${{ inputs.who }}\"\n\
                  echo \"${{ needs.a.outputs.x }} ${{ vars.V }} ${{ matrix.os }} ${{ job.status }} $GITHUB_ACTION\"\n\
                  test -w /workspace && test ! -w /usr && test -w $HOME && test -w /tmp && echo rights";
    let mut spec = bed.spec(&json!([{"id": "me", "run": script}]));
    spec.plan.env = BTreeMap::from([("WANTED".to_owned(), bed.commit.to_string())]);
    spec.plan.matrix = workflow::Object::new().with("os", "any");
    spec.vars = BTreeMap::from([("V".to_owned(), "vv".to_owned())]);
    let need = json!({"result": "success", "outputs": {"x": "from a"}});
    spec.needs = BTreeMap::from([("a".to_owned(), serde_json::from_value(need).unwrap())]);
    let ran = bed.run(&spec).await.good();
    ran.must_say(&format!("{} refs/heads/main main demo/site 70 12", bed.commit));
    ran.must_say("/workspace ann push Linux true true build");
    ran.must_say("{\"inputs\":{\"who\":\"world\"},\"ref\":\"refs/heads/main\"}");
    ran.must_say("true refs/heads/main Linux world");
    ran.must_say("from a vv any success me");
    ran.must_say("rights");
}

#[tokio::test]
async fn conditions_and_continue_on_error() {
    let Some(bed) = Bed::new().await else { return };
    let ran = bed
        .steps(json!([
            {"id": "soft", "run": "exit 3", "continueOnError": {"is": true}},
            {"run": "echo ${{ steps.soft.outcome }} ${{ steps.soft.conclusion }}"},
            {"run": "echo never", "condition": "false"},
            {"run": "exit 4"},
            {"run": "echo plain"},
            {"run": "echo on failure", "condition": "failure()"},
            {"run": "echo always ${{ job.status }}", "condition": "${{ always() }}"},
            {"run": "echo not cancelled", "condition": "!cancelled() && github.actor == 'ann'"},
            {"run": "echo cancelled", "condition": "cancelled()"},
        ]))
        .await;
    assert_eq!(ran.failure(), "step \"Run exit 4\": ended with exit code 4");
    ran.must_say("failure success");
    ran.must_say("always failure");
    let expected = ["success", "success", "skipped", "failure", "skipped", "success", "success", "success", "skipped"];
    assert_eq!(ran.results(), expected);
    assert_eq!(ran.report.steps[0].outcome, JobResult::Failure);
}

#[tokio::test]
async fn shells_and_directories() {
    let Some(bed) = Bed::new().await else { return };
    let ran = bed
        .steps(json!([
            {"run": "mkdir -p sub/dir"},
            {"run": "false | true; echo $0; pwd", "workingDirectory": "sub/dir"},
            {"run": "echo custom", "shell": "sh -x {0}"},
            {"run": "false | true", "shell": "bash"},
        ]))
        .await;
    assert!(ran.failure().contains("exit code 1"), "a named bash has pipefail");
    ran.must_say("/workspace/sub/dir");
    ran.must_say("+ echo custom");
    let missing = bed.steps(json!([{"run": "true", "workingDirectory": "nowhere"}])).await;
    assert!(missing.failure().contains("/workspace/nowhere"), "{}", missing.failure());
    let unknown = bed.steps(json!([{"run": "true", "shell": "fish"}])).await;
    assert!(unknown.failure().contains("shell \"fish\" is not known"), "{}", unknown.failure());
    let broken = bed.steps(json!([{"run": "${{ nope( }}"}])).await;
    assert!(broken.failure().contains("nope"), "{}", broken.failure());
}

#[tokio::test]
async fn defaults_of_the_job() {
    let Some(bed) = Bed::new().await else { return };
    let mut spec = bed.spec(&json!([{"run": "mkdir there", "workingDirectory": "."}, {"run": "pwd"}]));
    spec.plan.defaults = serde_json::from_value(json!({"shell": "sh -x {0}", "workingDirectory": "there"})).unwrap();
    let ran = bed.run(&spec).await.good();
    ran.must_say("+ pwd");
    ran.must_say("/workspace/there");
}

#[tokio::test]
async fn python_and_perl() {
    let Some(bed) = Bed::new().await else { return };
    for (program, shell, script) in
        [("python3", "python", "print('from ' + 'python')"), ("perl", "perl", "print 'from '.'perl'")]
    {
        if !std::path::Path::new("/usr/bin").join(program).exists() {
            testkit::skipped(&format!("/usr/bin/{program}"));
            continue;
        }
        let ran = bed.steps(json!([{"run": script, "shell": shell}])).await.good();
        ran.must_say(&format!("from {shell}"));
    }
}

#[tokio::test]
async fn secrets_are_hidden() {
    let Some(bed) = Bed::new().await else { return };
    let script = "echo \"plain $S\"; echo \"$S\" | rev; printf 'user:%s' \"$S\" | base64; echo \"u=$S\" >> $GITHUB_OUTPUT\n\
                  echo \"in summary $S\" >> $GITHUB_STEP_SUMMARY; echo \"::error::oh $S\"; echo '::add-mask::later'\n\
                  echo \"it is later, token ${{ github.token }}\"; printf 'a%.0s' $(seq 70000); printf \"$S\"; exit 1";
    let mut spec = bed.spec(&json!([
        {"id": "leak", "name": "Use ${{ secrets.S }}", "run": script, "env": {"S": "${{ secrets.S }}"}},
    ]));
    spec.secrets = BTreeMap::from([("S".to_owned(), "correct-horse-battery".to_owned())]);
    let template = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    spec.plan.outputs = BTreeMap::from([template("bad", "${{ steps.leak.outputs.u }}"), template("good", "x")]);
    let ran = bed.run(&spec).await;
    ran.must_say("plain ***");
    ran.must_say("yrettab-esroh-tcerroc");
    ran.must_say("it is ***, token ***");
    assert_eq!(ran.report.outputs.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(ran.report.annotations[0].message, "oh ***");
    let summary = std::fs::read_to_string(ran.dir.join("summary.md")).unwrap();
    let everything = format!("{}{summary}{:?}", ran.lines.concat(), ran.report);
    assert!(!everything.contains("correct-horse") && !everything.contains("Y29ycmVjdC1ob3"), "{everything}");
    assert!(!everything.contains("twp_0123456789"), "{everything}");
}

#[tokio::test]
async fn a_step_sees_nothing_of_the_machine() {
    let Some(bed) = Bed::new().await else { return };
    let path = bed.dir.path().display();
    let script = format!(
        "test ! -e {path} && test ! -e /root/.bashrc && echo hidden\n\
         (echo x > /runner/scripts/step-1.sh) 2>/dev/null || echo scripts read-only\n\
         sleep 1000 > /dev/null 2>&1 &"
    );
    let ran =
        bed.steps(json!([{"run": script}, {"run": "cat /proc/[0-9]*/comm | grep -c sleep || true"}])).await.good();
    ran.must_say("hidden");
    ran.must_say("scripts read-only");
    ran.must_say("0");
}
