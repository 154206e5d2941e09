//! Running a job: under its own supervisor, which is attached to again after a restart.

use std::collections::BTreeMap;

use access::{JobPrincipal, Level};
use model::{Cause, Event, JobId, Timestamp};
use runner::{JobLimits, JobReport, JobSpec, JobState, NeedResult};

use crate::context;
use crate::effect::{Context, plan};
use crate::jobs;
use crate::secrets;

/// How long a job's token outlives the job's own time at most, in minutes: steps that run after a cancellation.
const SLACK_MINUTES: i64 = 30;

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
    let ended = to_its_end(context, spec).await;
    // The token dies with the job, however that ended.
    if let Err(error) = context.rooms.access.end_job(id).await {
        tracing::error!(job = %id, %error, "the token of a job that ended is good until it expires");
    }
    let report = ended?;
    Ok(vec![Event::JobFinished { job: id, result: report.result, outputs: report.outputs, cause: report.cause }])
}

async fn to_its_end(context: &Context, mut spec: JobSpec) -> Result<JobReport, Cause> {
    let id = spec.job;
    let failed = |error: runner::JobsError| Cause::new(error.to_string());
    loop {
        // One that runs since before a restart keeps the token it has.
        if matches!(context.rooms.jobs.state(id).map_err(failed)?, JobState::Absent | JobState::Interrupted) {
            spec.token = Some(token(context, &spec).await?);
            context.rooms.jobs.start(&spec).await.map_err(failed)?;
        }
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
            other => return other.map_err(failed),
        }
    }
}

/// Makes the job's token. Without `permissions:` it reads the repository, and pulls and pushes its images.
async fn token(context: &Context, spec: &JobSpec) -> Result<String, Cause> {
    let level = |scope: &str, usual: Level| match spec.plan.permissions.as_ref().map(|given| given.access(scope)) {
        None => usual,
        Some(workflow::Access::None) => Level::None,
        Some(workflow::Access::Read) => Level::Read,
        Some(workflow::Access::Write) => Level::Write,
    };
    let job = JobPrincipal {
        repository: spec.repository.clone(),
        run: spec.run,
        job: spec.job,
        contents: level("contents", Level::Read),
        packages: level("packages", Level::Write),
    };
    let minutes = i64::try_from(spec.plan.timeout_minutes).unwrap_or(i64::MAX).saturating_add(SLACK_MINUTES);
    let now = Timestamp::from(std::time::SystemTime::now());
    let expires = Timestamp(now.0.saturating_add(minutes.saturating_mul(60_000)));
    let made = context.rooms.access.create_job_token(job, expires).await;
    Ok(made.map_err(|error| Cause::new(error.to_string()))?.expose().to_owned())
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
