//! The instructions, as written: nothing is expanded yet.

use super::text::Text;

/// An instruction with its operands.
#[derive(Clone, Debug)]
pub enum Instruction {
    /// `FROM [--platform=P] IMAGE [AS NAME]`.
    From {
        /// `--platform`.
        platform: Option<Text>,
        /// An image, an earlier stage or `scratch`.
        image: Text,
        /// The stage's name.
        name: Option<Text>,
    },
    /// `ARG NAME[=DEFAULT] …`.
    Arg(Vec<(Text, Option<Text>)>),
    /// `ENV NAME=VALUE …`.
    Env(Vec<(Text, Text)>),
    /// `LABEL NAME=VALUE …`.
    Label(Vec<(Text, Text)>),
    /// `RUN`.
    Run(RunInstruction),
    /// `COPY` and `ADD`.
    Copy(CopyInstruction),
    /// `CMD`.
    Cmd(Command),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `SHELL ["…"]`.
    Shell(Vec<String>),
    /// `WORKDIR PATH`.
    Workdir(Text),
    /// `USER NAME[:GROUP]`.
    User(Text),
    /// `EXPOSE PORT[/PROTOCOL] …`.
    Expose(Vec<Text>),
    /// `VOLUME PATH …`.
    Volume(Vec<Text>),
    /// `STOPSIGNAL SIGNAL`.
    StopSignal(Text),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `ONBUILD INSTRUCTION`; the instruction has been parsed once, to find mistakes.
    OnBuild(Text),
    /// `MAINTAINER NAME`.
    Maintainer(Text),
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A JSON array: the words of the command.
    Exec(Vec<String>),
    /// Anything else: a text for the shell.
    Shell(String),
}

/// `RUN [flags] command`.
#[derive(Clone, Debug)]
pub struct RunInstruction {
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// The command. Here-documents are still apart.
    pub command: Command,
    /// The here-documents that the command opens.
    pub heredocs: Vec<Heredoc>,
}

/// `--mount=type=…,key=value,…`; the keys have been checked against the type.
#[derive(Clone, Debug)]
pub struct MountFlag {
    /// `bind`, `cache`, `tmpfs` or `secret`.
    pub kind: String,
    /// The options as written, without the type; a key alone has no value.
    pub options: Vec<(Text, Option<Text>)>,
    /// The whole flag.
    pub whole: Text,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug)]
pub struct CopyInstruction {
    /// Whether it is `ADD`.
    pub add: bool,
    /// `--from`.
    pub from: Option<Text>,
    /// `--chown`.
    pub chown: Option<Text>,
    /// `--chmod`.
    pub chmod: Option<Text>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--unpack`; if absent, `ADD` unpacks archives of the context.
    pub unpack: Option<bool>,
    /// `--exclude`, in order.
    pub excludes: Vec<Text>,
    /// What is copied; at least one.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: Text,
}

/// A source of a [`CopyInstruction`].
#[derive(Clone, Debug)]
pub enum CopySource {
    /// A path or pattern.
    Path(Text),
    /// A here-document; the word that opens it, for messages.
    Inline(Heredoc, Text),
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [flags] CMD command`. Durations are in nanoseconds; zero is the default.
    Check {
        /// The command.
        command: Command,
        /// `--interval`.
        interval: i64,
        /// `--timeout`.
        timeout: i64,
        /// `--start-period`.
        start_period: i64,
        /// `--start-interval`.
        start_interval: i64,
        /// `--retries`; zero is the default.
        retries: i64,
    },
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, which is also the name of the file that COPY makes.
    pub name: String,
    /// Whether variables in it are expanded: the word was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines are taken off.
    pub strip_tabs: bool,
    /// Its lines as written, each with its line feed.
    pub content: String,
}

impl Heredoc {
    /// The here-document that a word like `<<EOF`, `<<-"EOF"` or `3<<EOF` opens.
    pub(super) fn opened_by(word: &str, escape: char) -> Option<Self> {
        let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let name: String = rest.chars().filter(|c| !matches!(c, '\'' | '"') && *c != escape).collect();
        let expand = name == rest;
        (!name.is_empty()).then(|| Self { name, expand, strip_tabs, content: String::new() })
    }

    /// Its content, with the tabs taken off if it says so.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}
