//! What a push asks for, read from its body on the way to git.
//!
//! This must see exactly what git sees, or a ref could move unseen: the rules are those of git's `receive-pack`, down
//! to upper-case object names, capabilities on any line and the packets that end the list.

use model::{CommitId, RefName};

use crate::pkt::{self, Packet, PktError};

/// Bytes of commands that a push may hold: some 150,000 refs.
const MOST_COMMANDS: usize = 16 << 20;

/// Bytes of push options that a push may hold.
const MOST_OPTIONS: usize = 1 << 20;

/// Bytes of a ref name.
const LONGEST_NAME: usize = 1024;

/// A ref that git has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// The ref.
    pub name: RefName,
    /// The commit it stood at, annotated tags followed; nothing if it is new.
    pub old: Option<CommitId>,
    /// The commit it stands at, annotated tags followed; nothing if it is gone.
    pub new: Option<CommitId>,
}

/// Why a push is not passed on to git.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The body is not pkt-lines.
    #[error("this is not a git push: {0}")]
    Pkt(#[from] PktError),
    /// Too many commands.
    #[error("the push holds more than {MOST_COMMANDS} bytes of ref names")]
    TooManyCommands,
    /// Too many push options.
    #[error("the push holds more than {MOST_OPTIONS} bytes of push options")]
    TooManyOptions,
    /// Nobody would know what became of it.
    #[error("the client does not ask for a report (report-status): use a newer one")]
    NoReport,
    /// Commands in a signed certificate, which is not offered.
    #[error("signed pushes are not supported: push without --signed")]
    Signed,
    /// A ref name that cannot be spoken of.
    #[error("the name of ref {0:?} is not UTF-8 or longer than {LONGEST_NAME} bytes")]
    Name(String),
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Commands,
    Options,
    Pack,
}

/// Reads the commands of a push as its body goes by.
#[derive(Default)]
pub(crate) struct Commands {
    pending: Vec<u8>,
    section: Section,
    bytes: usize,
    any: bool,
    updates: Vec<RefUpdate>,
    side_band: bool,
    report: bool,
    options: bool,
}

impl Commands {
    /// Takes the next bytes of the body. After an error they must not reach git, which then does nothing.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        if self.section == Section::Pack {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut at = 0;
        while self.section != Section::Pack
            && let Some((packet, length)) = pkt::next(&pending[at..])?
        {
            self.packet(&packet)?;
            at += length;
        }
        if self.section != Section::Pack {
            pending.drain(..at);
            self.pending = pending;
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), PushError> {
        let Packet::Data(data) = packet else {
            // Git takes every packet without data for the end of a list.
            if self.any && !self.report {
                return Err(PushError::NoReport);
            }
            let options = self.section == Section::Commands && self.any && self.options;
            self.section = if options { Section::Options } else { Section::Pack };
            self.bytes = 0;
            return Ok(());
        };
        self.bytes += data.len() + 4;
        match self.section {
            Section::Commands if self.bytes > MOST_COMMANDS => Err(PushError::TooManyCommands),
            Section::Commands => self.line(data),
            Section::Options if self.bytes > MOST_OPTIONS => Err(PushError::TooManyOptions),
            Section::Options | Section::Pack => Ok(()),
        }
    }

    fn line(&mut self, data: &[u8]) -> Result<(), PushError> {
        let data = data.strip_suffix(b"\n").unwrap_or(data);
        let mut parts = data.split(|b| *b == 0);
        let text = parts.next().unwrap_or_default();
        if text.starts_with(b"shallow ") {
            return Ok(());
        }
        let words: Vec<&[u8]> = parts.next().unwrap_or_default().split(u8::is_ascii_whitespace).collect();
        let has = |name: &[u8]| {
            words.iter().any(|word| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest[0] == b'='))
        };
        self.side_band |= has(b"side-band-64k");
        self.report |= has(b"report-status") || has(b"report-status-v2");
        self.options |= has(b"push-options");
        if text == b"push-cert" {
            return Err(PushError::Signed);
        }
        self.any = true;
        self.updates.extend(command(text)?);
        Ok(())
    }

    /// Whether the answer is multiplexed, so that messages can be put into it.
    pub(crate) const fn side_band(&self) -> bool {
        self.side_band
    }

    /// Whether there is anything that git must report on.
    pub(crate) const fn any(&self) -> bool {
        self.any
    }

    /// What is asked for, in the order of the push; without what git refuses for its form.
    pub(crate) fn updates(self) -> Vec<RefUpdate> {
        self.updates
    }
}

/// `old new ref`. Nothing for what git refuses as well.
fn command(text: &[u8]) -> Result<Option<RefUpdate>, PushError> {
    let mut words = text.splitn(3, |b| *b == b' ');
    let (Some(old), Some(new), Some(name)) = (words.next(), words.next(), words.next()) else { return Ok(None) };
    let (Some(old), Some(new)) = (object(old), object(new)) else { return Ok(None) };
    let name = match std::str::from_utf8(name) {
        Ok(name) if name.len() <= LONGEST_NAME => name,
        _ => return Err(PushError::Name(String::from_utf8_lossy(name).chars().take(100).collect())),
    };
    // The null id does not parse: that is how it says that there is none.
    Ok(name.parse().ok().map(|name| RefUpdate { name, old: old.parse().ok(), new: new.parse().ok() }))
}

/// An object name, which git also takes in capitals.
fn object(word: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(word).ok()?.to_ascii_lowercase();
    (matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "abababababababababababababababababababab";
    const Z: &str = "0000000000000000000000000000000000000000";

    fn read(body: &[u8]) -> Result<Commands, PushError> {
        let mut commands = Commands::default();
        commands.feed(body).map(|()| commands)
    }

    fn names(commands: Commands) -> Vec<(String, bool)> {
        commands.updates().into_iter().map(|it| (it.name.to_string(), it.new.is_some())).collect()
    }

    #[test]
    fn object_names_in_capitals_are_no_deletion() {
        let line = format!("{Z} {} refs/heads/main\0report-status", A.to_ascii_uppercase());
        let commands = read(&[pkt::line(line.as_bytes()), b"0000".to_vec()].concat()).unwrap();
        assert_eq!(commands.updates[0].new.as_ref().unwrap().as_str(), A);
    }

    #[test]
    fn the_list_ends_where_git_ends_it() {
        let one = pkt::line(format!("{Z} {A} refs/heads/a\0report-status side-band").as_bytes());
        let two = pkt::line(format!("{Z} {A} refs/heads/b").as_bytes());
        for end in [b"0000", b"0001", b"0002"] {
            let commands = read(&[one.clone(), end.to_vec(), two.clone()].concat()).unwrap();
            assert!(!commands.side_band(), "receive-pack knows side-band-64k alone");
            assert_eq!(names(commands), [("refs/heads/a".to_owned(), true)]);
        }
    }

    #[test]
    fn capabilities_count_on_any_line() {
        let one = pkt::line(format!("{Z} {A} refs/heads/a").as_bytes());
        let two = pkt::line(format!("{Z} {A} refs/heads/b\0report-status=1\tside-band-64k").as_bytes());
        let commands = read(&[one.clone(), two, b"0000".to_vec()].concat()).unwrap();
        assert!(commands.side_band());
        assert_eq!(names(commands).len(), 2);
        assert_eq!(read(&[one, b"0000".to_vec()].concat()).err(), Some(PushError::NoReport));
        assert!(read(b"0000").is_ok(), "a client that only tries its password");
    }

    #[test]
    fn what_would_move_refs_unseen_is_refused() {
        let cert = pkt::line(b"push-cert\0report-status");
        assert_eq!(read(&cert).err(), Some(PushError::Signed));
        for name in [&b"refs/heads/\xff"[..], format!("refs/heads/{}", "x/".repeat(700)).as_bytes()] {
            let line = [format!("{Z} {A} ").as_bytes(), name].concat();
            assert!(matches!(read(&pkt::line(&line)), Err(PushError::Name(_))));
        }
        let odd = read(&pkt::line(format!("{Z} {A} refs/heads/a\n\n").as_bytes())).unwrap();
        assert_eq!(names(odd), [], "git refuses a name that ends in a newline");
    }

    #[test]
    fn endless_lists_are_cut_off() {
        let endless = |line: &[u8], commands: &mut Commands| {
            let many = pkt::line(line).repeat(1000);
            (0..400).find_map(|_| commands.feed(&many).err())
        };
        let name = format!("{Z} {A} refs/heads/{}", "x".repeat(900));
        assert_eq!(endless(name.as_bytes(), &mut Commands::default()), Some(PushError::TooManyCommands));
        let shallow = format!("shallow {A}");
        assert_eq!(endless(shallow.as_bytes(), &mut Commands::default()), Some(PushError::TooManyCommands));
        let line = pkt::line(format!("{Z} {A} refs/heads/a\0report-status push-options").as_bytes());
        let mut commands = read(&[line, b"0000".to_vec()].concat()).unwrap();
        assert_eq!(endless(&[b'o'; 900], &mut commands), Some(PushError::TooManyOptions));
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..40) {
            let mut commands = Commands::default();
            let _ = body.chunks(size).try_for_each(|chunk| commands.feed(chunk));
        }

        #[test]
        fn pieces_make_no_difference(size in 1usize..200, tail in proptest::collection::vec(any::<u8>(), 0..50)) {
            let lines = [format!("{Z} {A} refs/heads/a\0report-status push-options"), format!("{A} {Z} refs/heads/b")];
            let mut body: Vec<u8> = lines.iter().flat_map(|line| pkt::line(line.as_bytes())).collect();
            body.extend([&b"0000"[..], &pkt::line(b"option"), b"0000PACK", &tail].concat());
            let mut commands = Commands::default();
            for chunk in body.chunks(size) {
                prop_assert!(commands.feed(chunk).is_ok());
            }
            prop_assert_eq!(names(commands), [("refs/heads/a".to_owned(), true), ("refs/heads/b".to_owned(), false)]);
        }
    }
}
