//! Instructions that change nothing but how a container runs.

use oci::image;
use serde_json::Value;

use super::evaluate::Evaluator;
use crate::dockerfile::{Command, Healthcheck, Instruction, Located, Text};
use crate::error::BuildError;

/// The shell of an image that names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

impl Evaluator<'_, '_> {
    /// Carries out an instruction that makes no layer, and returns its line of the recipe.
    pub fn configure(&mut self, located: &Located, instruction: &Instruction) -> Result<String, BuildError> {
        let keyword = &located.keyword;
        match instruction {
            Instruction::Arg(list) => return self.arg(list),
            Instruction::Env(pairs) => return self.env(pairs),
            Instruction::Label(pairs) => return self.label(pairs),
            Instruction::Cmd(command) => {
                self.stage.config.cmd = Some(self.argv(command));
                self.cmd_set = true;
            }
            Instruction::Entrypoint(command) => {
                self.stage.config.entrypoint = Some(self.argv(command));
                // The command of a base image was meant for its own entry point.
                if !self.cmd_set {
                    self.stage.config.cmd = None;
                }
            }
            Instruction::Shell(words) => self.stage.config.shell = Some(words.clone()),
            Instruction::User(text) => {
                let user = self.word(text)?;
                if user.is_empty() {
                    return Err(self.source.error(text.span(), "USER needs a name or number").into());
                }
                self.stage.config.user = user;
                return Ok(format!("USER {}", self.neutral(text)?));
            }
            Instruction::StopSignal(text) => {
                self.stage.config.stop_signal = Some(self.word(text)?);
                return Ok(format!("STOPSIGNAL {}", self.neutral(text)?));
            }
            Instruction::Expose(words) => return self.expose(words),
            Instruction::Volume(words) => return self.volume(words),
            Instruction::Healthcheck(check) => self.stage.config.healthcheck = Some(self.healthcheck(check)),
            Instruction::OnBuild(text) => self.stage.config.on_build.push(text.as_str().to_owned()),
            Instruction::Maintainer(text) => self.stage.author = Some(text.as_str().to_owned()),
            // These have their own places: a stage holds no FROM, and the rest makes layers.
            Instruction::From { .. } | Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => {
                return Err(self.source.error(located.span, format!("{keyword} cannot stand here")).into());
            }
        }
        Ok(located.written.clone())
    }

    fn arg(&mut self, list: &[(Text, Option<Text>)]) -> Result<String, BuildError> {
        let mut line = "ARG".to_owned();
        for (name, default) in list {
            let name = name.as_str();
            let real = default.as_ref().map(|text| self.word(text)).transpose()?;
            let neutral = default.as_ref().map(|text| self.neutral(text)).transpose()?;
            let session = &mut *self.session;
            let value = session.arg_value(name, real).0;
            let neutral = session.arg_value(name, neutral).1;
            session.declare(name);
            line.push_str(&match &neutral {
                Some(value) => format!(" {name}={value:?}"),
                None => format!(" {name}"),
            });
            self.stage.real.set_arg(name, value);
            self.stage.neutral.set_arg(name, neutral);
        }
        Ok(line)
    }

    fn env(&mut self, pairs: &[(Text, Text)]) -> Result<String, BuildError> {
        // All values are expanded with what held before the instruction.
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            let key = self.word(name)?;
            if key.is_empty() || key.contains('=') {
                return Err(self.source.error(name.span(), format!("{key:?} cannot be the name of a variable")).into());
            }
            expanded.push((key, self.word(value)?, self.neutral(value)?));
        }
        let mut line = "ENV".to_owned();
        for (name, real, neutral) in expanded {
            line.push_str(&format!(" {name}={neutral:?}"));
            self.stage.real.set_env(&name, real);
            self.stage.neutral.set_env(&name, neutral);
        }
        Ok(line)
    }

    fn label(&mut self, pairs: &[(Text, Text)]) -> Result<String, BuildError> {
        let mut line = "LABEL".to_owned();
        for (name, value) in pairs {
            line.push_str(&format!(" {}={:?}", self.neutral(name)?, self.neutral(value)?));
            let (name, value) = (self.word(name)?, self.word(value)?);
            self.stage.config.labels.insert(name, value);
        }
        Ok(line)
    }

    fn expose(&mut self, words: &[Text]) -> Result<String, BuildError> {
        let mut line = "EXPOSE".to_owned();
        for word in words {
            let expanded = self.word(word)?;
            for part in expanded.split_whitespace() {
                let ports = ports(part).ok_or_else(|| {
                    let message = format!("{part:?} is not a port");
                    self.source.error(word.span(), message).hint("write it as 80, 80/tcp, 53/udp or 8000-8010")
                })?;
                let none = || Value::Object(serde_json::Map::new());
                self.stage.config.exposed_ports.extend(ports.into_iter().map(|port| (port, none())));
            }
            line.push_str(&format!(" {}", self.neutral(word)?));
        }
        Ok(line)
    }

    fn volume(&mut self, words: &[Text]) -> Result<String, BuildError> {
        let mut line = "VOLUME".to_owned();
        for word in words {
            let path = self.word(word)?;
            if path.is_empty() {
                return Err(self.source.error(word.span(), "VOLUME needs a path").into());
            }
            self.stage.config.volumes.insert(path, Value::Object(serde_json::Map::new()));
            line.push_str(&format!(" {:?}", self.neutral(word)?));
        }
        Ok(line)
    }

    fn healthcheck(&self, check: &Healthcheck) -> image::Healthcheck {
        match check {
            Healthcheck::None => image::Healthcheck { test: vec!["NONE".to_owned()], ..image::Healthcheck::default() },
            Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                    Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
                };
                image::Healthcheck {
                    test,
                    interval: *interval,
                    timeout: *timeout,
                    start_period: *start_period,
                    start_interval: *start_interval,
                    retries: *retries,
                }
            }
        }
    }

    /// The shell of shell-form commands.
    pub fn shell(&self) -> Vec<String> {
        let default = || SHELL.iter().map(|word| (*word).to_owned()).collect();
        self.stage.config.shell.clone().filter(|shell| !shell.is_empty()).unwrap_or_else(default)
    }

    /// A command as words.
    pub fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }
}

/// `80`, `80/udp` or `8000-8002/tcp` as `number/protocol`.
fn ports(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(ports("1-3").unwrap(), ["1/tcp", "2/tcp", "3/tcp"]);
        for bad in ["", "0", "65536", "3-1", "80/http", "a", "80:80"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
