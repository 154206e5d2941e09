//! The process that runs one job, whether the server lives or not.

use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use model::Cause;
use rustix::fs::Mode;
use sandbox::Exit;
use sandbox::supervise::{Control, Request, SuperviseError};
use tokio_util::sync::CancellationToken;

use crate::place;
use crate::report::JobReport;
use crate::spec::JobSpec;

/// The request that cancels the job.
pub(crate) const CANCEL: &str = "cancel";

/// Runs the job in `dir` and ends the process: what the binary does for `__workload job DIR`.
///
/// Exit code 0 means that the job has ended, well or not, and its report is there; 1 that it could not be begun, with
/// the reason on the error output.
pub fn supervisor_main(dir: &Path) -> ! {
    // The job's directory itself is closed to others; in it, the job's user must be able to read what it is given.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(supervise(dir))).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "the job in {} cannot be run: {error}", dir.display());
            1
        }
    };
    std::process::exit(code)
}

async fn supervise(dir: &Path) -> Result<(), SuperviseError> {
    let mut control = Control::open(dir)?;
    let report = match JobReport::read(dir) {
        // It ended before, and only the end of this process was not recorded.
        Ok(Some(report)) => report,
        _ => run(dir, &mut control).await,
    };
    // The secrets have done their work.
    if let Ok(Some(spec)) = JobSpec::read(dir) {
        let _ = spec.stripped().write(dir);
    }
    control.finish(Exit::Code(0), serde_json::to_value(&report).unwrap_or_default())?;
    // Whoever waits has the report by now; only the room on the disk is still to be given back.
    if let Err(error) = place::remove(dir) {
        let _ = writeln!(std::io::stderr(), "the job's files cannot be removed: {error}");
    }
    Ok(())
}

async fn run(dir: &Path, control: &mut Control) -> JobReport {
    let failed = |message: String| {
        let report = JobReport::failed(Cause::new(message), SystemTime::now().into());
        let _ = report.write(dir);
        report
    };
    let spec = match JobSpec::read(dir) {
        Ok(Some(spec)) => spec,
        Ok(None) => return failed("the job's specification is missing".to_owned()),
        Err(error) => return failed(format!("the job's specification cannot be read: {error}")),
    };
    let cancel = CancellationToken::new();
    let mut job = Box::pin(crate::run(&spec, dir, cancel.clone()));
    loop {
        tokio::select! {
            report = &mut job => return report,
            Some(request) = control.next() => answer(request, &cancel).await,
        }
    }
}

async fn answer(request: Request, cancel: &CancellationToken) {
    if request.line() == CANCEL {
        cancel.cancel();
        request.reply("ok").await;
    } else {
        let line = format!("unknown request {:?}", request.line());
        request.reply(line).await;
    }
}
