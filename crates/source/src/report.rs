//! What git says became of a push.

use std::collections::{HashMap, VecDeque};

use crate::commands::RefUpdate;
use crate::pkt::{self, Packet, PktError};

/// Bytes of a report, which has a line for every ref.
const MOST_REPORT: usize = 32 << 20;

/// Why git's answer is given up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    Pkt(#[from] PktError),
    #[error("git's report is longer than {MOST_REPORT} bytes")]
    TooLong,
}

/// Git's report of a push (`report-status` and `report-status-v2`).
#[derive(Default)]
struct Report {
    /// What became of each command of a ref, in the order of the push.
    refs: HashMap<String, VecDeque<bool>>,
    pending: Vec<u8>,
    done: bool,
}

impl Report {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), PktError> {
        if self.done {
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((packet, length)) = pkt::next(&self.pending[at..])? {
            at += length;
            match packet {
                Packet::Data(data) => line(&mut self.refs, data),
                Packet::Flush => {
                    self.done = true;
                    break;
                }
                Packet::Special => {}
            }
        }
        self.pending.drain(..at);
        Ok(())
    }
}

/// `ok NAME` or `ng NAME WHY`; what else there is says nothing of refs.
fn line(refs: &mut HashMap<String, VecDeque<bool>>, data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data.strip_suffix(b"\n").unwrap_or(data)) else { return };
    let (name, ok) = match line.split_at_checked(3) {
        Some(("ok ", name)) => (name, true),
        Some(("ng ", rest)) => (rest.split_once(' ').map_or(rest, |(name, _)| name), false),
        _ => return,
    };
    refs.entry(name.to_owned()).or_default().push_back(ok);
}

/// Takes git's answer apart as it goes by. Messages are passed on; the report is read and kept back, so that no client
/// is told that a ref has moved before that is on the disk.
#[derive(Default)]
pub(crate) struct Answer {
    report: Report,
    pending: Vec<u8>,
    held: Vec<u8>,
    /// Whether there are no side bands; nothing while too little of it is there.
    plain: Option<bool>,
}

impl Answer {
    /// Takes the next bytes; returns what can be passed on now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, AnswerError> {
        self.pending.extend_from_slice(bytes);
        if self.plain.is_none() && self.pending.len() >= 5 {
            // A multiplexed packet has its band where a plain report has the first letter of a word.
            self.plain = Some(self.pending[4] > 3);
        }
        let mut out = Vec::new();
        match self.plain {
            None => {}
            Some(true) => {
                self.report.feed(&self.pending)?;
                self.held.append(&mut self.pending);
            }
            Some(false) => self.packets(&mut out)?,
        }
        if self.held.len() > MOST_REPORT { Err(AnswerError::TooLong) } else { Ok(out) }
    }

    fn packets(&mut self, out: &mut Vec<u8>) -> Result<(), PktError> {
        let mut at = 0;
        while let Some((packet, length)) = pkt::next(&self.pending[at..])? {
            match packet {
                Packet::Data([1, report @ ..]) if !report.is_empty() => {
                    self.report.feed(report)?;
                    self.held.extend_from_slice(&self.pending[at..at + length]);
                }
                Packet::Data(_) => out.extend_from_slice(&self.pending[at..at + length]),
                Packet::Flush | Packet::Special => {}
            }
            at += length;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Whether the report is there to its end.
    pub(crate) const fn complete(&self) -> bool {
        self.report.done
    }

    /// Those of `updates`, in the order of the push, that git calls ok.
    pub(crate) fn accepted(&mut self, mut updates: Vec<RefUpdate>) -> Vec<RefUpdate> {
        let refs = &mut self.report.refs;
        updates.retain(|it| refs.get_mut(it.name.as_str()).and_then(VecDeque::pop_front).unwrap_or(false));
        updates
    }

    /// The end of the answer: `lines` as messages, where there are side bands, then the report.
    pub(crate) fn end(self, side_band: bool, lines: &[String]) -> Vec<u8> {
        if self.plain == Some(true) || !side_band {
            return self.held;
        }
        let mut out: Vec<u8> = lines.iter().flat_map(|line| message(2, line)).collect();
        out.extend(self.held);
        out.extend_from_slice(b"0000");
        out
    }
}

/// A packet that a client shows to its user; control characters are left out.
fn message(band: u8, text: &str) -> Vec<u8> {
    let mut data = vec![band];
    data.extend(text.chars().filter(|c| !c.is_control()).take(900).collect::<String>().into_bytes());
    data.push(b'\n');
    pkt::line(&data)
}

/// The whole answer to a push of which git has done nothing.
pub(crate) fn refusal(side_band: bool, why: &str) -> Vec<u8> {
    let mut out = if side_band {
        message(3, why)
    } else {
        pkt::line(
            format!("unpack {}\n", why.chars().filter(|c| !c.is_control()).take(900).collect::<String>()).as_bytes(),
        )
    };
    out.extend_from_slice(b"0000");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";

    fn update(name: &str) -> RefUpdate {
        RefUpdate { name: name.parse().unwrap(), old: None, new: Some(A.parse().unwrap()) }
    }

    fn report(lines: &[&str]) -> Vec<u8> {
        lines.iter().flat_map(|line| pkt::line(line.as_bytes())).chain(*b"0000").collect()
    }

    #[test]
    fn only_what_git_accepted_counts_however_the_bytes_arrive() {
        let inner =
            report(&["unpack ok\n", "ok refs/heads/main\n", "ng refs/heads/main twice\n", "ng refs/heads/b no\n"]);
        let outer: Vec<u8> = [
            pkt::line(b"\x02progress\n"),
            pkt::line(&[&[1], &inner[..20]].concat()),
            pkt::line(b"\x01"),
            pkt::line(&[&[1], &inner[20..]].concat()),
            b"0000".to_vec(),
        ]
        .concat();
        for size in [1, 3, 7, outer.len()] {
            let mut answer = Answer::default();
            let out: Vec<u8> = outer.chunks(size).flat_map(|chunk| answer.feed(chunk).unwrap()).collect();
            assert_eq!(out, [pkt::line(b"\x02progress\n"), pkt::line(b"\x01")].concat(), "the report is kept back");
            assert!(answer.complete());
            let updates = ["refs/heads/main", "refs/heads/main", "refs/heads/b", "refs/heads/c"].map(update);
            assert_eq!(answer.accepted(updates.to_vec()), [update("refs/heads/main")]);
            let end = answer.end(true, &["run\x1b 7".into()]);
            assert!(end.starts_with(b"000b\x02run 7\n"), "{:?}", String::from_utf8_lossy(&end));
            assert!(end.ends_with(b"0000"));
        }
    }

    #[test]
    fn a_plain_report_comes_back_as_it_is() {
        let plain = report(&["unpack ok\n", "ok refs/heads/main\n"]);
        for size in [1, 4, plain.len()] {
            let mut answer = Answer::default();
            plain.chunks(size).for_each(|chunk| assert!(answer.feed(chunk).unwrap().is_empty()));
            assert_eq!(answer.accepted(vec![update("refs/heads/main")]).len(), 1);
            assert_eq!(answer.end(false, &["not shown".into()]), plain);
        }
    }

    #[test]
    fn an_endless_report_is_given_up() {
        let mut answer = Answer::default();
        let line = pkt::line(b"ok refs/heads/main\n").repeat(50_000);
        assert_eq!((0..100).find_map(|_| answer.feed(&line).err()), Some(AnswerError::TooLong));
    }
}
