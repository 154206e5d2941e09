//! The `github` context and the event payload of a delivery, as workflows see them. Pure.

use std::collections::BTreeMap;

use model::{Delivery, HeadCommit, Trigger};
use serde_json::{Value, json};
use workflow::Contexts;

use crate::state::{JobEnd, State, WorkflowRun};

/// The event, in the form of GitHub's `push` payload.
pub(crate) fn event(delivery: &Delivery, head: &HeadCommit) -> Value {
    let name = &delivery.repository_name;
    let zeros = "0".repeat(delivery.commit.as_str().len());
    let before = delivery.before.as_ref().map_or(zeros, ToString::to_string);
    let mut event = json!({
        "ref": delivery.ref_name,
        "before": before,
        "after": delivery.commit,
        "created": delivery.before.is_none(),
        "deleted": false,
        "repository": {
            "id": delivery.repository,
            "name": name.name(),
            "full_name": name,
            "owner": { "login": name.owner(), "name": name.owner() },
        },
        "pusher": { "name": delivery.actor },
        "sender": { "login": delivery.actor },
        "head_commit": {
            "id": delivery.commit,
            "message": head.message,
            "timestamp": head.committed,
            "author": { "name": head.author, "email": head.email },
        },
    });
    if let Trigger::Dispatch { inputs } = &delivery.trigger {
        event["inputs"] = json!(inputs);
    }
    event
}

/// What workflows are told that their event was: a retry or rollback looks like the push it repeats.
pub(crate) fn event_name(delivery: &Delivery) -> &'static str {
    match &delivery.trigger {
        Trigger::Retry { .. } | Trigger::Rollback { .. } => "push",
        other => other.name(),
    }
}

/// The contexts that are known on the server: `github`, `inputs`, `vars` and, for a job, `needs`.
pub(crate) fn contexts(
    delivery: &Delivery,
    head: &HeadCommit,
    server_url: &str,
    needs: Option<&BTreeMap<String, JobEnd>>,
    run: Option<&WorkflowRun>,
) -> Contexts {
    let event = event(delivery, head);
    let ref_type = if delivery.ref_name.as_tag().is_some() { "tag" } else { "branch" };
    let inputs = event.get("inputs").cloned().unwrap_or_else(|| json!({}));
    let mut github = json!({
        "event_name": event_name(delivery),
        "event": event,
        "sha": delivery.commit,
        "ref": delivery.ref_name,
        "ref_name": delivery.ref_name.short(),
        "ref_type": ref_type,
        "repository": delivery.repository_name,
        "repository_id": delivery.repository.to_string(),
        "repository_owner": delivery.repository_name.owner(),
        "actor": delivery.actor,
        "triggering_actor": delivery.actor,
        "server_url": server_url,
        "api_url": format!("{server_url}/api/v1"),
    });
    if let Some(run) = run {
        github["run_id"] = json!(run.planned.run.to_string());
        github["run_number"] = json!(run.planned.number.to_string());
        github["run_attempt"] = json!(run.planned.attempt.to_string());
        github["workflow"] = json!(run.planned.name);
    }
    let mut contexts = Contexts::new();
    contexts.set("github", workflow::Value::from(github));
    contexts.set("inputs", workflow::Value::from(inputs));
    contexts.set("vars", workflow::Value::from(json!({})));
    if let Some(needs) = needs {
        let need = |(key, end): (&String, &JobEnd)| {
            (key.clone(), json!({ "result": end.result.name(), "outputs": end.outputs }))
        };
        let needs: serde_json::Map<String, Value> = needs.iter().map(need).collect();
        contexts.set("needs", workflow::Value::from(Value::Object(needs)));
    }
    contexts
}

/// The contexts in which `if:` and a late matrix of a job are evaluated.
pub(crate) fn of_job(state: &State, run: &WorkflowRun, needs: &BTreeMap<String, JobEnd>, server_url: &str) -> Contexts {
    contexts(&state.delivery, &state.head, server_url, Some(needs), Some(run))
}
