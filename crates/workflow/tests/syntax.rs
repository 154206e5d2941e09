//! What is wrong with a workflow file is said with its place.
#![allow(clippy::unwrap_used)]

use workflow::{WorkflowError, parse};

/// A workflow of one job with these lines in the job (indented by four) and these at the top.
fn with_job(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("on: push\njobs:\n  build:\n{lines}")
}

fn with_step(lines: &str) -> String {
    let lines: String = lines
        .lines()
        .enumerate()
        .map(|(n, line)| format!("{}{line}\n", if n == 0 { "  - " } else { "    " }))
        .collect();
    with_job(&format!("runs-on: x\nsteps:\n{lines}"))
}

fn error(text: &str) -> WorkflowError {
    match parse("w.yml", text) {
        Err(error) => error,
        Ok(_) => panic!("must be refused:\n{text}"),
    }
}

#[test]
fn an_error_shows_path_line_and_caret() {
    let text = "name: CI\non: push\njobs:\n  build:\n    run-on: ubuntu-latest\n    steps:\n      - run: make\n";
    let error = error(text);
    assert_eq!(error.message, "the job `build` has no key `run-on`: did you mean `runs-on`?");
    assert_eq!(error.place(), "w.yml:5:5\n  5 |     run-on: ubuntu-latest\n    |     ^");
    assert_eq!(error.to_string(), "w.yml:5:5: the job `build` has no key `run-on`: did you mean `runs-on`?");
}

#[test]
fn an_error_is_a_cause_for_people() {
    let cause = model::Cause::from(error("on: push\npush: 1\njobs: {a: {runs-on: x}}\n"));
    assert_eq!(cause.message, "w.yml:2:1: the workflow has no key `push`");
    assert_eq!(cause.place.as_deref(), Some("w.yml:2:1\n  2 | push: 1\n    | ^"));
    assert!(cause.hint.unwrap().contains("indent it below `on:`"));
}

#[test]
fn the_head_of_a_workflow() {
    let job = "jobs: {a: {runs-on: x, steps: [{run: a}]}}";
    let table = [
        ("jobs: {}".to_owned(), 1, 1, "the workflow has no `on`"),
        ("on: push".to_owned(), 1, 1, "the workflow has no `jobs`"),
        ("on: push\njobs: {}".to_owned(), 2, 7, "`jobs` holds no job"),
        ("on: push\njobs:".to_owned(), 2, 5, "`jobs` holds no job"),
        ("- a".to_owned(), 1, 1, "the workflow must be a mapping, not a list"),
        ("hello".to_owned(), 1, 1, "the workflow must be a mapping, not the text \"hello\""),
        (format!("on: push\njosb: 1\n{job}"), 2, 1, "did you mean `jobs`?"),
        (format!("on: push\npermissions: read\n{job}"), 2, 14, "cannot be `read`"),
        (format!("on: push\npermissions: {{content: read}}\n{job}"), 2, 15, "did you mean `contents`?"),
        (format!("on: push\npermissions: {{contents: admin}}\n{job}"), 2, 25, "read, write or none"),
        (format!("on: push\npermissions: {{id-token: read}}\n{job}"), 2, 25, "write or none"),
        (format!("on: push\nname: ${{{{ github.ref }}}}\n{job}"), 2, 7, "cannot hold an expression"),
        (format!("on: push\nname: [a]\n{job}"), 2, 7, "must be a text, not a list"),
        (format!("on: push\nrun-name: a ${{{{ matrix.x }}}}\n{job}"), 2, 17, "`matrix` cannot be used here"),
        (format!("on: push\nenv: {{A: '${{{{ env.B }}}}'}}\n{job}"), 2, 15, "`env` cannot be used here"),
        (format!("on: push\nenv: [A]\n{job}"), 2, 6, "`env` must be a mapping, not a list"),
        (format!("on: push\nenv: {{A: [1]}}\n{job}"), 2, 10, "`A` of `env` must be a text"),
        (format!("on: push\ndefaults: {{runs: 1}}\n{job}"), 2, 12, "did you mean `run`?"),
        (format!("on: push\ndefaults: {{run: {{shel: sh}}}}\n{job}"), 2, 18, "did you mean `shell`?"),
        (format!("on: push\nconcurrency: {{cancel-in-progress: true}}\n{job}"), 2, 14, "has no `group`"),
        (format!("on: push\nconcurrency: ''\n{job}"), 2, 14, "the group of `concurrency` is empty"),
        (format!("on: push\nconcurrency: {{group: a, queue: all}}\n{job}"), 2, 32, "`single` or `max`"),
    ];
    for (text, line, column, message) in table {
        let error = error(&text);
        assert!(error.message.contains(message), "{text}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{text}\n{error}");
        assert!(error.snippet.is_some());
    }
}

#[test]
fn lost_indentation_is_recognised() {
    let error_of = |text: &str| error(text).hint.unwrap_or_default();
    assert!(error_of("on:\npush:\njobs: {}").contains("indent it below `on:`"));
    assert!(error_of("on: push\njobs:\nbuild: 1\nruns-on: x").contains("known keys"));
    assert!(error_of("on: push\njobs: {}\nruns-on: x").contains("belongs to a job"));
}

#[test]
fn events() {
    let table = [
        ("on: psh", 1, 5, "there is no event `psh`: did you mean `push`?"),
        ("on: [push, pul_request]", 1, 12, "did you mean `pull_request`?"),
        ("on: []", 1, 5, "names no event"),
        ("on: {}", 1, 5, "names no event"),
        ("on: [push, push]", 1, 12, "named twice"),
        ("on: {push: {branch: main}}", 1, 13, "did you mean `branches`?"),
        ("on: {push: {branches: main, branches-ignore: x}}", 1, 29, "cannot both be there"),
        ("on: {push: {tags: a, tags-ignore: x}}", 1, 22, "cannot both be there"),
        ("on: {push: {paths: a, paths-ignore: x}}", 1, 23, "cannot both be there"),
        ("on: {push: {branches: ['!main']}}", 1, 13, "only takes away"),
        ("on: {push: {branches: ['a[']}}", 1, 24, "a `[` is not closed"),
        ("on: {push: {branches: [[a]]}}", 1, 24, "must be a text"),
        ("on: {push: {types: [opened]}}", 1, 13, "no key `types`"),
        ("on: {pull_request: {types: [open]}}", 1, 29, "no activity type `open`: did you mean `opened`?"),
        ("on: {pull_request: {tags: [a]}}", 1, 21, "no key `tags`"),
        ("on: {issues: {branches: [a]}}", 1, 15, "no key `branches`"),
        ("on: schedule", 1, 5, "must be a list of `cron`"),
        ("on: {schedule: {cron: '* * * * *'}}", 1, 16, "must be a list of `cron`"),
        ("on: {schedule: [{cron: '* * * *'}]}", 1, 24, "4 fields instead of 5"),
        ("on: {schedule: [{cron: '61 * * * *'}]}", 1, 24, "between 0 and 59"),
        ("on: {schedule: [{timezone: UTC}]}", 1, 17, "has no `cron`"),
        ("on: {workflow_run: {types: [completed]}}", 1, 20, "which `workflows`"),
        ("on: {workflow_dispatch: {input: {}}}", 1, 26, "did you mean `inputs`?"),
        ("on: {workflow_dispatch: {inputs: {a: {type: bool}}}}", 1, 45, "unknown type `bool`"),
        ("on: {workflow_dispatch: {inputs: {a: {type: choice}}}}", 1, 45, "has no `options`"),
        (
            "on: {workflow_dispatch: {inputs: {a: {type: boolean, default: x}}}}",
            1,
            63,
            "expected true or false, found `x`",
        ),
        ("on: {workflow_dispatch: {inputs: {a: {type: choice, options: [x], default: y}}}}", 1, 76, "not one of x"),
        ("on: {workflow_call: {inputs: {a: {}}}}", 1, 31, "has no `type`"),
        ("on: {workflow_call: {inputs: {a: {type: choice}}}}", 1, 41, "unknown type `choice`"),
        ("on: {workflow_call: {outputs: {a: {}}}}", 1, 32, "has no `value`"),
        ("on: {workflow_call: {outputs: {a: {value: '${{ steps.x }}'}}}}", 1, 48, "`steps` cannot be used here"),
    ];
    for (on, line, column, message) in table {
        let text = format!("{on}\njobs: {{a: {{runs-on: x, steps: [{{run: a}}]}}}}");
        let error = error(&text);
        assert!(error.message.contains(message), "{text}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{text}\n{error}");
    }
}

#[test]
fn jobs() {
    let table = [
        ("steps: [{run: a}]", 3, 3, "has no `runs-on`"),
        ("runs-on: x\nuses: ./.github/workflows/a.yml", 4, 5, "there is no `runs-on`"),
        ("uses: a/b@c", 4, 11, "names no workflow file"),
        ("uses: ./.github/workflows/../../x.yml", 4, 11, "names no workflow file"),
        ("runs-on: x\nwith: {a: 1}", 5, 5, "calls no workflow"),
        ("runs-on: x\nneeds: other", 5, 12, "needs `other`, which does not exist"),
        ("runs-on: x\nneeds: [build]", 5, 13, "needs itself"),
        ("runs-on: ''", 4, 14, "a label of `runs-on` is empty"),
        ("runs-on: []", 4, 14, "names no label"),
        ("runs-on: {}", 4, 14, "neither a group nor labels"),
        ("runs-on: {label: x}", 4, 15, "did you mean `labels`?"),
        ("runs-on: [[x]]", 4, 14, "must be a text, not a list"),
        ("runs-on: x\nif: github.ref = 'x'", 5, 20, "did you mean `==`?"),
        ("runs-on: x\nif: ${{ matrix.x }}", 5, 13, "`matrix` cannot be used here"),
        ("runs-on: x\nif: secrets.X != ''", 5, 9, "`secrets` cannot be used here"),
        ("runs-on: ${{ env.X }}", 4, 18, "`env` cannot be used here"),
        ("runs-on: ${{ matrix.os ", 4, 17, "`}}` is missing"),
        ("runs-on: x\nname: ${{ success() }}", 5, 15, "in `if:` only"),
        ("runs-on: x\nenv: {A: '${{ hashFiles(''a'') }}'}", 5, 19, "in steps only"),
        ("runs-on: x\ntimeout-minutes: 0", 5, 22, "expected a whole number from 1, found `0`"),
        ("runs-on: x\ntimeout-minutes: 1.5", 5, 22, "found `1.5`"),
        ("runs-on: x\ntimeout-minutes: ten", 5, 22, "found `ten`"),
        ("runs-on: x\ncontinue-on-error: maybe", 5, 24, "expected true or false, found `maybe`"),
        ("runs-on: x\nstrategy: {matrix: {a: []}}", 5, 28, "`a` of the matrix has no values"),
        ("runs-on: x\nstrategy: {matrix: {}}", 5, 24, "the matrix is empty"),
        ("runs-on: x\nstrategy: {matrix: [a]}", 5, 24, "`matrix` must be a mapping"),
        ("runs-on: x\nstrategy: {matrix: {a: x}}", 5, 28, "must be a list, not `x`"),
        ("runs-on: x\nstrategy: {matrix: {a: [1], exclude: [{b: 1}]}}", 5, 42, "not in the matrix"),
        ("runs-on: x\nstrategy: {matrx: {a: [1]}}", 5, 16, "did you mean `matrix`?"),
        ("runs-on: x\nstrategy: {fail-fast: 1, matrix: {a: [1]}}", 5, 27, "expected true or false"),
        ("runs-on: x\nstrategy: {max-parallel: 0, matrix: {a: [1]}}", 5, 30, "expected a whole number"),
        ("runs-on: x\nenvironment: {url: x}", 5, 18, "has no `name`"),
        ("runs-on: x\nenvironment: {nam: x}", 5, 19, "did you mean `name`?"),
        ("runs-on: x\ncontainer: {imge: x}", 5, 17, "did you mean `image`?"),
        ("runs-on: x\ncontainer: {options: x}", 5, 16, "has no `image`"),
        ("runs-on: x\ncontainer: {image: x, credentials: {username: a}}", 5, 40, "have no `password`"),
        ("runs-on: x\ncontainer: {image: x, ports: 80}", 5, 34, "must be a list"),
        ("runs-on: x\nservices: {db: {image: x, cmd: y}}", 5, 31, "no key `cmd`"),
        ("runs-on: x\nservices: [a]", 5, 15, "`services` must be a mapping"),
        ("runs-on: x\nconcurrency: {group: '', cancel-in-progress: true}", 5, 26, "is empty"),
        ("runs-on: x\noutputs: {a: '${{ matrx.a }}'}", 5, 23, "did you mean `matrix`?"),
        ("runs-on: x\nsteps: x", 5, 12, "must be a list, not the text \"x\""),
        ("runs-on: x\n<<: {a: 1}", 5, 5, "no key `<<`"),
    ];
    for (lines, line, column, message) in table {
        let text = with_job(lines);
        let error = error(&text);
        assert!(error.message.contains(message), "{text}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{text}\n{error}");
    }
}

#[test]
fn job_names() {
    for (name, message) in
        [("1a", "is not valid"), ("a b", "is not valid"), ("__a", "reserved"), ("'${{ x }}'", "is not valid")]
    {
        let text = format!("on: push\njobs:\n  {name}: {{runs-on: x}}\n");
        let error = error(&text);
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.line, error.column), (3, 3));
    }
    let error = error("on: push\njobs:\n  a: {runs-on: x}\n  A: {runs-on: x}\n");
    assert!(error.message.contains("`A` is there already, on line 3"), "{error}");
}

#[test]
fn steps() {
    let table = [
        ("name: a", 6, 9, "step 1 of the job `build` has neither `run` nor `uses`"),
        ("run: a\nuses: a/b@v1", 7, 9, "both `run` and `uses`"),
        ("run: a\nwith: {b: 1}", 7, 9, "there is no `with`"),
        ("uses: a/b@v1\nshell: sh", 7, 9, "there is no `shell`"),
        ("run: a\nshel: sh", 7, 9, "did you mean `shell`?"),
        ("uses: actions/checkout", 6, 15, "without saying which `@ref`"),
        ("uses: checkout@v4", 6, 15, "names no action"),
        ("uses: a/b@", 6, 15, "names no action"),
        ("uses: docker://", 6, 15, "without saying"),
        ("uses: ${{ matrix.action }}", 6, 15, "cannot hold an expression"),
        ("run: a\nid: 1x", 7, 13, "is not valid"),
        ("run: a\nif: ${{ stes.a }}", 7, 17, "did you mean `steps`?"),
        ("run: a\nif: secrets.A", 7, 13, "`secrets` cannot be used here"),
        ("run: echo ${{ foo }}", 6, 23, "there is no context `foo`"),
        ("run: |\n  echo\n  echo ${{ github.sha }} ${{ foo }}", 8, 38, "there is no context `foo`"),
        ("run: a\nif: |\n  success() &&\n  foo", 9, 11, "there is no context `foo`"),
        ("run: a\ntimeout-minutes: x", 7, 26, "expected a whole number"),
        ("run: a\ncontinue-on-error: x", 7, 28, "expected true or false"),
        ("run: a\nenv: x", 7, 14, "must be a mapping"),
        ("run: a\nenv: {B: '${{ }}'}", 7, 22, "no expression between"),
        ("parallel: [{run: a}]", 6, 9, "beside each other are not supported"),
        ("run: a\nbackground: true", 7, 9, "beside each other are not supported"),
        ("run: {a: b}", 6, 14, "must be a text, not a mapping"),
    ];
    for (lines, line, column, message) in table {
        let text = with_step(lines);
        let error = error(&text);
        assert!(error.message.contains(message), "{text}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{text}\n{error}");
    }
    let twice = with_job("runs-on: x\nsteps:\n- {id: a, run: x}\n- {id: A, run: x}");
    assert!(error(&twice).message.contains("taken already"));
}

#[test]
fn circles_are_named() {
    let text = "on: push\njobs:\n  a: {runs-on: x, needs: [d]}\n  b: {runs-on: x, needs: c}\n  c: {runs-on: x, needs: [a, b]}\n  d: {runs-on: x}\n";
    let error = error(text);
    assert_eq!(error.message, "jobs need each other in a circle: b → c → b");
    assert_eq!((error.line, error.column), (4, 26));
}

#[test]
fn many_jobs_in_a_long_chain_are_fine() {
    let mut text = "on: push\njobs:\n  j0: {runs-on: x}\n".to_owned();
    for number in 1..1000 {
        text.push_str(&format!("  j{number}: {{runs-on: x, needs: j{}}}\n", number - 1));
    }
    assert_eq!(parse("w.yml", &text).unwrap().job_keys().count(), 1000);
    text.push_str("  more: {runs-on: x}\n");
    assert!(error(&text).message.contains("1001 jobs"));
}

#[test]
fn what_github_takes_is_taken() {
    let text = include_str!("data/everything.yml");
    let workflow = parse(".github/workflows/everything.yml", text).unwrap_or_else(|error| panic!("{}", error.place()));
    assert_eq!(workflow.name(), "everything");
    assert_eq!(workflow.job_keys().collect::<Vec<_>>(), ["build", "list", "test", "call", "deploy"]);
}
