//! Which other files an ELF program needs to run: its interpreter and its libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, elf};

/// What a file says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    /// 64 bits or 32, and the machine: what all files of one process have in common.
    machine: (bool, u16),
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    /// `DT_RPATH` and `DT_RUNPATH`, as written.
    search: Vec<String>,
}

/// Reads the header of a file; nothing if it is not ELF.
fn header(data: &[u8]) -> Result<Option<Header>, object::Error> {
    match FileKind::parse(data) {
        Ok(FileKind::Elf64) => read::<elf::FileHeader64<Endianness>>(data).map(Some),
        Ok(FileKind::Elf32) => read::<elf::FileHeader32<Endianness>>(data).map(Some),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn read<E: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Header, object::Error> {
    let file = E::parse(data)?;
    let endian = file.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut header = Header { machine: (file.is_type_64(), file.e_machine(endian).0), ..Header::default() };
    for segment in file.program_headers(endian, data)? {
        if let Some(path) = segment.interpreter(endian, data)? {
            header.interpreter = Some(text(path).into());
        }
    }
    let dynamic = file.sections(endian, data)?.dynamic_table(endian, data)?;
    for entry in &dynamic {
        match entry.tag {
            elf::DT_NEEDED => header.libraries.push(text(dynamic.string(entry)?)),
            elf::DT_RPATH | elf::DT_RUNPATH => {
                header.search.extend(text(dynamic.string(entry)?).split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(header)
}

/// The directories in which this machine's loader looks for libraries.
pub(super) struct Libraries {
    dirs: Vec<PathBuf>,
}

/// What a set of programs needs.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// The programs themselves and all they need, by the paths under which the loader finds them.
    pub(super) files: BTreeSet<PathBuf>,
    /// Directories of libraries that a loader without this machine's configuration does not look into.
    pub(super) unusual: BTreeSet<PathBuf>,
}

impl Libraries {
    pub(super) fn of_this_machine() -> Self {
        let mut dirs = Vec::new();
        configured(Path::new("/etc/ld.so.conf"), 0, &mut dirs);
        for dir in ["/lib64", "/usr/lib64", "/lib", "/usr/lib"] {
            dirs.push(dir.into());
        }
        // Those that every loader knows come first: then the same files are found without this machine's configuration.
        dirs.sort_by_key(|dir| !is_usual(dir));
        Self { dirs }
    }

    /// Adds `file` and everything that it needs, and what that needs.
    ///
    /// # Errors
    /// When a file cannot be read or a library is nowhere.
    pub(super) fn add(&self, file: &Path, closure: &mut Closure) -> Result<(), String> {
        if !closure.files.insert(file.to_owned()) {
            return Ok(());
        }
        let data = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let header = header(&data).map_err(|error| format!("cannot read {} as ELF: {error}", file.display()))?;
        let Some(header) = header else { return Ok(()) };
        if let Some(interpreter) = &header.interpreter {
            self.add(interpreter, closure)?;
        }
        for name in &header.libraries {
            let found = self.find(name, file, &header);
            let found =
                found.ok_or_else(|| format!("{} needs {name}, which this machine does not have", file.display()))?;
            if let Some(dir) = found.parent().filter(|dir| !is_usual(dir) && self.dirs.iter().any(|it| it == dir)) {
                closure.unusual.insert(dir.to_owned());
            }
            self.add(&found, closure)?;
        }
        Ok(())
    }

    fn find(&self, name: &str, of: &Path, header: &Header) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(name.into());
        }
        let real = of.canonicalize().ok();
        let origin = real.as_deref().and_then(Path::parent).unwrap_or(Path::new("/")).display().to_string();
        let own = header.search.iter().filter(|dir| !dir.is_empty());
        let own = own.map(|dir| PathBuf::from(dir.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)));
        let mut candidates = own.chain(self.dirs.iter().cloned()).map(|dir| dir.join(name));
        candidates.find(|path| is_for(path, header.machine))
    }
}

/// Whether a library is one that a process of this machine type can load.
fn is_for(path: &Path, machine: (bool, u16)) -> bool {
    let Ok(data) = std::fs::read(path) else { return false };
    matches!(header(&data), Ok(Some(header)) if header.machine == machine)
}

/// Whether every loader looks there: `/lib`, `/usr/lib`, their 64-bit twins and Debian's directory of the architecture.
fn is_usual(dir: &Path) -> bool {
    let is_top = |dir: &Path| ["/lib", "/usr/lib", "/lib64", "/usr/lib64"].iter().any(|top| dir == Path::new(top));
    let of_architecture =
        || dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains("-linux-"));
    is_top(dir) || (dir.parent().is_some_and(is_top) && of_architecture())
}

/// Adds the directories of an `ld.so.conf` and of the files that it includes.
fn configured(file: &Path, depth: u32, dirs: &mut Vec<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ").filter(|_| depth < 4) {
            for file in matching(file.parent().unwrap_or(Path::new("/")).join(pattern.trim())) {
                configured(&file, depth + 1, dirs);
            }
        } else if line.starts_with('/') {
            dirs.push(line.into());
        }
    }
}

/// The files that a pattern with at most one `*`, in its last part, stands for.
fn matching(pattern: PathBuf) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern] };
    let entries = std::fs::read_dir(pattern.parent().unwrap_or(Path::new("/"))).into_iter().flatten().flatten();
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(before) && name.ends_with(after)
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_needs_a_loader_and_a_libc() {
        let mut closure = Closure::default();
        Libraries::of_this_machine().add(Path::new("/bin/sh"), &mut closure).unwrap();
        let names: Vec<_> = closure.files.iter().map(|file| file.display().to_string()).collect();
        assert!(names.contains(&"/bin/sh".to_owned()));
        assert!(names.iter().any(|name| name.contains("ld-")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("libc.")), "{names:?}");
    }

    #[test]
    fn what_is_not_elf_needs_nothing() {
        assert_eq!(header(b"#!/bin/sh\n").unwrap(), None);
        assert_eq!(header(b"").unwrap(), None);
        assert!(header(b"\x7fELF\x02\x01\x01 cut off here").map_or(true, |it| it.is_none()));
    }

    #[test]
    fn reads_a_configuration_with_includes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ld.so.conf"), "include conf.d/*.conf\n/opt/lib # ours\nnothing\n").unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join("conf.d/a.conf"), "/usr/lib/x86_64-linux-gnu\n").unwrap();
        std::fs::write(dir.path().join("conf.d/b.txt"), "/not/this\n").unwrap();
        let mut dirs = Vec::new();
        configured(&dir.path().join("ld.so.conf"), 0, &mut dirs);
        assert_eq!(dirs, [PathBuf::from("/usr/lib/x86_64-linux-gnu"), PathBuf::from("/opt/lib")]);
        assert!(is_usual(&dirs[0]) && !is_usual(&dirs[1]));
    }
}
