//! The variables at a point of a stage.

use std::collections::BTreeMap;

use oci::Platform;

use crate::dockerfile::{DockerfileError, Source, Text};
use crate::expand::Expansion;

/// Arguments that are given without a declaration and are no part of any key: they say how to reach the network.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The environment and the arguments at a point of a stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// `ENV`, in the order of first appearance.
    env: Vec<(String, String)>,
    /// Declared arguments with a value.
    args: BTreeMap<String, String>,
}

impl Scope {
    /// The value of a variable: the environment wins over arguments.
    pub fn get(&self, name: &str) -> Option<String> {
        let env = self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        env.or_else(|| self.args.get(name).cloned())
    }

    /// Sets an environment variable.
    pub fn set_env(&mut self, name: &str, value: String) {
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.env.push((name.to_owned(), value)),
        }
    }

    /// Declares an argument.
    pub fn set_arg(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => drop(self.args.insert(name.to_owned(), value)),
            None => drop(self.args.remove(name)),
        }
    }

    /// Forgets the arguments: they end with their stage.
    pub fn clear_args(&mut self) {
        self.args.clear();
    }

    /// The environment.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// What a command sees: the environment, and the arguments that it does not hide.
    pub fn command_env(&self) -> Vec<(String, String)> {
        let hidden = |name: &String| self.env.iter().any(|(known, _)| known == name);
        let args = self.args.iter().filter(|(name, _)| !hidden(name));
        args.map(|(name, value)| (name.clone(), value.clone())).chain(self.env.iter().cloned()).collect()
    }

    /// Expands a word.
    pub fn word(&self, source: &Source, escape: char, word: &Text) -> Result<String, DockerfileError> {
        let lookup = |name: &str| self.get(name);
        let expansion = Expansion { escape, lookup: &lookup, keep_quotes: false };
        expansion.word(word.as_str()).map_err(|error| source.error(word.span_at(error.index), error.message))
    }

    /// Expands the text of a here-document that is opened at `word`.
    pub fn document(&self, source: &Source, escape: char, word: &Text, text: &str) -> Result<String, DockerfileError> {
        let lookup = |name: &str| self.get(name);
        let expansion = Expansion { escape, lookup: &lookup, keep_quotes: true };
        expansion
            .word(text)
            .map_err(|error| source.error(word.span(), format!("in the here-document: {}", error.message)))
    }
}

/// The arguments that every build has: `TARGETPLATFORM`, `BUILDARCH` and their kin.
pub(crate) fn platform_args(target: &Platform) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::here())] {
        args.insert(format!("{prefix}PLATFORM"), platform.to_string());
        args.insert(format!("{prefix}OS"), platform.os.clone());
        args.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        args.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    args
}
