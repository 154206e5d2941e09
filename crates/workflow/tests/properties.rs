//! Whatever the text, nothing panics, and errors point into the file.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use workflow::{
    Contexts, TriggerEvent, Workflow, dispatch_inputs, expand_matrix, fires, parse, plan, plan_run, skip_mark,
};

const EVERYTHING: &str = include_str!("data/everything.yml");

/// Everything that can be done with a text.
fn exercise(text: &str) {
    match parse("w.yml", text) {
        Ok(workflow) => use_workflow(&workflow),
        Err(error) => {
            let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count() + 1;
            assert!((1..=lines).contains(&(error.line as usize)), "{error}\n{text}");
            assert!(!error.place().is_empty() && !error.message.is_empty());
        }
    }
}

fn use_workflow(workflow: &Workflow) {
    let contexts: Contexts = serde_json::from_str(
        r#"{"github":{"ref":"refs/heads/main","event":{"a":[1,{"b":2}]}},"inputs":{"x":"[1,2]"},"vars":{}}"#,
    )
    .unwrap();
    let _ = plan_run(workflow, &contexts);
    let _ = dispatch_inputs(workflow, &std::iter::once(("x".to_owned(), "1".to_owned())).collect());
    for name in ["push", "pull_request", "schedule"] {
        let event = TriggerEvent::new(name, "refs/heads/main".parse().unwrap());
        let _ = fires(workflow, &TriggerEvent { changed_paths: Some(vec!["a/b.c".to_owned()]), ..event });
    }
    for job in plan(workflow, &contexts).unwrap_or_default() {
        let _ = expand_matrix(&job, &contexts);
        for step in &job.steps {
            let _ = step.title();
        }
    }
}

const PIECES: [&str; 60] = [
    "on",
    "push",
    "jobs",
    "a",
    "b",
    "runs-on",
    "steps",
    "run",
    "uses",
    "x/y@z",
    "./w",
    "needs",
    "if",
    "strategy",
    "matrix",
    "include",
    "exclude",
    "env",
    "with",
    "name",
    "branches",
    "paths",
    "tags",
    "types",
    "schedule",
    "cron",
    "'* * * * *'",
    "workflow_dispatch",
    "inputs",
    "type",
    "choice",
    "options",
    "container",
    "services",
    "image",
    "outputs",
    "permissions",
    "contents: read",
    "concurrency",
    "group",
    "timeout-minutes",
    ": ",
    ":\n",
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "${{ github.ref }}",
    "${{ matrix.a }}",
    "${{ fromJSON(inputs.x) }}",
    "${{ needs.a.outputs.b }}",
    "1",
    "true",
    "''",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_text(text in ".{0,300}") {
        exercise(&text);
    }

    #[test]
    fn workflow_like_text(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..60)) {
        exercise(&format!("on: push\njobs:\n  a:\n    runs-on: x\n{}", pieces.concat()));
        exercise(&pieces.concat());
    }

    /// A real workflow of which a part is cut out, doubled or replaced.
    #[test]
    fn a_damaged_workflow(start in 0..EVERYTHING.len(), length in 0..60_usize, put in "[ -~\\n]{0,12}", twice in any::<bool>()) {
        let start = (0..=start).rev().find(|at| EVERYTHING.is_char_boundary(*at)).unwrap();
        let end = (start + length..=EVERYTHING.len()).find(|at| EVERYTHING.is_char_boundary(*at)).unwrap_or(EVERYTHING.len());
        let middle = if twice { EVERYTHING[start..end].repeat(2) } else { put };
        exercise(&format!("{}{middle}{}", &EVERYTHING[..start], &EVERYTHING[end..]));
    }

    #[test]
    fn the_lines_of_a_workflow_in_another_order(lines in Just(EVERYTHING.lines().collect::<Vec<_>>()).prop_shuffle(), keep in 1..80_usize) {
        exercise(&lines.into_iter().take(keep).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn any_commit_message(message in ".{0,80}") {
        let _ = skip_mark(&message);
    }
}

#[test]
fn hostile_texts_end_soon() {
    let head = "on: push\njobs:\n  a:\n    runs-on: x\n    env:\n";
    let texts = [
        "{".repeat(200_000),
        "? ".repeat(200_000),
        "a: ".repeat(200_000),
        "- ".repeat(200_000),
        "&a ".repeat(200_000),
        "\"".repeat(200_001),
        "#".repeat(500_000),
        " ".repeat(1_000_000),
        "\n".repeat(1_000_000),
        format!("{head}      A: '{}'", "${{ github.ref }} ".repeat(20_000)),
        format!("{head}      A: '{}'", "${{ ".repeat(100_000)),
        format!("{head}{}", (0..30_000).map(|n| format!("      A{n}: {n}\n")).collect::<String>()),
        format!("on: {{push: {{branches: [{}]}}}}\njobs: {{a: {{runs-on: x}}}}", "'**/*a?b+[a-z]', ".repeat(20_000)),
        format!("on: push\njobs:\n  a: {{runs-on: x}}\n  b: {{runs-on: x, needs: [{}]}}\n", "a, ".repeat(90_000)),
    ];
    let begin = std::time::Instant::now();
    for text in &texts {
        exercise(text);
    }
    // Generous, for slow machines: what is quadratic takes minutes.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
