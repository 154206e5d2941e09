//! RUN: its command, environment and mounts.

use std::sync::Arc;

use super::copying::Origin;
use super::evaluate::Evaluator;
use super::{Action, From, RunAction, SCRIPT};
use crate::dockerfile::{Command, Located, MountFlag, RunInstruction, Text};
use crate::engine::PickRequest;
use crate::error::BuildError;
use crate::files::{PickError, Picks, base_name, clean};
use crate::ignore::IgnoreRules;
use crate::key::{Key, KeyHasher};
use crate::scope::PROXIES;

/// A mount of a RUN.
#[derive(Debug)]
pub(crate) struct RunMount {
    /// The absolute path inside.
    pub target: String,
    /// What is there.
    pub kind: MountKind,
}

/// What a [`RunMount`] shows.
#[derive(Debug)]
pub(crate) enum MountKind {
    /// Files of the context, a stage or an image, read-only.
    Bind {
        /// What the directory with them is kept under.
        key: Key,
        /// The files.
        picks: Arc<Picks>,
        /// Where from.
        from: From,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which.
        key: Key,
        /// What happens when two steps want it at once.
        sharing: Sharing,
        /// Permission bits of a new one.
        mode: u32,
        /// Owner of a new one.
        owner: (u32, u32),
        /// Whether it may not be written.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// At most this many bytes.
        bytes: u64,
    },
    /// A secret, as a file.
    Secret {
        /// Its id.
        id: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        owner: (u32, u32),
    },
    /// A secret, as the environment variable `target`.
    SecretVariable {
        /// Its id.
        id: String,
    },
}

/// What happens when two steps want one cache at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Both have it.
    Shared,
    /// The second waits.
    Locked,
    /// The second gets an empty one.
    Private,
}

/// The size of a tmpfs that names none: as much as a build step may reasonably keep in memory.
const TMPFS: u64 = 256 << 20;

/// The options of one `--mount`.
struct Options<'a> {
    flag: &'a MountFlag,
    values: Vec<(&'a Text, String)>,
}

impl Options<'_> {
    /// The value of an option under any of its names.
    fn get(&self, names: &[&str]) -> Option<(&Text, &str)> {
        let found = self.values.iter().rev().find(|(key, _)| names.contains(&key.as_str()));
        found.map(|(key, value)| (*key, value.as_str()))
    }

    fn switch(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(|(_, value)| !matches!(value, "false" | "0"))
    }
}

impl Evaluator<'_, '_> {
    pub(super) fn run(&mut self, located: &Located, run: &RunInstruction) -> Result<String, BuildError> {
        let (argv, script) = self.command_of(run);
        let mut mounts = Vec::new();
        let mut hasher = self.next_key("run");
        for flag in &run.mounts {
            self.mount(flag, &mut mounts, &mut hasher)?;
        }
        let env = self.stage.real.command_env();
        let cwd = self.cwd();
        let user = self.stage.config.user.clone();
        hasher.number(argv.len() as u64);
        for word in &argv {
            hasher.field(word);
        }
        hasher.field(script.as_deref().unwrap_or_default()).number(env.len() as u64);
        for (name, value) in &env {
            hasher.field(name).field(value);
        }
        let key = hasher.field(&cwd).field(&user).finish();
        let proxies = self.proxies();
        let action = RunAction { argv, script, env, proxies, cwd, user, mounts };
        self.step(located, key, Action::Run(action));
        let documents: String = run.heredocs.iter().map(|document| format!("\n{}", document.content)).collect();
        Ok(format!("{}{documents}", located.written))
    }

    /// Proxy settings that were given and that no ARG declares.
    fn proxies(&self) -> Vec<(String, String)> {
        let given = |name: &&str| self.session.request.args.get(*name).map(|value| ((*name).to_owned(), value.clone()));
        PROXIES.iter().filter(|name| self.stage.real.get(name).is_none()).filter_map(given).collect()
    }

    /// The words of the command, and the script that it is if it names its own interpreter.
    fn command_of(&self, run: &RunInstruction) -> (Vec<String>, Option<String>) {
        let Command::Shell(text) = &run.command else { return (self.argv(&run.command), None) };
        let shell = |text: String| self.shell().into_iter().chain([text]).collect();
        match run.heredocs.as_slice() {
            [] => (shell(text.clone()), None),
            // Nothing but a here-document: it is the script.
            [only] if text.starts_with("<<") && !text.contains(char::is_whitespace) => {
                let script = only.text();
                if script.starts_with("#!") { (vec![SCRIPT.to_owned()], Some(script)) } else { (shell(script), None) }
            }
            // Anything else is for the shell to read, here-documents and all.
            many => {
                let documents = many.iter().map(|document| format!("\n{}{}", document.content, document.name));
                (shell(format!("{text}{}", documents.collect::<String>())), None)
            }
        }
    }

    fn mount(
        &mut self,
        flag: &MountFlag,
        mounts: &mut Vec<RunMount>,
        hasher: &mut KeyHasher,
    ) -> Result<(), BuildError> {
        let mut values = Vec::new();
        for (key, value) in &flag.options {
            let expanded = match value {
                Some(value) if key.as_str() != "from" => self.word(value)?,
                Some(value) => value.as_str().to_owned(),
                None => String::new(),
            };
            values.push((key, expanded));
        }
        let options = Options { flag, values };
        let target = options.get(&["target", "dst", "destination"]).map(|(_, value)| value.to_owned());
        let target = target.filter(|target| !target.is_empty());
        hasher.field(&flag.kind).field(target.as_deref().unwrap_or_default());
        let absolute = |evaluator: &Self, target: String| match target.starts_with('/') {
            true => format!("/{}", clean(&target)),
            false => format!("/{}", clean(&format!("{}/{target}", evaluator.cwd()))),
        };
        if flag.kind == "secret" {
            return self.secret(&options, target.map(|target| absolute(self, target)), mounts, hasher);
        }
        let target = target.ok_or_else(|| self.mount_error(flag, format!("a {} mount needs target=", flag.kind)))?;
        let target = absolute(self, target);
        let kind = match flag.kind.as_str() {
            "bind" => self.bind(&options, hasher)?,
            "cache" => self.cache(&options, &target, hasher)?,
            _ => {
                let bytes = match options.get(&["size"]) {
                    None => TMPFS,
                    Some((key, value)) => bytes(value).ok_or_else(|| {
                        self.source.error(key.span(), format!("size={value} is not a number of bytes"))
                    })?,
                };
                MountKind::Tmpfs { bytes }
            }
        };
        mounts.push(RunMount { target, kind });
        Ok(())
    }

    fn mount_error(&self, flag: &MountFlag, message: String) -> BuildError {
        self.source.error(flag.whole.span(), message).into()
    }

    fn bind(&mut self, options: &Options<'_>, hasher: &mut KeyHasher) -> Result<MountKind, BuildError> {
        let flag = options.flag;
        let from = flag.options.iter().find(|(key, _)| key.as_str() == "from").and_then(|(_, value)| value.as_ref());
        let origin: Origin = self.origin(from)?;
        let source = options.get(&["source", "src"]).map_or("", |(_, value)| value).to_owned();
        let (rules, sources) = (IgnoreRules::default(), [source]);
        let request = PickRequest { sources: &sources, excludes: &[], rules: &rules, parents: false };
        let found =
            self.session.pick(&origin.from, origin.key.as_ref(), &request).map_err(|(_, error)| match error {
                PickError::Missing(path) => self.mount_error(flag, format!("there is no {path} in {}", origin.called)),
                PickError::Io(error) => match error.downcast::<BuildError>() {
                    Ok(error) => error,
                    Err(error) => self.mount_error(flag, error.to_string()),
                },
                other => self.mount_error(flag, other.to_string()),
            })?;
        if matches!(origin.from, From::Context) {
            self.session.read_files(&found);
        }
        let key = KeyHasher::new("bind").key(&found.key()).finish();
        hasher.key(&key);
        Ok(MountKind::Bind { key, picks: Arc::new(found), from: origin.from })
    }

    fn cache(&self, options: &Options<'_>, target: &str, hasher: &mut KeyHasher) -> Result<MountKind, BuildError> {
        let id = options.get(&["id"]).map_or(target, |(_, value)| value);
        let sharing = match options.get(&["sharing"]) {
            None | Some((_, "shared")) => Sharing::Shared,
            Some((_, "locked")) => Sharing::Locked,
            Some((_, "private")) => Sharing::Private,
            Some((key, other)) => {
                let error = self.source.error(key.span(), format!("sharing={other} is not possible"));
                return Err(error.hint("shared, private and locked are").into());
            }
        };
        hasher.field(id);
        Ok(MountKind::Cache {
            key: KeyHasher::new("cache mount").field(id).finish(),
            sharing,
            mode: self.number(options, "mode", 8, 0o755)?,
            owner: (self.number(options, "uid", 10, 0)?, self.number(options, "gid", 10, 0)?),
            read_only: options.switch(&["ro", "readonly"]),
        })
    }

    fn secret(
        &mut self,
        options: &Options<'_>,
        target: Option<String>,
        mounts: &mut Vec<RunMount>,
        hasher: &mut KeyHasher,
    ) -> Result<(), BuildError> {
        let named = options.get(&["id"]).map(|(_, value)| value.to_owned());
        let id = named.or_else(|| target.as_deref().map(|target| base_name(target).to_owned()));
        let id = id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| self.mount_error(options.flag, "a secret mount needs id=".to_owned()))?;
        let variable = options.get(&["env"]).map(|(_, value)| value.to_owned());
        let mode = self.number(options, "mode", 8, 0o400)?;
        let owner = (self.number(options, "uid", 10, 0)?, self.number(options, "gid", 10, 0)?);
        hasher.field(&id).field(variable.as_deref().unwrap_or_default());
        let Some(secret) = self.session.request.secrets.get(&id) else {
            if options.switch(&["required"]) {
                let error =
                    self.source.error(options.flag.whole.span(), format!("no secret {id:?} was given to the build"));
                return Err(error
                    .hint("mark the mount `required=false`, or give the build a secret of this id")
                    .into());
            }
            return Ok(());
        };
        self.session.inputs.secrets.insert(id.clone(), secret.version.clone());
        if target.is_some() || variable.is_none() {
            let target = target.unwrap_or_else(|| format!("/run/secrets/{}", clean(&id)));
            mounts.push(RunMount { target, kind: MountKind::Secret { id: id.clone(), mode, owner } });
        }
        if let Some(variable) = variable {
            mounts.push(RunMount { target: variable, kind: MountKind::SecretVariable { id } });
        }
        Ok(())
    }

    fn number(&self, options: &Options<'_>, name: &str, base: u32, default: u32) -> Result<u32, BuildError> {
        let Some((key, value)) = options.get(&[name]) else { return Ok(default) };
        let most = if name == "mode" { 0o7777 } else { 65_535 };
        let number = u32::from_str_radix(value, base).ok().filter(|number| *number <= most);
        number.ok_or_else(|| self.source.error(key.span(), format!("{name}={value} is not possible")).into())
    }
}

/// `1048576`, `64m` or `1g` in bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let unit = match &lower[digits..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    lower[..digits].parse::<u64>().ok()?.checked_mul(unit)
}
