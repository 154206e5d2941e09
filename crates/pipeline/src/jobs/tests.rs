//! `needs:` and `if:` as GitHub has them.

use model::{Event, JobId, JobPlanned, RunId};

use super::*;
use crate::fixtures::{job_end, jobs as planned, with_workflow};

fn state(text: &str, ends: &[(i64, JobResult)]) -> State {
    let mut state = with_workflow(text);
    for (job, result) in ends {
        state.apply(&job_end(*job, *result, &[])).unwrap();
    }
    state
}

/// What becomes of job `id`, in one word.
fn verdict(state: &State, id: i64) -> &'static str {
    let run = &state.workflows[&RunId(1)];
    match ready(state, run, &run.jobs[&JobId(id)], "http://here") {
        Ready::Wait => "wait",
        Ready::Expand => "expand",
        Ready::Run { .. } => "run",
        Ready::End(result, _) => result.name(),
    }
}

/// Three jobs in a chain; `b` always runs, and `c` has the condition `condition`.
fn chain(condition: &str) -> String {
    format!(
        "on: push\njobs:\n  a: {{runs-on: x, steps: [{{run: 'true'}}]}}\n  b: {{runs-on: x, needs: a, if: always(), \
         steps: [{{run: 'true'}}]}}\n  c: {{runs-on: x, needs: [b], if: \"{condition}\", steps: [{{run: 'true'}}]}}\n"
    )
}

#[test]
fn a_job_waits_for_all_that_it_needs() {
    let text = chain("success()");
    assert_eq!((verdict(&state(&text, &[]), 1), verdict(&state(&text, &[]), 2)), ("run", "wait"));
    let state = state(&text, &[(1, JobResult::Success)]);
    assert_eq!((verdict(&state, 2), verdict(&state, 3)), ("run", "wait"));
}

#[test]
fn status_functions_look_at_all_ancestors() {
    use JobResult::{Cancelled, Failure, Skipped, Success};
    for (condition, a, b, expected) in [
        ("success()", Success, Success, "run"),
        ("success()", Failure, Success, "skipped"),
        ("success()", Skipped, Success, "skipped"),
        ("success()", Cancelled, Success, "skipped"),
        ("true", Failure, Success, "skipped"),
        ("failure()", Failure, Success, "run"),
        ("failure()", Success, Success, "skipped"),
        ("failure()", Skipped, Skipped, "skipped"),
        ("always()", Failure, Failure, "run"),
        ("!cancelled()", Failure, Success, "run"),
        ("success() || failure()", Skipped, Success, "skipped"),
        // The context itself holds what is needed directly, and nothing of what those need.
        ("always() && needs.b.result == 'success'", Failure, Success, "run"),
        ("always() && needs.a.result == 'failure'", Failure, Success, "skipped"),
    ] {
        assert_eq!(verdict(&state(&chain(condition), &[(1, a), (2, b)]), 3), expected, "{condition} {a:?} {b:?}");
    }
}

#[test]
fn a_job_that_may_fail_counts_as_a_success() {
    let text = "on: push\njobs:\n  a: {runs-on: x, continue-on-error: true, steps: [{run: 'true'}]}\n  b:\n    runs-on: x\n    \
                needs: a\n    if: needs.a.result == 'success'\n    steps: [{run: 'true'}]\n";
    assert_eq!(verdict(&state(text, &[(1, JobResult::Failure)]), 2), "run");
    // Only a failure is taken back.
    assert_eq!(verdict(&state(text, &[(1, JobResult::Cancelled)]), 2), "skipped");
}

const MATRIX: &str = "on: push\njobs:\n  m:\n    runs-on: x\n    strategy: {fail-fast: false, matrix: {n: [1, 2, 3]}}\n    \
                      steps: [{run: 'true'}]\n  z: {runs-on: x, needs: m, if: always(), steps: [{run: 'true'}]}\n";

#[test]
fn the_results_of_a_matrix_are_one() {
    use JobResult::{Cancelled, Failure, Success};
    for (results, merged) in [
        ([Success, Success, Success], Success),
        ([Success, Failure, Success], Failure),
        ([Success, Success, Cancelled], Cancelled),
        ([Failure, Cancelled, Success], Failure),
        ([Cancelled, Failure, Success], Failure),
    ] {
        let state = state(MATRIX, &[(1, results[0]), (2, results[1]), (3, results[2])]);
        let run = &state.workflows[&RunId(1)];
        let needs = needs(run, &run.jobs[&JobId(4)]).unwrap();
        assert_eq!((needs.len(), needs["m"].result), (1, merged), "{results:?}");
    }
    let open = state(MATRIX, &[(1, Success), (3, Success)]);
    let run = &open.workflows[&RunId(1)];
    assert!(needs(run, &run.jobs[&JobId(4)]).is_none(), "one job of the matrix is still under way");
}

#[test]
fn the_outputs_of_a_matrix_are_one() {
    let mut state = with_workflow(MATRIX);
    for event in [
        job_end(1, JobResult::Success, &[("one", "1"), ("last", "a")]),
        job_end(2, JobResult::Success, &[("two", "2"), ("last", "b"), ("one", "")]),
        job_end(3, JobResult::Success, &[("last", "")]),
    ] {
        state.apply(&event).unwrap();
    }
    let run = &state.workflows[&RunId(1)];
    let outputs = needs(run, &run.jobs[&JobId(4)]).unwrap().remove("m").unwrap().outputs;
    let expected = [("last", "b"), ("one", "1"), ("two", "2")];
    assert_eq!(outputs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn a_late_matrix_is_expanded_when_its_inputs_are_known() {
    let text = "on: push\njobs:\n  a:\n    runs-on: x\n    outputs: {m: '${{ steps.s.outputs.m }}'}\n    steps: [{id: s, run: 'true'}]\n  \
                b:\n    runs-on: x\n    needs: a\n    strategy: {matrix: {n: \"${{ fromJSON(needs.a.outputs.m) }}\"}}\n    \
                steps: [{run: 'true'}]\n  c: {runs-on: x, needs: b, steps: [{run: 'true'}]}\n";
    let mut state = with_workflow(text);
    assert_eq!(verdict(&state, 2), "wait");
    state.apply(&job_end(1, JobResult::Success, &[("m", "[4, 5]")])).unwrap();
    assert_eq!(verdict(&state, 2), "expand");
    let run = &state.workflows[&RunId(1)];
    let job = &run.jobs[&JobId(2)];
    let contexts = context::of_job(&state, run, &needs(run, job).unwrap(), "http://here");
    let jobs: Vec<JobPlanned> = planned(workflow::expand_matrix(&plan_of(job).unwrap(), &contexts).unwrap(), 10);
    assert_eq!(jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["b (4)", "b (5)"]);
    state.apply(&Event::JobExpanded { run: RunId(1), job: JobId(2), jobs }).unwrap();
    assert_eq!((verdict(&state, 10), verdict(&state, 11), verdict(&state, 3)), ("run", "run", "wait"));
    state.apply(&job_end(10, JobResult::Success, &[])).unwrap();
    assert_eq!(verdict(&state, 3), "wait");
    state.apply(&job_end(11, JobResult::Success, &[])).unwrap();
    assert_eq!(verdict(&state, 3), "run");
}

#[test]
fn what_cannot_be_evaluated_fails_the_job_with_a_cause() {
    let state =
        with_workflow("on: push\njobs:\n  a: {runs-on: x, if: \"fromJSON(github.ref)\", steps: [{run: 'true'}]}\n");
    let run = &state.workflows[&RunId(1)];
    let Ready::End(JobResult::Failure, Some(cause)) = ready(&state, run, &run.jobs[&JobId(1)], "") else {
        panic!("it should have failed");
    };
    assert!(cause.message.contains("condition of job a"), "{}", cause.message);
    // A plan that another program wrote.
    let mut state = state;
    state.workflows.get_mut(&RunId(1)).unwrap().jobs.get_mut(&JobId(1)).unwrap().planned.plan = "x".into();
    assert_eq!(verdict(&state, 1), "failure");
}

#[test]
fn conditions_know_the_push_and_the_run() {
    for (condition, expected) in [
        ("github.ref == 'refs/heads/main'", "run"),
        ("github.ref_name == 'main' && github.ref_type == 'branch'", "run"),
        ("github.event_name == 'push' && github.event.before == '0000000000000000000000000000000000000000'", "run"),
        ("github.event.head_commit.message == ''", "run"),
        ("github.run_attempt == '1' && github.run_number == '1'", "run"),
        ("github.actor == 'someone else'", "skipped"),
        ("startsWith(github.repository, 'demo/') && github.repository_owner == 'demo'", "run"),
    ] {
        let text = format!("on: push\njobs:\n  a: {{runs-on: x, if: \"{condition}\", steps: [{{run: 'true'}}]}}\n");
        assert_eq!(verdict(&with_workflow(&text), 1), expected, "{condition}");
    }
}
