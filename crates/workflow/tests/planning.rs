//! From a workflow to the plans of its jobs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use workflow::{
    Access, CallSecrets, Contexts, Evaluator, JobPlan, Object, Permissions, Queue, Setting, Status, Value,
    WorkflowError, call_outputs, expand_matrix, parse, plan, plan_run,
};

fn contexts() -> Contexts {
    let json = r#"{"github": {"ref": "refs/heads/main", "ref_name": "main", "actor": "mona", "event_name": "push"},
        "inputs": {"target": "staging"}, "vars": {"RUNNER": "big", "LABELS": "[\"a\",\"b\"]"}}"#;
    serde_json::from_str(json).unwrap()
}

fn try_plan(jobs: &str) -> Result<Vec<JobPlan>, WorkflowError> {
    let jobs: String = jobs.lines().map(|line| format!("  {line}\n")).collect();
    plan(&parse("w.yml", &format!("on: push\njobs:\n{jobs}"))?, &contexts())
}

fn plans(jobs: &str) -> Vec<JobPlan> {
    try_plan(jobs).unwrap_or_else(|error| panic!("{error}\n{}", error.place()))
}

fn names(plans: &[JobPlan]) -> Vec<&str> {
    plans.iter().map(|plan| plan.name.as_str()).collect()
}

#[test]
fn a_plain_job() {
    let plan = plans("build:\n  runs-on: ubuntu-latest\n  steps:\n  - run: make\n  - uses: a/b@v1\n    with: {x: 1.50, y: True, z: }").remove(0);
    assert_eq!((plan.key.as_str(), plan.name.as_str(), plan.line), ("build", "build", 3));
    assert_eq!(plan.runs_on, ["ubuntu-latest"]);
    assert_eq!(
        (plan.timeout_minutes, plan.continue_on_error, plan.fail_fast, plan.max_parallel),
        (360, false, true, None)
    );
    assert_eq!((plan.index, plan.total, plan.matrix.len()), (0, 1, 0));
    assert_eq!(plan.steps.len(), 2);
    assert_eq!((plan.steps[0].run.as_deref(), plan.steps[0].line), (Some("make"), 6));
    // As on GitHub, numbers and flags of YAML lose their spelling.
    let with: BTreeMap<_, _> =
        [("x", "1.5"), ("y", "true"), ("z", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(plan.steps[1].with, with);
    assert_eq!(plan.steps[1].continue_on_error, Setting::Is(false));
    assert!(!plan.is_late());
}

#[test]
fn the_titles_of_steps() {
    let plan = plans("a:\n  runs-on: x\n  steps:\n  - run: |\n      make all\n      make test\n  - uses: a/b@v1\n  - {run: x, name: Named}\n  - {run: x, name: ''}").remove(0);
    let titles: Vec<_> = plan.steps.iter().map(workflow::Step::title).collect();
    assert_eq!(titles, ["Run make all", "Run a/b@v1", "Named", "Run x"]);
}

#[test]
fn env_defaults_and_permissions_of_the_workflow_and_the_job() {
    let text = "on: push\nenv: {A: 1, B: w}\npermissions: read-all\ndefaults: {run: {shell: sh, working-directory: w}}\njobs:\n  \
        a: {runs-on: x, env: {B: j, C: '${{ secrets.C }}'}, defaults: {run: {shell: bash}}, permissions: {contents: write}}\n  \
        b: {runs-on: x}\n  c: {runs-on: x, permissions: {}}\n";
    let plans = plan(&parse("w.yml", text).unwrap(), &contexts()).unwrap();
    let env: Vec<_> = plans[0].env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=1", "B=j", "C=${{ secrets.C }}"]);
    assert_eq!(
        (plans[0].defaults.shell.as_deref(), plans[0].defaults.working_directory.as_deref()),
        (Some("bash"), Some("w"))
    );
    assert_eq!(plans[0].permissions.as_ref().unwrap().access("contents"), Access::Write);
    assert_eq!(plans[0].permissions.as_ref().unwrap().access("packages"), Access::None);
    assert_eq!(plans[1].permissions, Some(Permissions::ReadAll));
    assert_eq!(plans[2].permissions, Some(Permissions::Scopes(BTreeMap::new())));
}

#[test]
fn a_matrix_makes_jobs() {
    let plans = plans(
        "test:\n  runs-on: ${{ matrix.os }}-${{ vars.RUNNER }}\n  timeout-minutes: ${{ matrix.minutes || 10 }}\n  \
         continue-on-error: ${{ matrix.experimental == true }}\n  strategy:\n    fail-fast: false\n    max-parallel: 2\n    matrix:\n      \
         os: [linux, mac]\n      node: [18, 3.10]\n      include:\n      - {os: mac, node: 18, minutes: 20, experimental: true}\n  \
         concurrency: {group: 'g-${{ strategy.job-index }}', cancel-in-progress: '${{ matrix.node == 18 }}', queue: max}\n  \
         environment: ${{ matrix.os }}",
    );
    assert_eq!(names(&plans), ["test (linux, 18)", "test (linux, 3.1)", "test (mac, 18)", "test (mac, 3.1)"]);
    assert_eq!(
        plans.iter().map(|plan| plan.runs_on[0].as_str()).collect::<Vec<_>>(),
        ["linux-big", "linux-big", "mac-big", "mac-big"]
    );
    assert_eq!(plans.iter().map(|plan| plan.timeout_minutes).collect::<Vec<_>>(), [10, 10, 20, 10]);
    assert_eq!(plans.iter().map(|plan| plan.continue_on_error).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!(plans.iter().map(|plan| (plan.index, plan.total)).collect::<Vec<_>>(), [(0, 4), (1, 4), (2, 4), (3, 4)]);
    let third = &plans[2];
    assert_eq!((third.fail_fast, third.max_parallel), (false, Some(2)));
    let concurrency = third.concurrency.as_ref().unwrap();
    assert_eq!(
        (concurrency.group.as_str(), concurrency.cancel_in_progress, concurrency.queue),
        ("g-2", true, Queue::Max)
    );
    assert_eq!(third.environment.as_ref().unwrap().name, "mac");
    assert_eq!(third.matrix.keys().collect::<Vec<_>>(), ["os", "node", "minutes", "experimental"]);
    assert_eq!(
        serde_json::to_string(&third.strategy()).unwrap(),
        r#"{"fail-fast":false,"job-index":2,"job-total":4,"max-parallel":2}"#
    );
}

#[test]
fn names_of_jobs() {
    let matrix = "strategy: {matrix: {v: [1, {a: x, b: [y, null]}]}}";
    let of = |name: &str| {
        plans(&format!("a:\n  runs-on: x\n  {matrix}\n{name}")).iter().map(|plan| plan.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(""), ["a (1)", "a (x, y)"]);
    assert_eq!(of("  name: Test"), ["Test (1)", "Test (x, y)"]);
    assert_eq!(of("  name: Test ${{ matrix.v.a }}"), ["Test", "Test x"]);
    assert_eq!(of("  name: ${{ github.nothing }}"), ["a (1)", "a (x, y)"]);
    let long = format!("a:\n  runs-on: x\n  name: {}", "n".repeat(200));
    assert_eq!(plans(&long)[0].name, format!("{}...", "n".repeat(97)));
}

#[test]
fn expressions_yield_whole_matrices_vectors_and_labels() {
    let whole = plans(
        "a:\n  runs-on: ${{ fromJSON(vars.LABELS) }}\n  strategy:\n    matrix: ${{ fromJSON('{\"v\":[1,2],\"include\":[{\"v\":2,\"w\":3}]}') }}",
    );
    assert_eq!(names(&whole), ["a (1)", "a (2)"]);
    assert_eq!(whole[0].runs_on, ["a", "b"]);
    assert_eq!(whole[1].matrix.get("w"), Some(&Value::Number(3.0)));
    let vector = plans(
        "a:\n  runs-on: {group: g, labels: ['${{ matrix.v }}', z]}\n  strategy:\n    matrix:\n      v: ${{ fromJSON(vars.LABELS) }}\n      w: ['${{ github.ref_name }}']",
    );
    assert_eq!(names(&vector), ["a (a, main)", "a (b, main)"]);
    assert_eq!((vector[1].runs_on.join(","), vector[1].runner_group.as_deref()), ("b,z".to_owned(), Some("g")));
    let strategy =
        plans("a:\n  runs-on: x\n  strategy: ${{ fromJSON('{\"fail-fast\":false,\"matrix\":{\"v\":[1]}}') }}");
    assert!(!strategy[0].fail_fast);
}

#[test]
fn a_matrix_of_which_all_is_excluded_is_a_skipped_job() {
    let plans = plans("a:\n  runs-on: x\n  strategy: {matrix: {v: [1], exclude: [{v: 1}]}}");
    assert_eq!((plans.len(), plans[0].condition.as_deref()), (1, Some("false")));
}

#[test]
fn a_matrix_from_needs_comes_late() {
    let jobs = "list: {runs-on: x, outputs: {m: '${{ steps.s.outputs.m }}'}, steps: [{id: s, run: y}]}\n\
        test:\n  needs: list\n  name: Test\n  runs-on: ${{ matrix.os }}\n  if: needs.list.result == 'success'\n  strategy:\n    \
        matrix:\n      os: ${{ fromJSON(needs.list.outputs.m) }}\n  steps: [{run: 'echo ${{ matrix.os }}'}]\n\
        last: {needs: test, runs-on: x}";
    let first = plans(jobs);
    assert_eq!(
        first.iter().map(|plan| (plan.name.as_str(), plan.is_late())).collect::<Vec<_>>(),
        [("list", false), ("Test", true), ("last", false)]
    );
    // The plan survives being stored.
    let stored: JobPlan = serde_json::from_str(&serde_json::to_string(&first[1]).unwrap()).unwrap();
    assert_eq!(stored, first[1]);

    let needs = |m: &str| {
        contexts().with(
            "needs",
            Object::new()
                .with("list", Object::new().with("result", "success").with("outputs", Object::new().with("m", m))),
        )
    };
    let done = expand_matrix(&stored, &needs(r#"["linux","mac"]"#)).unwrap();
    assert_eq!(names(&done), ["Test (linux)", "Test (mac)"]);
    assert_eq!(done[1].runs_on, ["mac"]);
    assert!(done.iter().all(|plan| !plan.is_late() && plan.steps.len() == 1 && plan.needs == ["list"]));

    // What goes wrong then is still shown in the file.
    let error = expand_matrix(&stored, &needs("")).unwrap_err();
    assert!(error.message.contains("empty text"), "{error}");
    assert_eq!(
        error.place(),
        "w.yml:11:17\n  11 |         os: ${{ fromJSON(needs.list.outputs.m) }}\n     |                 ^"
    );
    assert!(expand_matrix(&stored, &needs("[]")).unwrap_err().message.contains("`os` of the matrix has no values"));
    assert!(expand_matrix(&stored, &needs("3")).unwrap_err().message.contains("must be a list, not `3`"));
    let many: Vec<u32> = (0..257).collect();
    assert!(
        expand_matrix(&stored, &needs(&serde_json::to_string(&many).unwrap()))
            .unwrap_err()
            .message
            .contains("more than 256")
    );
    // A plan that is not late stands for itself.
    assert_eq!(expand_matrix(&first[0], &contexts()).unwrap(), [first[0].clone()]);
}

#[test]
fn labels_from_needs_come_late_too() {
    let found = plans(
        "a: {runs-on: x}\nb: {needs: a, runs-on: '${{ needs.a.outputs.label }}'}\nc: {needs: a, runs-on: y, timeout-minutes: '${{ fromJSON(needs.a.outputs.t) }}'}",
    );
    assert_eq!(found.iter().map(JobPlan::is_late).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!((found[1].runs_on.len(), found[2].runs_on.join("")), (0, "y".to_owned()));
    let needs = contexts()
        .with("needs", serde_json::from_str::<Object>(r#"{"a":{"outputs":{"label":"gpu","t":"7"}}}"#).unwrap());
    assert_eq!(expand_matrix(&found[1], &needs).unwrap()[0].runs_on, ["gpu"]);
    assert_eq!(expand_matrix(&found[2], &needs).unwrap()[0].timeout_minutes, 7);
    let error = expand_matrix(&found[1], &contexts()).unwrap_err();
    assert!(error.message.contains("a label of `runs-on` is empty"), "{error}");
}

#[test]
fn needs_are_spelled_as_the_job_is() {
    assert_eq!(plans("Build: {runs-on: x}\nb: {needs: [build, BUILD], runs-on: x}")[1].needs, ["Build"]);
}

#[test]
fn containers_and_services() {
    let found = plans(
        "a:\n  runs-on: x\n  container:\n    image: node:${{ matrix.v }}\n    env: {T: '${{ secrets.T }}'}\n    ports: [80, '8080:80']\n    \
         credentials: {username: u, password: '${{ secrets.P }}'}\n  services:\n    db: {image: pg, command: -c x, volumes: \"${{ fromJSON('[\\\"/a\\\"]') }}\"}\n    \
         none: ${{ github.nothing }}\n    short: redis:7",
    )
    .remove(0);
    let container = found.container.unwrap();
    // The runner expands these.
    assert_eq!((container.image.as_str(), container.env["T"].as_str()), ("node:${{ matrix.v }}", "${{ secrets.T }}"));
    assert_eq!(container.ports, ["80", "8080:80"]);
    assert_eq!(container.credentials.unwrap().password, "${{ secrets.P }}");
    assert_eq!(found.services.keys().collect::<Vec<_>>(), ["db", "short"]);
    assert_eq!(
        (found.services["db"].volumes.join(","), found.services["db"].command.as_deref()),
        ("/a".to_owned(), Some("-c x"))
    );
    assert_eq!(found.services["short"].image, "redis:7");
}

#[test]
fn what_an_expression_yields_is_never_expanded_again() {
    let text = "on: workflow_dispatch\njobs:\n  a: {runs-on: x, container: '${{ fromJSON(inputs.c) }}', services: {s: '${{ inputs.image }}'}, environment: '${{ fromJSON(inputs.e) }}'}\n";
    let inputs = Object::new()
        .with("c", r#"{"image":"${{ secrets.A }}","env":{"B":"${{ secrets.B }}"},"ports":["${{ secrets.C }}"]}"#)
        .with("image", "${{ secrets.D }}")
        .with("e", r#"{"name":"n","url":"${{ secrets.E }}"}"#);
    let plan = plan(&parse("w.yml", text).unwrap(), &contexts().with("inputs", inputs)).unwrap().remove(0);
    let secrets =
        serde_json::from_str::<Object>(r#"{"A":"leak","B":"leak","C":"leak","D":"leak","E":"leak"}"#).unwrap();
    let contexts = Contexts::new().with("secrets", secrets);
    let evaluator = Evaluator::new(&contexts, Status::SUCCESS);
    let container = plan.container.unwrap();
    for (text, expected) in [
        (&container.image, "${{ secrets.A }}"),
        (&container.env["B"], "${{ secrets.B }}"),
        (&container.ports[0], "${{ secrets.C }}"),
        (&plan.services["s"].image, "${{ secrets.D }}"),
        (plan.environment.unwrap().url.as_ref().unwrap(), "${{ secrets.E }}"),
    ] {
        assert_eq!(evaluator.expand(text).unwrap(), expected);
    }
}

#[test]
fn environments() {
    let found = plans(
        "a: {runs-on: x, environment: {name: '${{ inputs.target }}', url: 'https://${{ steps.s.outputs.u }}', deployment: false}}\nb: {runs-on: x, environment: '${{ github.nothing }}'}",
    );
    let environment = found[0].environment.as_ref().unwrap();
    assert_eq!(
        (environment.name.as_str(), environment.url.as_deref()),
        ("staging", Some("https://${{ steps.s.outputs.u }}"))
    );
    assert_eq!(environment.deployment, Setting::Is(false));
    assert_eq!(found[1].environment, None);
}

#[test]
fn calls() {
    let found = plans(
        "a: {uses: ./.github/workflows/b.yml, with: {n: 3, r: '${{ github.ref }}'}, secrets: inherit}\nb: {uses: o/r/.github/workflows/b.yml@v1, secrets: {t: '${{ secrets.T }}'}, strategy: {matrix: {v: [1, 2]}}}",
    );
    let call = found[0].call.as_ref().unwrap();
    assert_eq!((call.uses.as_str(), &call.secrets), ("./.github/workflows/b.yml", &CallSecrets::Inherit));
    assert_eq!(call.with["n"], "3");
    assert_eq!(names(&found), ["a", "b (1)", "b (2)"]);
    assert!(found[0].runs_on.is_empty());
}

#[test]
fn the_run_as_a_whole() {
    let text = "on: push\nname: CI\nrun-name: '${{ github.event_name }} by ${{ github.actor }}'\nconcurrency: {group: 'ci-${{ github.ref }}', cancel-in-progress: true}\njobs: {a: {runs-on: x}}\n";
    let workflow = parse("w.yml", text).unwrap();
    assert_eq!(workflow.name(), "CI");
    let run = plan_run(&workflow, &contexts()).unwrap();
    assert_eq!(run.name.as_deref(), Some("push by mona"));
    let concurrency = run.concurrency.unwrap();
    assert_eq!(
        (concurrency.group.as_str(), concurrency.cancel_in_progress, concurrency.queue),
        ("ci-refs/heads/main", true, Queue::Single)
    );
    let plain = parse("a/b.yml", "on: push\njobs: {a: {runs-on: x}}").unwrap();
    assert_eq!((plain.name(), plan_run(&plain, &contexts()).unwrap().name), ("a/b.yml", None));
}

#[test]
fn outputs_of_a_called_workflow() {
    let text = "on: {workflow_call: {outputs: {d: {value: '${{ jobs.a.outputs.d }}'}}}}\njobs: {a: {runs-on: x}}\n";
    let workflow = parse("w.yml", text).unwrap();
    let jobs = serde_json::from_str::<Object>(r#"{"a":{"result":"success","outputs":{"d":"sha256:1"}}}"#).unwrap();
    let outputs = call_outputs(&workflow, &Contexts::new().with("jobs", jobs)).unwrap();
    assert_eq!(outputs.get("d"), Some(&Value::from("sha256:1")));
}

#[test]
fn errors_while_planning_have_a_place() {
    let table = [
        ("a:\n  runs-on: ${{ github.nothing }}", 4, 14, "a label of `runs-on` is empty"),
        ("a:\n  runs-on: ${{ github }}", 4, 14, "names neither a group nor labels"),
        (
            "a:\n  runs-on: x\n  strategy:\n    matrix: ${{ fromJSON('[1]') }}",
            6,
            15,
            "`matrix` must be a mapping of lists",
        ),
        ("a:\n  runs-on: x\n  strategy:\n    matrix:\n      v: ${{ fromJSON('{') }}", 7, 16, "fromJSON cannot read"),
        (
            "a:\n  runs-on: x\n  strategy: {matrix: {v: [1, 2]}}\n  timeout-minutes: ${{ matrix.x }}",
            6,
            22,
            "expected a whole number",
        ),
        ("a:\n  runs-on: x\n  continue-on-error: ${{ github.ref }}", 5, 24, "expected true or false"),
        ("a:\n  runs-on: x\n  concurrency: ${{ github.nothing }}", 5, 18, "is empty"),
    ];
    for (jobs, line, column, message) in table {
        let error = try_plan(jobs).unwrap_err();
        assert!(error.message.contains(message), "{jobs}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{jobs}\n{error}");
    }
}

#[test]
fn plans_that_would_be_too_large_are_refused() {
    let list: Vec<u32> = (0..250).collect();
    let script = "x".repeat(200_000);
    let error =
        try_plan(&format!("a:\n  runs-on: x\n  strategy: {{matrix: {{v: {list:?}}}}}\n  steps: [{{run: {script}}}]"))
            .unwrap_err();
    assert!(error.message.contains("too large together"), "{error}");
}

#[test]
fn a_plan_survives_being_stored() {
    let text = include_str!("data/everything.yml");
    let workflow = parse("w.yml", text).unwrap();
    let plans = plan(&workflow, &contexts()).unwrap();
    let stored: Vec<JobPlan> = serde_json::from_str(&serde_json::to_string(&plans).unwrap()).unwrap();
    assert_eq!(stored, plans);
    let again: workflow::Workflow = serde_json::from_str(&serde_json::to_string(&workflow).unwrap()).unwrap();
    assert_eq!(plan(&again, &contexts()).unwrap(), plans);
}
