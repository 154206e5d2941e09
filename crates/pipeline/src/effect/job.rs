//! Running a job: under its own supervisor, which is attached to again after a restart.

use std::collections::BTreeMap;

use model::{Cause, Event, JobId};
use runner::{JobLimits, JobSpec, NeedResult};

use crate::context;
use crate::effect::{Context, plan};
use crate::jobs;
use crate::secrets;

pub(crate) async fn run(context: &Context, id: JobId) -> Result<Vec<Event>, Cause> {
    let (_, job) = plan::find(context, id)?;
    let mut wanted = jobs::plan_of(job)?;
    wanted.timeout_minutes = wanted.timeout_minutes.min(context.rooms.job_timeout_minutes);
    // A job that nobody can take fails now, naming who could: it never waits for a runner that does not exist.
    runner::select(&context.rooms.labels, &wanted.runs_on).map_err(|error| {
        Cause::new(error.to_string())
            .hint(format!("change `runs-on` of job {}, or add the label to the server's file", job.planned.key))
    })?;
    let _slot = tokio::select! {
        slot = context.rooms.job_slots.acquire() => slot.map_err(|_| Cause::new("the server stops"))?,
        () = context.cancel.cancelled() => return Err(Cause::new("cancelled")),
    };
    if !job.started {
        context.record(vec![Event::JobStarted { job: id }]).await?;
    }
    let spec = spec(context, id, wanted).await?;
    let report = loop {
        context.rooms.jobs.start(&spec).await.map_err(|error| Cause::new(error.to_string()))?;
        let waited = tokio::select! {
            waited = context.rooms.jobs.wait(id) => waited,
            () = context.cancel.cancelled() => {
                context.rooms.jobs.cancel(id).await.map_err(|error| Cause::new(error.to_string()))?;
                return Err(Cause::new("cancelled"));
            }
        };
        match waited {
            // Its supervisor was killed, by whomever: it runs again, as a machine that went down would make it.
            Err(runner::JobsError::Interrupted(_)) => {
                tracing::warn!(job = %id, "the job was interrupted; running it again")
            }
            other => break other.map_err(|error| Cause::new(error.to_string()))?,
        }
    };
    Ok(vec![Event::JobFinished { job: id, result: report.result, outputs: report.outputs, cause: report.cause }])
}

async fn spec(context: &Context, id: JobId, plan: workflow::JobPlan) -> Result<JobSpec, Cause> {
    let (run, job) = plan::find(context, id)?;
    let rooms = &context.rooms;
    let delivery = &context.state.delivery;
    let needs = jobs::needs(run, job).unwrap_or_default();
    let need =
        |(key, end): (String, crate::state::JobEnd)| (key, NeedResult { result: end.result, outputs: end.outputs });
    let needs: BTreeMap<String, NeedResult> = needs.into_iter().map(need).collect();
    let secrets = secrets::open(&rooms.records, &rooms.sealer, delivery.repository).await;
    Ok(JobSpec {
        job: id,
        run: run.planned.run,
        number: run.planned.number,
        attempt: run.planned.attempt,
        repository: delivery.repository_name.clone(),
        repository_id: delivery.repository,
        commit: delivery.commit.clone(),
        ref_name: delivery.ref_name.clone(),
        snapshot: delivery.snapshot.clone(),
        event_name: context::event_name(delivery).to_owned(),
        event: context::event(delivery, &context.state.head),
        actor: delivery.actor.clone(),
        server_url: rooms.server_url.clone(),
        workflow_path: run.planned.path.clone(),
        workflow_name: run.planned.name.clone(),
        plan,
        needs,
        git_dir: rooms.hosting.directory(delivery.repository),
        secrets: secrets.map_err(|error| Cause::new(error.to_string()))?,
        vars: BTreeMap::new(),
        labels: rooms.labels.clone(),
        token: None,
        limits: JobLimits::default(),
        network: sandbox::Network::None,
    })
}
