//! `run:` steps.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Cause, JobResult};
use sandbox::{Exit, LimitHit, Spec};

use crate::context::{self, COMMAND_FILES};
use crate::envfile;
use crate::evaluate::Evaluate;
use crate::inside::Inside;
use crate::job::{Job, Scope, StepEnd};
use crate::output::StepOutput;
use crate::place;
use crate::process::{self, Ending, Until};
use crate::report::JobReport;
use crate::shell::Shell;
use crate::step::Ready;

/// How much a step may write to one of its command files, in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// How much of a step's summary is kept, in bytes.
const MAX_SUMMARY: usize = 1024 * 1024;

/// The files of the summaries of all steps, in the job's directory, may have so many bytes.
const MAX_SUMMARIES: u64 = 16 * 1024 * 1024;

/// A script with everything it is run with.
struct Script {
    text: String,
    shell: Shell,
    cwd: String,
}

impl Job<'_> {
    /// Runs the script of a step.
    pub async fn run_script(
        &mut self,
        scope: &Scope,
        ready: &Ready<'_>,
        template: &str,
        outputs: &mut BTreeMap<String, String>,
    ) -> StepEnd {
        let script = match self.script(scope, ready, template) {
            Ok(script) => script,
            Err(message) => return StepEnd::failure(self.of_step(ready, &message)),
        };
        self.announce(&ready.title, &script, &ready.step.env);
        let number = self.started;
        let (spec, files) = match self.prepare_script(scope, ready, &script, number) {
            Ok(prepared) => prepared,
            Err(error) => return StepEnd::failure(self.of_step(ready, &format!("cannot be prepared: {error}"))),
        };
        let mut output = StepOutput::new(self.index(), self.debug);
        let cancel = self.cancel.clone();
        let grace = Duration::from_millis(self.spec.limits.cancel_grace_ms);
        let until = Until { cancel: &cancel, deadline: ready.deadline, grace };
        let ending = process::run(spec, &until, &mut output, &mut self.log).await;
        let mut end = self.judge(ready, ending);
        let asked = output.asked;
        outputs.extend(asked.outputs);
        let room = JobReport::MAX_ANNOTATIONS.saturating_sub(self.annotations.len());
        self.annotations.extend(asked.annotations.into_iter().take(room));
        let kept = self.take_files(&files, outputs).err();
        // What the script itself did comes first among the reasons.
        if let Some(message) = asked.refused.or(kept).filter(|_| end.result == JobResult::Success) {
            end = StepEnd::failure(self.of_step(ready, &message));
        }
        end
    }

    /// The index of the present step in the report.
    pub fn index(&self) -> u32 {
        u32::try_from(self.steps.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// A cause that names the step.
    pub fn of_step(&self, ready: &Ready<'_>, what: &str) -> Cause {
        let title = self.log.masker().hide(&ready.title);
        self.in_workflow(format!("step {title:?}: {}", self.log.masker().hide(what)), ready.step.line)
    }

    fn script(&self, scope: &Scope, ready: &Ready<'_>, template: &str) -> Result<Script, String> {
        let evaluate = Evaluate::new(self, scope, &ready.env);
        let defaults = (scope.depth == 0).then_some(&self.spec.plan.defaults);
        let text = |own: &Option<String>, default: Option<&String>| {
            own.as_ref().or(default).map(|template| evaluate.text(template)).transpose()
        };
        let shell = text(&ready.step.shell, defaults.and_then(|defaults| defaults.shell.as_ref()))?;
        let directory =
            text(&ready.step.working_directory, defaults.and_then(|defaults| defaults.working_directory.as_ref()))?;
        let cwd = match directory.as_deref().map(str::trim).filter(|directory| !directory.is_empty()) {
            Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
            Some(relative) => format!("{}/{relative}", place::WORKSPACE),
            None => place::WORKSPACE.to_owned(),
        };
        let shell = Shell::find(shell.as_deref(), &self.tools).map_err(|error| error.to_string())?;
        Ok(Script { text: evaluate.text(template)?, shell, cwd })
    }

    /// Shows what will be run, folded.
    fn announce(&mut self, title: &str, script: &Script, env: &BTreeMap<String, String>) {
        let mut text = format!("##[group]{title}\n{}\nshell: {}", script.text.trim_end(), script.shell.display);
        if !env.is_empty() {
            let names: Vec<_> = env.keys().map(String::as_str).collect();
            text.push_str(&format!("\nenv: {}", names.join(", ")));
        }
        text.push_str("\n##[endgroup]");
        self.log.say(&text);
        // The script is not part of what it printed.
        self.log.clear_tail();
    }

    fn prepare_script(
        &self,
        scope: &Scope,
        ready: &Ready<'_>,
        script: &Script,
        number: usize,
    ) -> std::io::Result<(Spec, Inside)> {
        let files = self.place.files(number, &COMMAND_FILES.map(|(_, name)| name))?;
        let name = format!("step-{number}.{}", script.shell.extension);
        let path = self.place.script(&name, script.text.as_bytes())?;
        let mut spec = Spec::new(self.place.root(), script.shell.command(&path));
        spec.env = self.environment(scope, ready);
        spec.cwd.clone_from(&script.cwd);
        spec.user = self.place.user();
        spec.mounts = self.place.mounts(number, self.objects.then_some(self.spec.git_dir.as_path()));
        spec.network = self.spec.network.clone();
        spec.limits.memory = self.spec.limits.memory;
        spec.limits.pids = self.spec.limits.processes.or(spec.limits.pids);
        Ok((spec, files))
    }

    fn environment(&self, scope: &Scope, ready: &Ready<'_>) -> Vec<(String, String)> {
        let mut env = context::base_environment();
        env.extend(ready.env.clone());
        let github = self.github_of(scope, Some(&ready.action));
        env.extend(context::fixed_environment(self.spec, &github, &context::runner(self.debug)));
        if !self.paths.is_empty() {
            let path = env.get("PATH").cloned().unwrap_or_default();
            env.insert("PATH".to_owned(), format!("{}:{path}", self.paths.join(":")));
        }
        env.into_iter().collect()
    }

    fn judge(&self, ready: &Ready<'_>, ending: Result<Ending, sandbox::SandboxError>) -> StepEnd {
        let cause = match ending {
            Ok(Ending::Exit(exit)) if exit.success() => return StepEnd::success(),
            Ok(Ending::Cancelled) => self.of_step(ready, "cancelled"),
            Ok(Ending::TimedOut) => self.of_step(ready, "ran longer than its time limit").hint("raise timeout-minutes"),
            Ok(Ending::Exit(exit @ Exit::Limit(LimitHit::Memory))) => self.of_step(ready, &exit.to_string()),
            Ok(Ending::Exit(Exit::Code(code))) => self.of_step(ready, &format!("ended with exit code {code}")),
            Ok(Ending::Exit(exit)) => self.of_step(ready, &exit.to_string()),
            Err(error) => self.of_step(ready, &error.to_string()),
        };
        StepEnd::failure(cause.last_lines(self.log.tail()))
    }

    /// Takes over what the step wrote to its command files.
    fn take_files(&mut self, files: &Inside, outputs: &mut BTreeMap<String, String>) -> Result<(), String> {
        for (name, value) in pairs(files, "GITHUB_OUTPUT", "output")? {
            outputs.insert(name, value);
        }
        for line in text(files, "GITHUB_PATH", "path")?.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.contains('\0') {
                return Err("GITHUB_PATH: a directory contains a NUL byte".to_owned());
            }
            self.paths.retain(|path| path != line);
            self.paths.insert(0, line.to_owned());
        }
        self.take_summary(files)?;
        for (name, value) in pairs(files, "GITHUB_ENV", "env")? {
            match context::protected_variable(&name) {
                Some(why) => return Err(format!("GITHUB_ENV: {name} cannot be set: {why}")),
                None if value.contains('\0') => return Err(format!("GITHUB_ENV: {name} contains a NUL byte")),
                None => drop(self.added.insert(name, value)),
            }
        }
        Ok(())
    }

    /// Adds the step's summary to `summary.md`, with secrets hidden.
    fn take_summary(&mut self, files: &Inside) -> Result<(), String> {
        let mut summary = text(files, "GITHUB_STEP_SUMMARY", "summary")?;
        if summary.trim().is_empty() {
            return Ok(());
        }
        if summary.len() > MAX_SUMMARY {
            let end = (0..=MAX_SUMMARY).rev().find(|end| summary.is_char_boundary(*end)).unwrap_or(0);
            summary.truncate(end);
            self.log.say("##[warning]The step's summary is longer than 1 MiB: the rest of it is not kept.");
        }
        let hidden = self.log.masker().hide(&summary);
        self.place
            .add_summary(&hidden, MAX_SUMMARIES)
            .map_err(|error| format!("GITHUB_STEP_SUMMARY cannot be kept: {error}"))
    }
}

/// The text of a command file; empty if the step removed it.
fn text(files: &Inside, variable: &str, name: &str) -> Result<String, String> {
    match files.read(name, MAX_FILE) {
        Ok(None) => Ok(String::new()),
        Ok(Some((_, true))) => Err(format!("{variable}: more than {} MiB were written to it", MAX_FILE / 1024 / 1024)),
        Ok(Some((bytes, false))) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(format!("{variable} cannot be read: {error}")),
    }
}

fn pairs(files: &Inside, variable: &str, name: &str) -> Result<Vec<(String, String)>, String> {
    envfile::parse(&text(files, variable, name)?).map_err(|error| format!("{variable}: {error}"))
}
