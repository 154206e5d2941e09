//! From logical lines to instructions.

use super::directives::directives;
use super::flags::{Flags, flags};
use super::instruction::{Command, Instruction};
use super::lines::{Line, lines, trigger};
use super::text::{DockerfileError, LONGEST, Source, Span, Text};
use super::words::{first_raw_word, plain_words, raw_words};

/// Every instruction of the language.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text.
    pub source: Source,
    /// The escape character.
    pub escape: char,
    /// Its instructions, in order.
    pub instructions: Vec<Located>,
}

/// An instruction with its place.
#[derive(Clone, Debug)]
pub struct Located {
    /// The instruction.
    pub instruction: Instruction,
    /// The keyword, in capitals.
    pub keyword: String,
    /// The keyword's place.
    pub span: Span,
    /// The instruction as written, on one line: what history and messages show.
    pub written: String,
}

/// Parses a Dockerfile.
///
/// # Errors
/// At the first thing that is not Dockerfile language, with its place.
pub fn parse(source: Source) -> Result<Dockerfile, DockerfileError> {
    if source.text().len() > LONGEST {
        let start = Span { start: 0, end: 0 };
        return Err(source.error(start, format!("a Dockerfile may have at most {LONGEST} bytes")));
    }
    let directives = directives(&source)?;
    let parser = Parser { source: &source, escape: directives.escape };
    let lines = lines(&source, directives)?;
    let instructions = lines.into_iter().map(|line| parser.line(line)).collect::<Result<Vec<_>, _>>()?;
    if instructions.is_empty() {
        let start = Span { start: 0, end: 0 };
        return Err(source.error(start, "there is no instruction").hint("a Dockerfile begins with FROM"));
    }
    Ok(Dockerfile { escape: directives.escape, instructions, source })
}

/// Parses one ONBUILD trigger of a base image.
///
/// # Errors
/// When it is not an instruction, or one that cannot be a trigger.
pub fn parse_trigger(source: &Source) -> Result<Located, DockerfileError> {
    Parser { source, escape: '\\' }.triggered(trigger(source))
}

pub(super) struct Parser<'a> {
    pub source: &'a Source,
    pub escape: char,
}

pub(super) type Parsed = Result<Instruction, DockerfileError>;

impl Parser<'_> {
    fn line(&self, line: Line) -> Result<Located, DockerfileError> {
        let keyword = line.keyword.as_str().to_ascii_uppercase();
        let span = line.keyword.span();
        let written = match line.rest.is_empty() {
            true => keyword.clone(),
            false => format!("{keyword} {}", line.rest.as_str()),
        };
        let Some(known) = KEYWORDS.iter().find(|known| **known == keyword) else {
            return Err(self.unknown_instruction(&line.keyword));
        };
        if line.rest.is_empty() {
            return Err(self.source.error(span, format!("{keyword} needs something after it")));
        }
        let instruction = self.instruction(known, line)?;
        Ok(Located { instruction, keyword, span, written })
    }

    fn triggered(&self, line: Line) -> Result<Located, DockerfileError> {
        let span = line.keyword.span();
        let keyword = line.keyword.as_str().to_ascii_uppercase();
        if matches!(keyword.as_str(), "FROM" | "ONBUILD" | "MAINTAINER") {
            return Err(self.source.error(span, format!("{keyword} cannot be a trigger of ONBUILD")));
        }
        self.line(line)
    }

    fn unknown_instruction(&self, keyword: &Text) -> DockerfileError {
        let upper = keyword.as_str().to_ascii_uppercase();
        let error = self.source.error(keyword.span(), format!("unknown instruction {}", keyword.as_str()));
        match KEYWORDS.iter().map(|known| (distance(known, &upper), known)).min() {
            Some((distance, known)) if distance <= 2 => error.hint(format!("did you mean {known}?")),
            _ => error.hint(format!("the instructions are {}", KEYWORDS.join(", "))),
        }
    }

    fn instruction(&self, keyword: &'static str, line: Line) -> Parsed {
        let known: &[&str] = match keyword {
            "FROM" => &["platform"],
            "RUN" => &["mount", "network", "security"],
            "COPY" => &["from", "chown", "chmod", "link", "parents", "exclude"],
            "ADD" => &["chown", "chmod", "link", "exclude", "unpack", "checksum", "keep-git-dir"],
            "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
            _ => &[],
        };
        let (mut flags, rest) = flags(self.source, keyword, &line.rest, self.escape, known)?;
        let rest = &rest;
        match keyword {
            "FROM" => self.from(&mut flags, rest),
            "ARG" => self.arg(rest),
            "ENV" => Ok(Instruction::Env(self.pairs(keyword, rest)?)),
            "LABEL" => Ok(Instruction::Label(self.pairs(keyword, rest)?)),
            "RUN" => self.run(&mut flags, rest, line.heredocs),
            "COPY" | "ADD" => self.copy(keyword, &mut flags, rest, line.heredocs),
            "CMD" => Ok(Instruction::Cmd(self.command(rest)?)),
            "ENTRYPOINT" => Ok(Instruction::Entrypoint(self.command(rest)?)),
            "SHELL" => self.shell(rest),
            "WORKDIR" => Ok(Instruction::Workdir(rest.clone())),
            "USER" => Ok(Instruction::User(rest.clone())),
            "STOPSIGNAL" => Ok(Instruction::StopSignal(rest.clone())),
            "MAINTAINER" => Ok(Instruction::Maintainer(rest.clone())),
            "EXPOSE" => Ok(Instruction::Expose(plain_words(rest))),
            "VOLUME" => Ok(Instruction::Volume(self.list(rest)?)),
            "HEALTHCHECK" => self.healthcheck(&mut flags, rest),
            _ => {
                let (word, end) = first_raw_word(rest, 0, self.escape).unwrap_or((rest.clone(), rest.as_str().len()));
                let after = rest.slice(end..rest.as_str().len()).trim();
                self.triggered(Line { keyword: word, rest: after, heredocs: Vec::new() })?;
                Ok(Instruction::OnBuild(rest.clone()))
            }
        }
    }

    fn from(&self, flags: &mut Flags<'_>, rest: &Text) -> Parsed {
        let platform = flags.one("platform")?;
        let words = plain_words(rest);
        let (image, name) = match &words[..] {
            [image] => (image.clone(), None),
            [image, by, name] if by.as_str().eq_ignore_ascii_case("as") => (image.clone(), Some(name.clone())),
            _ => {
                return Err(self.source.error(rest.span(), "FROM takes IMAGE or IMAGE AS NAME"));
            }
        };
        if let Some(name) = &name {
            let lower = name.as_str().to_ascii_lowercase();
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
            if !lower.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) || !lower.bytes().all(legal) {
                let message = format!("{:?} cannot be the name of a stage", name.as_str());
                let hint = "a letter, then letters, digits, - _ and .";
                return Err(self.source.error(name.span(), message).hint(hint));
            }
        }
        Ok(Instruction::From { platform, image, name })
    }

    fn arg(&self, rest: &Text) -> Parsed {
        let mut found = Vec::new();
        for word in raw_words(rest, self.escape) {
            let equals = word.as_str().find('=');
            let name = word.slice(0..equals.unwrap_or(word.as_str().len()));
            let value = equals.map(|at| word.slice(at + 1..word.as_str().len()));
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty()
                || !name.as_str().chars().all(legal)
                || name.as_str().starts_with(|c: char| c.is_ascii_digit())
            {
                let message = format!("{:?} cannot be the name of an argument", name.as_str());
                return Err(self.source.error(word.span(), message));
            }
            found.push((name, value));
        }
        Ok(Instruction::Arg(found))
    }

    /// `NAME=VALUE …`, or the old form `NAME the rest of the line`.
    fn pairs(&self, keyword: &str, rest: &Text) -> Result<Vec<(Text, Text)>, DockerfileError> {
        let words = raw_words(rest, self.escape);
        let first = words.first().map(Text::as_str).unwrap_or_default();
        if !first.contains('=') {
            let value = rest.slice(first.len()..rest.as_str().len()).trim();
            if value.is_empty() {
                let message = format!("{keyword} {first} has no value");
                return Err(self.source.error(rest.span(), message).hint(format!("write {keyword} {first}=VALUE")));
            }
            return Ok(vec![(rest.slice(0..first.len()), value)]);
        }
        let mut found = Vec::new();
        for word in words {
            let Some(equals) = word.as_str().find('=').filter(|at| *at > 0) else {
                let message = format!("{:?} is not NAME=VALUE", word.as_str());
                return Err(self.source.error(word.span(), message));
            };
            found.push((word.slice(0..equals), word.slice(equals + 1..word.as_str().len())));
        }
        Ok(found)
    }

    fn shell(&self, rest: &Text) -> Parsed {
        match self.json(rest)? {
            Some(words) if !words.is_empty() => Ok(Instruction::Shell(words)),
            _ => Err(self.source.error(rest.span(), "SHELL takes a JSON array").hint(r#"SHELL ["/bin/sh", "-c"]"#)),
        }
    }

    pub(super) fn command(&self, rest: &Text) -> Result<Command, DockerfileError> {
        Ok(self.json(rest)?.map_or_else(|| Command::Shell(rest.as_str().to_owned()), Command::Exec))
    }

    /// Words of a JSON array, or words between white space.
    pub(super) fn list(&self, rest: &Text) -> Result<Vec<Text>, DockerfileError> {
        let Some(words) = self.json(rest)? else { return Ok(plain_words(rest)) };
        let mut from = 0;
        let mut found = Vec::new();
        for word in words {
            // A word with JSON escapes has no single place; it gets that of the array.
            let at = rest.as_str()[from..].find(&word).map(|at| from + at);
            let mut text = Text::at(rest.span().start as usize);
            text.push(&word, rest.span_at(at.unwrap_or(0)).start as usize);
            from = at.map_or(from, |at| at + word.len());
            found.push(text);
        }
        Ok(found)
    }

    /// The strings of a JSON array; nothing if it is no JSON array.
    fn json(&self, rest: &Text) -> Result<Option<Vec<String>>, DockerfileError> {
        if !rest.as_str().starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest.as_str()) else { return Ok(None) };
        let text = |value| match value {
            serde_json::Value::String(text) => Ok(text),
            other => Err(self.source.error(rest.span(), format!("{other} in the JSON array is not a string"))),
        };
        values.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }
}

/// How many letters must change to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(32).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let dockerfile = parse(Source::new("Dockerfile", text)).map_err(|error| error.to_string())?;
        Ok(dockerfile.instructions.into_iter().map(|located| located.written).collect())
    }

    #[test]
    fn lines_are_joined_and_comments_skipped() {
        let text = "\u{feff}# comment\n\n  from a \\\n# inside\n\n    as b\r\nRUN echo \\\\\nrun x \\  \n  y\\";
        assert_eq!(parsed(text).unwrap(), ["FROM a     as b", r"RUN echo \\", "RUN x   y"]);
        assert_eq!(parsed("# escape=`\nFROM a `\n as b\nENV A=\\\n").unwrap(), ["FROM a  as b", r"ENV A=\"]);
        assert_eq!(parsed("# syntax=docker/dockerfile:1.7-labs\n# check=skip=all\nFROM a").unwrap(), ["FROM a"]);
        assert_eq!(
            parsed("# escape=`\n# escape=`\nFROM a").unwrap_err(),
            "Dockerfile:2:10: the directive escape is given twice"
        );
    }

    #[test]
    fn heredocs_belong_to_their_instruction() {
        let text = "FROM a\nRUN cat <<EOF <<-\"E F\" > x\n1\nEOF\n\t2\n\tE F\nRUN echo '<<no' <<<no\nCMD <<EOF\n";
        let dockerfile = parse(Source::new("Dockerfile", text)).unwrap();
        let Instruction::Run(run) = &dockerfile.instructions[1].instruction else { panic!("not RUN") };
        let found: Vec<_> = run.heredocs.iter().map(|d| (d.name.as_str(), d.expand, d.text())).collect();
        assert_eq!(found, [("EOF", true, "1\n".to_owned()), ("E F", false, "2\n".to_owned())]);
        assert_eq!(dockerfile.instructions.len(), 4);
    }

    #[test]
    fn both_forms_of_a_command() {
        let dockerfile =
            parse(Source::new("D", "FROM a\nCMD [\"x\", \"y z\"]\nCMD [ -f x ] && y\nENTRYPOINT []\n")).unwrap();
        let commands: Vec<Command> = dockerfile.instructions[1..]
            .iter()
            .map(|located| match &located.instruction {
                Instruction::Cmd(command) | Instruction::Entrypoint(command) => command.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let exec = |words: &[&str]| Command::Exec(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(commands, [exec(&["x", "y z"]), Command::Shell("[ -f x ] && y".into()), exec(&[])]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "((FROM|RUN|COPY|ADD|ENV|ARG|LABEL|ONBUILD|HEALTHCHECK|SHELL|CMD|x|#)[ a-z=$\\\\\"'<>{}\\[\\],:é-]{0,20}\n?){0,6}") {
            let _ = parse(Source::new("Dockerfile", &text)).map_err(|error| error.place());
        }

        #[test]
        fn any_text_is_parsed_or_refused_with_a_place(text in "\\PC{0,60}") {
            if let Err(error) = parse(Source::new("Dockerfile", &text)) {
                prop_assert!(error.place().contains('^'));
            }
        }
    }
}
