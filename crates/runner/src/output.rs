//! Takes what a step prints: lines go to the log, workflow commands are obeyed.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::log::{JobLog, MAX_LINE};
use crate::report::{Annotation, AnnotationLevel};

/// A workflow command may be this long; an ordinary line that is longer than [`MAX_LINE`] is passed on in parts.
const MAX_COMMAND: usize = 1024 * 1024;

/// How much of an annotation's message is kept, in characters.
const MAX_MESSAGE: usize = 4096;

/// What a step asked of the runner by workflow commands.
#[derive(Debug, Default)]
pub struct Asked {
    /// `::set-output::`
    pub outputs: BTreeMap<String, String>,
    /// `::error::`, `::warning::` and `::notice::`
    pub annotations: Vec<Annotation>,
    /// A command that is refused: the step fails with this message.
    pub refused: Option<String>,
}

/// Splits the output of one step into lines.
pub struct StepOutput {
    /// What was asked for so far.
    pub asked: Asked,
    line: Vec<u8>,
    /// Whether a part of the present line is in the log already.
    parted: bool,
    /// While commands are stopped: the token that lets them go on.
    stopped: Option<String>,
    echo: bool,
    debug: bool,
    step: u32,
}

impl StepOutput {
    /// For the step with this index in the report; `debug` shows `::debug::` messages.
    pub fn new(step: u32, debug: bool) -> Self {
        Self { asked: Asked::default(), line: Vec::new(), parted: false, stopped: None, echo: false, debug, step }
    }

    /// Takes some bytes.
    pub fn take(&mut self, mut bytes: &[u8], log: &mut JobLog) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(log);
        }
        self.line.extend_from_slice(bytes);
        let limit = if !self.parted && may_be_command(&self.line) { MAX_COMMAND } else { MAX_LINE };
        if self.line.len() > limit {
            log.part(&self.line);
            self.line.clear();
            self.parted = true;
        }
        log.flush();
    }

    /// Takes the end: a last line without a newline counts.
    pub fn finish(&mut self, log: &mut JobLog) {
        if !self.line.is_empty() || self.parted {
            self.end_line(log);
        }
        log.flush();
    }

    fn end_line(&mut self, log: &mut JobLog) {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let parted = std::mem::take(&mut self.parted);
        if parted || !may_be_command(&line) || !self.command(&String::from_utf8_lossy(&line), log) {
            log.part(&line);
            log.end_line();
        }
        line.clear();
        self.line = line;
    }

    /// Obeys the command in `line`; false if it is an ordinary line.
    fn command(&mut self, line: &str, log: &mut JobLog) -> bool {
        let Some(command) = Command::parse(line) else { return false };
        if let Some(token) = &self.stopped {
            if command.name.eq_ignore_ascii_case(token) {
                self.stopped = None;
            }
            return false;
        }
        if command.name == "add-mask" {
            if !command.value.trim().is_empty() {
                log.add_mask(&command.value);
            }
            write(log, "::add-mask::***");
            return true;
        }
        if self.echo {
            write(log, line);
        }
        self.obey(&command, log)
    }

    fn obey(&mut self, command: &Command, log: &mut JobLog) -> bool {
        match command.name.as_str() {
            "group" => write(log, &format!("##[group]{}", command.value)),
            "endgroup" => write(log, "##[endgroup]"),
            "error" => self.annotate(AnnotationLevel::Error, command, log),
            "warning" => self.annotate(AnnotationLevel::Warning, command, log),
            "notice" => self.annotate(AnnotationLevel::Notice, command, log),
            "debug" if self.debug => write(log, &format!("##[debug]{}", command.value)),
            "debug" => {}
            "set-output" => match command.property("name") {
                Some(name) => drop(self.asked.outputs.insert(name.to_owned(), command.value.clone())),
                None => self.refuse("the command set-output needs a name: ::set-output name=NAME::VALUE", log),
            },
            // No action that runs here has a second part that could read it.
            "save-state" => {}
            "stop-commands" => self.stop(&command.value, log),
            "echo" => self.echo = command.value.trim().eq_ignore_ascii_case("on"),
            "set-env" => self.refuse("the command set-env is disabled: append NAME=VALUE to $GITHUB_ENV", log),
            "add-path" => self.refuse("the command add-path is disabled: append the directory to $GITHUB_PATH", log),
            _ => return false,
        }
        true
    }

    /// A token that is a command's name could never be told from that command.
    fn stop(&mut self, token: &str, log: &mut JobLog) {
        let known = ["group", "endgroup", "error", "warning", "notice", "debug", "add-mask", "echo", "stop-commands"];
        if token.trim().is_empty() || known.iter().any(|name| token.eq_ignore_ascii_case(name)) {
            self.refuse("the command stop-commands needs a token that is no command", log);
        } else {
            self.stopped = Some(token.to_owned());
        }
    }

    fn refuse(&mut self, why: &str, log: &mut JobLog) {
        write(log, &format!("##[error]{why}"));
        self.asked.refused.get_or_insert_with(|| why.to_owned());
    }

    fn annotate(&mut self, level: AnnotationLevel, command: &Command, log: &mut JobLog) {
        let name = match level {
            AnnotationLevel::Error => "error",
            AnnotationLevel::Warning => "warning",
            AnnotationLevel::Notice => "notice",
        };
        write(log, &format!("##[{name}]{}", command.value));
        let hidden = |text: &str| log.masker().hide(&text.chars().take(MAX_MESSAGE).collect::<String>());
        let number = |key: &str| command.property(key).and_then(|text| text.trim().parse().ok());
        if self.asked.annotations.len() < crate::JobReport::MAX_ANNOTATIONS {
            self.asked.annotations.push(Annotation {
                level,
                message: hidden(&command.value),
                title: command.property("title").map(hidden),
                file: command.property("file").map(hidden),
                line: number("line"),
                column: number("col"),
                step: self.step,
            });
        }
    }
}

/// Whether a line could be a workflow command.
fn may_be_command(line: &[u8]) -> bool {
    let start = line.trim_ascii_start();
    start.starts_with(b"::") || start.starts_with(b"##[")
}

fn write(log: &mut JobLog, text: &str) {
    for line in text.split('\n') {
        log.part(line.trim_end_matches('\r').as_bytes());
        log.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Masker;

    /// What is logged of `text`, in chunks of `size` bytes, and what it asked for.
    fn run(text: &str, size: usize) -> (Vec<String>, Asked) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = JobLog::open(&path, 100_000_000, Masker::new(["hunter2"])).unwrap();
        let mut output = StepOutput::new(3, false);
        for chunk in text.as_bytes().chunks(size) {
            output.take(chunk, &mut log);
        }
        output.finish(&mut log);
        let written = std::fs::read_to_string(path).unwrap();
        let lines = written.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
        (lines, output.asked)
    }

    #[test]
    fn commands_are_obeyed() {
        let text = "plain\r\n::set-output name=a::1%0A2\n::group::G\nin\n::endgroup::\n::debug::no\n\
                    ::error file=a.rs,line=3,col=x,title=T::bad hunter2\n::notice::fyi\n::unknown::x\nlast";
        for size in [1, 7, 1000] {
            let (lines, asked) = run(text, size);
            let expected = [
                "plain",
                "##[group]G",
                "in",
                "##[endgroup]",
                "##[error]bad ***",
                "##[notice]fyi",
                "::unknown::x",
                "last",
            ];
            assert_eq!(lines, expected);
            assert_eq!(asked.outputs["a"], "1\n2");
            assert_eq!(asked.annotations.len(), 2);
            let first = &asked.annotations[0];
            assert_eq!((first.message.as_str(), first.line, first.column, first.step), ("bad ***", Some(3), None, 3));
        }
    }

    #[test]
    fn a_mask_holds_from_its_own_line_on() {
        let (lines, _) = run("::add-mask::s3cr3t\nit is s3cr3t\n::echo::on\n::set-output name=x::s3cr3t\n", 5);
        assert_eq!(lines, ["::add-mask::***", "it is ***", "::set-output name=x::***"]);
    }

    #[test]
    fn stopped_commands_are_lines() {
        let (lines, asked) = run("::stop-commands::tok\n::set-output name=a::1\n::tok::\n::set-output name=b::2\n", 9);
        assert_eq!(lines, ["::set-output name=a::1", "::tok::"]);
        assert_eq!(asked.outputs.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_refused() {
        for text in ["::set-env name=A::1", "::add-path::/x", "::set-output::x", "::stop-commands::error"] {
            let (lines, asked) = run(text, 4);
            assert!(asked.refused.is_some(), "{text}");
            assert!(lines[0].starts_with("##[error]"), "{lines:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let text = format!("{}hunter2{}", "x".repeat(3 * MAX_LINE), "y".repeat(MAX_LINE));
        let (lines, _) = run(&text, 4096);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(lines.concat(), text.replace("hunter2", "***"));
    }
}
