//! The log of a job: the single place where what a job prints is written, and so where secrets are hidden.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::SystemTime;

use model::Timestamp;

use crate::mask::{MaskStream, Masker};

/// A line longer than this many bytes goes on in the next line.
pub const MAX_LINE: usize = 64 * 1024;

/// How many of the last lines are kept for the cause of a failure.
const TAIL: usize = 20;

/// How many bytes of a line are kept there.
const TAIL_LINE: usize = 500;

/// What lines of the runner itself may take beyond the cap, in bytes: a cause must be readable in any log.
const RESERVE: u64 = 256 * 1024;

/// A log file that grows line by line: RFC 3339 time with milliseconds, a space, text, newline.
///
/// Text is UTF-8; other bytes become U+FFFD. Lines are on the file system when [`JobLog::flush`] returns. An error of
/// the file system is kept until [`JobLog::error`] asks for it.
pub struct JobLog {
    file: File,
    masker: Masker,
    stream: MaskStream,
    line: Vec<u8>,
    out: Vec<u8>,
    lines: u64,
    bytes: u64,
    cap: u64,
    capped: bool,
    last: Timestamp,
    tail: VecDeque<String>,
    error: Option<io::Error>,
}

impl JobLog {
    /// Opens the log `path`, after what it holds already, for at most `cap` bytes of output.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn open(path: &Path, cap: u64, masker: Masker) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let (mut lines, mut bytes, mut last) = (0, 0, b'\n');
        let mut buffer = vec![0; 64 * 1024];
        while file.metadata()?.is_file() {
            let count = file.read(&mut buffer)?;
            let Some(end) = count.checked_sub(1) else { break };
            lines += u64::try_from(buffer[..count].iter().filter(|byte| **byte == b'\n').count()).unwrap_or(0);
            bytes += u64::try_from(count).unwrap_or(0);
            last = buffer[end];
        }
        if last != b'\n' {
            file.write_all(b"\n")?;
            lines += 1;
            bytes += 1;
        }
        Ok(Self {
            file,
            masker,
            stream: MaskStream::default(),
            line: Vec::new(),
            out: Vec::new(),
            lines,
            bytes,
            cap,
            capped: false,
            last: Timestamp(0),
            tail: VecDeque::new(),
            error: None,
        })
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// What hides secrets here.
    pub fn masker(&self) -> &Masker {
        &self.masker
    }

    /// Hides `secret` from the next line on.
    pub fn add_mask(&mut self, secret: &str) {
        self.masker.add(secret);
    }

    /// Writes `text`, which may span lines, for the runner itself: also when the cap is reached.
    pub fn say(&mut self, text: &str) {
        for line in text.split('\n') {
            self.stream.push(&self.masker, line.as_bytes(), &mut self.line);
            self.end_line_within(self.cap.saturating_add(RESERVE));
        }
        self.flush();
    }

    /// Takes a part of a line that a step printed.
    pub fn part(&mut self, bytes: &[u8]) {
        self.stream.push(&self.masker, bytes, &mut self.line);
        while self.line.len() > MAX_LINE {
            let rest = self.line.split_off(boundary(&self.line, MAX_LINE));
            self.write_line(self.cap);
            self.line = rest;
        }
    }

    /// Ends the line that a step printed.
    pub fn end_line(&mut self) {
        self.part(b"");
        self.end_line_within(self.cap);
    }

    fn end_line_within(&mut self, cap: u64) {
        self.stream.finish(&self.masker, &mut self.line);
        while self.line.len() > MAX_LINE {
            let rest = self.line.split_off(boundary(&self.line, MAX_LINE));
            self.write_line(cap);
            self.line = rest;
        }
        self.write_line(cap);
        self.line.clear();
    }

    fn write_line(&mut self, cap: u64) {
        let text = String::from_utf8_lossy(&self.line);
        // A clock that is set back must not disorder the log.
        self.last = self.last.max(SystemTime::now().into());
        let size = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(26);
        if self.bytes.saturating_add(size) <= cap {
            let _ = writeln!(self.out, "{} {text}", self.last);
            self.bytes += size;
            self.lines += 1;
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(text[..floor(&text, TAIL_LINE)].to_owned());
        } else if !self.capped {
            self.capped = true;
            let note = format!("[the log has reached its limit of {} bytes: further output is not kept]", self.cap);
            let _ = writeln!(self.out, "{} {note}", self.last);
            self.lines += 1;
        }
        if self.out.len() >= 64 * 1024 {
            self.flush();
        }
    }

    /// Hands what is written so far to the operating system.
    pub fn flush(&mut self) {
        if !self.out.is_empty()
            && let Err(error) = self.file.write_all(&self.out)
        {
            self.error.get_or_insert(error);
        }
        self.out.clear();
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        self.flush();
        if let Err(error) = self.file.sync_data() {
            self.error.get_or_insert(error);
        }
    }

    /// The first error that writing met.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Forgets the last lines: what comes belongs to another step.
    pub fn clear_tail(&mut self) {
        self.tail.clear();
    }

    /// The last lines since, oldest first, with secrets hidden.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}

/// The last place at or before `at` where the UTF-8 text in `bytes` may be cut.
fn boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|&cut| bytes.get(cut).is_none_or(|b| b & 0xc0 != 0x80)).unwrap_or(at)
}

fn floor(text: &str, at: usize) -> usize {
    if text.len() <= at { text.len() } else { boundary(text.as_bytes(), at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &Path, cap: u64, secrets: &[&str]) -> JobLog {
        JobLog::open(&dir.join("log"), cap, Masker::new(secrets.iter().copied())).unwrap()
    }

    fn texts(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("log")).unwrap();
        text.lines()
            .map(|line| {
                let (time, text) = line.split_once(' ').unwrap();
                time.parse::<Timestamp>().unwrap();
                text.to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_with_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 1000, &["hunter2"]);
        log.say("one\ntwo hunter2");
        log.part(b"thr");
        log.part(b"ee hun");
        log.part(b"ter2 \xff");
        log.end_line();
        log.flush();
        assert_eq!(texts(dir.path()), ["one", "two ***", "three *** \u{fffd}"]);
        assert_eq!((log.lines(), log.tail().len()), (3, 3));
        drop(log);
        let mut log = self::log(dir.path(), 1000, &[]);
        assert_eq!(log.lines(), 3);
        log.say("four");
        assert_eq!(texts(dir.path()).len(), 4);
    }

    #[test]
    fn a_torn_line_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), "2026-11-20T22:00:00.123Z half").unwrap();
        log(dir.path(), 1000, &[]).say("next");
        assert_eq!(texts(dir.path()), ["half", "next"]);
    }

    #[test]
    fn a_long_line_goes_on_and_hides_a_secret_at_the_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 10_000_000, &["hunter2"]);
        let before = "ü".repeat(MAX_LINE / 2 - 2);
        for chunk in format!("{before}hunter2{before}").as_bytes().chunks(1000) {
            log.part(chunk);
        }
        log.end_line();
        log.flush();
        let lines = texts(dir.path());
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(lines.concat(), format!("{before}***{before}"));
    }

    #[test]
    fn the_cap_has_a_marker_and_a_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), 500, &[]);
        for _ in 0..100 {
            log.part(b"0123456789");
            log.end_line();
        }
        log.say("the cause");
        let lines = texts(dir.path());
        assert!(lines.len() < 20, "{lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("limit of 500 bytes")).count(), 1);
        assert_eq!(lines.last().map(String::as_str), Some("the cause"));
    }

    #[test]
    fn a_full_disk_is_told() {
        let Ok(mut log) = JobLog::open(Path::new("/dev/full"), 1000, Masker::default()) else {
            testkit::skipped("a /dev/full that can be opened for appending");
            return;
        };
        log.say("x");
        assert!(log.error().is_some());
    }
}
