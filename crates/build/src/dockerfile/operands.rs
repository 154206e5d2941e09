//! The instructions with many flags: RUN, COPY, ADD and HEALTHCHECK.

use super::flags::Flags;
use super::instruction::{CopyInstruction, CopySource, Healthcheck, Heredoc, Instruction, MountFlag, RunInstruction};
use super::parse::{Parsed, Parser};
use super::text::{DockerfileError, Text};
use super::words::first_raw_word;

impl Parser<'_> {
    pub(super) fn run(&self, flags: &mut Flags<'_>, rest: &Text, heredocs: Vec<Heredoc>) -> Parsed {
        if let Some(network) = flags.one("network")? {
            match network.as_str() {
                "default" | "none" => {}
                other => {
                    let message = format!("RUN --network={other} is refused: a build step has no network");
                    return Err(self.source.error(network.span(), message).hint("none and default are possible"));
                }
            }
        }
        if let Some(security) = flags.one("security")?
            && security.as_str() != "sandbox"
        {
            let message = format!("RUN --security={} is refused: build steps run in the sandbox", security.as_str());
            return Err(self.source.error(security.span(), message));
        }
        let mounts = flags.many("mount")?.iter().map(|flag| self.mount(flag)).collect::<Result<_, _>>()?;
        if rest.is_empty() {
            return Err(self.source.error(rest.span(), "RUN needs a command"));
        }
        Ok(Instruction::Run(RunInstruction { mounts, command: self.command(rest)?, heredocs }))
    }

    fn mount(&self, flag: &Text) -> Result<MountFlag, DockerfileError> {
        let mut kind = "bind".to_owned();
        let mut options = Vec::new();
        let mut at = 0;
        for part in flag.as_str().split(',') {
            let piece = flag.slice(at..at + part.len());
            at += part.len() + 1;
            let equals = part.find('=');
            let key = piece.slice(0..equals.unwrap_or(part.len()));
            let value = equals.map(|equals| piece.slice(equals + 1..part.len()));
            match (key.as_str(), &value) {
                ("type", Some(value)) => kind = value.as_str().to_owned(),
                _ => options.push((key, value)),
            }
        }
        let keys: &[&str] = match kind.as_str() {
            "bind" => &["target", "dst", "destination", "source", "src", "from", "ro", "readonly"],
            "cache" => &["target", "dst", "destination", "id", "sharing", "mode", "uid", "gid", "ro", "readonly"],
            "tmpfs" => &["target", "dst", "destination", "size"],
            "secret" => &["target", "dst", "destination", "id", "required", "mode", "uid", "gid", "env"],
            other => {
                let message = format!("RUN --mount=type={other} is refused");
                let hint = "the types bind, cache, tmpfs and secret are possible";
                return Err(self.source.error(flag.span(), message).hint(hint));
            }
        };
        for (key, _) in &options {
            if !keys.contains(&key.as_str()) {
                let message = format!("a {kind} mount has no option {:?}", key.as_str());
                let hint = format!("it takes {}", keys.join(", "));
                return Err(self.source.error(key.span(), message).hint(hint));
            }
        }
        Ok(MountFlag { kind, options, whole: flag.clone() })
    }

    pub(super) fn copy(&self, keyword: &str, flags: &mut Flags<'_>, rest: &Text, heredocs: Vec<Heredoc>) -> Parsed {
        let add = keyword == "ADD";
        if add {
            for name in ["checksum", "keep-git-dir"] {
                if let Some(value) = flags.one(name)? {
                    let message = format!("ADD --{name} is refused: it is for addresses, and ADD fetches none");
                    return Err(self.source.error(value.span(), message));
                }
            }
        }
        let mut instruction = CopyInstruction {
            add,
            from: if add { None } else { flags.one("from")? },
            chown: flags.one("chown")?,
            chmod: flags.one("chmod")?,
            link: flags.switch("link")?.unwrap_or(false),
            parents: if add { false } else { flags.switch("parents")?.unwrap_or(false) },
            unpack: if add { flags.switch("unpack")? } else { None },
            excludes: flags.many("exclude")?,
            sources: Vec::new(),
            destination: Text::default(),
        };
        let mut words = self.list(rest)?;
        let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
            let message = format!("{keyword} needs a source and a destination");
            return Err(self.source.error(rest.span(), message));
        };
        instruction.destination = destination;
        let mut heredocs = heredocs.into_iter();
        for word in words {
            let opens = Heredoc::opened_by(word.as_str(), self.escape).is_some();
            match heredocs.next().filter(|_| opens) {
                Some(document) => instruction.sources.push(CopySource::Inline(document, word)),
                None => instruction.sources.push(CopySource::Path(word)),
            }
        }
        if let Some(CopySource::Inline(_, word)) = instruction
            .sources
            .iter()
            .find(|source| matches!(source, CopySource::Inline(..)))
            .filter(|_| instruction.from.is_some())
        {
            return Err(self.source.error(word.span(), "a here-document cannot be copied from a stage"));
        }
        Ok(Instruction::Copy(instruction))
    }

    pub(super) fn healthcheck(&self, flags: &mut Flags<'_>, rest: &Text) -> Parsed {
        let (word, end) = first_raw_word(rest, 0, self.escape).unwrap_or((rest.clone(), rest.as_str().len()));
        let after = rest.slice(end..rest.as_str().len()).trim();
        match word.as_str().to_ascii_uppercase().as_str() {
            "NONE" if after.is_empty() => Ok(Instruction::Healthcheck(Healthcheck::None)),
            "CMD" if !after.is_empty() => {
                let mut time = |name| self.duration(flags.one(name)?);
                let (interval, timeout) = (time("interval")?, time("timeout")?);
                let (start_period, start_interval) = (time("start-period")?, time("start-interval")?);
                let retries = match flags.one("retries")? {
                    None => 0,
                    Some(value) => value.as_str().parse().ok().filter(|count| *count >= 0).ok_or_else(|| {
                        self.source.error(value.span(), format!("{:?} is not a number of retries", value.as_str()))
                    })?,
                };
                let command = self.command(&after)?;
                let check = Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries };
                Ok(Instruction::Healthcheck(check))
            }
            _ => Err(self.source.error(rest.span(), "HEALTHCHECK takes NONE or CMD command")),
        }
    }

    fn duration(&self, value: Option<Text>) -> Result<i64, DockerfileError> {
        let Some(value) = value else { return Ok(0) };
        go_duration(value.as_str()).ok_or_else(|| {
            let message = format!("{:?} is not a duration", value.as_str());
            self.source.error(value.span(), message).hint("write it as 500ms, 30s or 1m30s")
        })
    }
}

/// A duration as Go writes it (`1m30s`, `500ms`), in nanoseconds.
fn go_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }
    // Up to about 292 years; what is longer is a mistake.
    (!text.is_empty() && total < 9.2e18).then_some(total as i64)
}
