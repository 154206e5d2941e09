//! A service's output on disk: at most two files, `log` and the older `log.1`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The size at which `log` becomes `log.1`, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// How much of the end is looked through for the last lines, in bytes.
const TAIL_BYTES: u64 = 64 << 10;
/// The most characters of a line that are shown.
const MAX_LINE: usize = 500;

/// The file that output goes to.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("log");
        let file = File::options().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file, length })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length + bytes.len() as u64 > MAX_BYTES && self.length > 0 {
            std::fs::rename(&self.path, self.path.with_extension("1"))?;
            *self = Self::open(self.path.parent().unwrap_or(Path::new("/")))?;
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// A line of the supervisor's own.
    pub fn note(&mut self, text: &str) {
        let _ = self.write(format!("towpath: {text}\n").as_bytes());
    }

    /// Takes everything from `output`. A disk that is full costs lines, not the service.
    pub async fn follow(&mut self, mut output: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            let _ = self.write(&buffer[..length]);
        }
    }
}

/// The last `count` lines of the output of the instance in `dir`, oldest first.
pub(crate) fn last_lines(dir: &Path, count: usize) -> Vec<String> {
    let mut lines = tail(&dir.join("log")).unwrap_or_default();
    if lines.len() < count
        && let Ok(mut older) = tail(&dir.join("log.1"))
    {
        older.append(&mut lines);
        lines = older;
    }
    lines.split_off(lines.len().saturating_sub(count))
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let cut = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(cut))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let shown =
        |line: &str| -> String { line.chars().filter(|c| !c.is_control() || *c == '\t').take(MAX_LINE).collect() };
    Ok(text.lines().skip(usize::from(cut > 0)).map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_is_bounded_and_its_end_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path()).unwrap();
        assert_eq!(last_lines(dir.path(), 20), Vec::<String>::new());
        let line = "x".repeat(1023);
        for number in 0..10_000 {
            log.follow(format!("{number} {line}\n").as_bytes()).await;
        }
        log.note("ended");
        let size: u64 = ["log", "log.1"].iter().map(|name| dir.path().join(name).metadata().unwrap().len()).sum();
        assert!(size <= 2 * MAX_BYTES, "{size}");
        let last = last_lines(dir.path(), 3);
        assert_eq!((last.len(), last[2].as_str()), (3, "towpath: ended"));
        assert!(last[1].starts_with("9999 xxx") && last[1].len() == MAX_LINE);
    }

    #[test]
    fn lines_go_over_from_the_older_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log.1"), "1\n2\x1b[31m\n3\n").unwrap();
        std::fs::write(dir.path().join("log"), b"4\n\xff5").unwrap();
        assert_eq!(last_lines(dir.path(), 3)[..2], ["3".to_owned(), "4".to_owned()]);
        assert_eq!(last_lines(dir.path(), 20)[1], "2[31m");
    }
}
