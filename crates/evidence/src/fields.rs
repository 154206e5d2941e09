//! The single fields of a status: each a value, or why there is none.

use model::{Outcome, ReuseDecision, Stage};
use serde_json::{Map, Value, json};

use crate::fold::{Live, TargetFacts};

/// The named fields of a run.
pub(crate) fn collect(names: &[&str], facts: &TargetFacts, live: Option<&Live>, elapsed: f64) -> Map<String, Value> {
    let value = |name: &str| {
        field(name, facts, live, elapsed).unwrap_or_else(|reason| Value::from(format!("not_applicable: {reason}")))
    };
    names.iter().map(|name| ((*name).to_owned(), value(name))).collect()
}

type Field = Result<Value, String>;

fn field(name: &str, facts: &TargetFacts, live: Option<&Live>, elapsed: f64) -> Field {
    match name {
        "target" => Ok(json!(facts.target)),
        "sourceCommit" => Ok(json!(facts.delivery.commit)),
        "snapshotRef" if facts.pinned => Ok(json!(facts.delivery.snapshot)),
        "snapshotRef" => Err(not_reached(facts, Stage::Source)),
        "giteaMirrorLag" => Err("the repository is hosted here; there is no mirror".into()),
        "actionsRunId" => actions_run(facts),
        "pipelineRunName" => Err("no outside pipeline is used".into()),
        "builderJobName" => builder_job(facts),
        "buildServices" => services(facts, false),
        "reusedServices" => services(facts, true),
        "skipImageBuild" => all(facts, |it| matches!(it.decision, ReuseDecision::Hit { .. })),
        "reuseEnvImage" => all(facts, |it| it.env_reused),
        "imageDigest" => image_digest(facts),
        "gitopsRevision" => gitops_revision(facts, live),
        "argoSync" | "argoHealth" => Err("the local engine deploys; Argo CD is not used".into()),
        "runtimeTargetSha" => live.map(|live| json!(live.source_commit)).ok_or_else(|| "nothing is live".into()),
        "health" => health(facts, live),
        "elapsedSeconds" => Ok(json!(elapsed)),
        "envIdentity" => facts.env_identity().map(|it| json!(it)).ok_or_else(|| not_reached(facts, Stage::Reuse)),
        "reuseDecision" => reuse_decision(facts),
        _ => Err("this field is not known".into()),
    }
}

fn not_reached(facts: &TargetFacts, stage: Stage) -> String {
    match (facts.outcome, facts.cause.as_ref().and_then(|cause| cause.stage)) {
        (None, _) => format!("stage {stage} has not ended yet"),
        (Some(outcome), Some(at)) => format!("the run {} in stage {at}", ended(outcome)),
        (Some(Outcome::Reused), None) => "everything was live already".into(),
        (Some(outcome), None) => format!("the run {} before stage {stage} ended", ended(outcome)),
    }
}

/// How a run ended, as the rest of a sentence that begins with "the run".
pub(crate) const fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Superseded => "was superseded",
        Outcome::Cancelled => "was cancelled",
        Outcome::Reused => "was reused",
        Outcome::Skipped => "was skipped",
    }
}

fn actions_run(facts: &TargetFacts) -> Field {
    match facts.workflow_runs.as_slice() {
        [] if facts.stages.get(&Stage::Workflow).is_some_and(|it| it.millis.is_some()) => {
            Err("no workflow of the repository fires on this push".into())
        }
        [] => Err(not_reached(facts, Stage::Workflow)),
        [one] => Ok(json!(one)),
        several => Ok(json!(several)),
    }
}

fn builder_job(facts: &TargetFacts) -> Field {
    let Some(decisions) = &facts.decisions else { return Err(not_reached(facts, Stage::Reuse)) };
    if decisions.iter().all(|it| matches!(it.decision, ReuseDecision::Hit { .. })) {
        return Err("no image had to be built".into());
    }
    Ok(json!(format!("embedded-{}", facts.run)))
}

fn services(facts: &TargetFacts, reused: bool) -> Field {
    let decisions = facts.decisions.as_ref().ok_or_else(|| not_reached(facts, Stage::Reuse))?;
    let wanted = |it: &&model::ServiceDecision| matches!(it.decision, ReuseDecision::Hit { .. }) == reused;
    Ok(decisions.iter().filter(wanted).map(|it| json!(it.service)).collect())
}

fn all(facts: &TargetFacts, test: impl Fn(&model::ServiceDecision) -> bool) -> Field {
    let decisions = facts.decisions.as_ref().ok_or_else(|| not_reached(facts, Stage::Reuse))?;
    Ok(json!(decisions.iter().all(test)))
}

fn image_digest(facts: &TargetFacts) -> Field {
    let images = facts.images();
    let decided = facts.decisions.as_ref().map_or(usize::MAX, Vec::len);
    match (images.len(), images.values().next()) {
        (1, Some(image)) if decided == 1 => Ok(json!(image.digest)),
        (count, Some(_)) if count == decided => {
            Ok(images.into_iter().map(|(service, image)| (service.to_owned(), json!(image.digest))).collect())
        }
        _ => Err(not_reached(facts, Stage::Build)),
    }
}

fn gitops_revision(facts: &TargetFacts, live: Option<&Live>) -> Field {
    match (&facts.reverted, &facts.revision) {
        (Some(Some(back)), _) => Ok(json!(back)),
        (_, Some(revision)) => Ok(json!(revision)),
        _ if facts.outcome == Some(Outcome::Reused) => {
            live.map(|live| json!(live.revision)).ok_or_else(|| not_reached(facts, Stage::Publish))
        }
        _ => Err(not_reached(facts, Stage::Publish)),
    }
}

/// What runs now answered when it was checked last: never a value of a version that does not run.
fn health(facts: &TargetFacts, live: Option<&Live>) -> Field {
    let seen = live.map(|live| live.health.as_slice()).unwrap_or_default();
    match seen {
        [] => Err(not_reached(facts, Stage::Closeout)),
        [one] => Ok(json!({ "probe": one.probe, "status": one.status, "identity": one.identity })),
        several => Ok(several
            .iter()
            .map(|it| (it.service.clone(), json!({ "probe": it.probe, "status": it.status, "identity": it.identity })))
            .collect()),
    }
}

fn reuse_decision(facts: &TargetFacts) -> Field {
    let decisions = facts.decisions.as_ref().ok_or_else(|| not_reached(facts, Stage::Reuse))?;
    let line = |it: &model::ServiceDecision| match &it.decision {
        ReuseDecision::Hit { image, source_commit, run } => {
            json!({ "decision": "hit", "image": image.to_string(), "sourceCommit": source_commit, "builtBy": run })
        }
        ReuseDecision::Miss { why } => json!({ "decision": "miss", "why": why }),
    };
    Ok(decisions.iter().map(|it| (it.service.clone(), line(it))).collect())
}
