//! Layers into directories and back, with everything a hostile layer may hold.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{Algorithm, Digest, Timestamp};
use oci::compress::GzipWriter;
use oci::diff::{DiffOptions, write_upper};
use oci::merged::Merged;
use oci::tar::{EntryKind, LayerWriter, Meta, TarReader};
use oci::{Descriptor, IdMap, LayerError, LayerStore, UnpackLimits, digest_of, media_type};
use tempfile::TempDir;

/// One entry of an archive made by hand, so that it can say what no honest writer says.
struct Raw {
    path: &'static str,
    kind: tar::EntryType,
    link: &'static str,
    content: &'static [u8],
    mode: u32,
    uid: u64,
}

fn entry(path: &'static str, kind: tar::EntryType) -> Raw {
    Raw { path, kind, link: "", content: b"", mode: 0o644, uid: 0 }
}

fn file(path: &'static str, content: &'static [u8]) -> Raw {
    Raw { content, ..entry(path, tar::EntryType::Regular) }
}

fn dir(path: &'static str) -> Raw {
    Raw { mode: 0o755, ..entry(path, tar::EntryType::Directory) }
}

fn link(path: &'static str, target: &'static str) -> Raw {
    Raw { link: target, ..entry(path, tar::EntryType::Symlink) }
}

fn hard(path: &'static str, target: &'static str) -> Raw {
    Raw { link: target, ..entry(path, tar::EntryType::Link) }
}

fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    for raw in entries {
        let mut header = tar::Header::new_ustar();
        {
            let old = header.as_old_mut();
            old.name[..raw.path.len()].copy_from_slice(raw.path.as_bytes());
            old.linkname[..raw.link.len()].copy_from_slice(raw.link.as_bytes());
        }
        header.set_entry_type(raw.kind);
        header.set_mode(raw.mode);
        header.set_uid(raw.uid);
        header.set_gid(raw.uid);
        header.set_mtime(1_700_000_000);
        header.set_size(raw.content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(raw.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn describe(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, digest_of(Algorithm::Sha256, bytes), bytes.len() as u64)
}

struct Place {
    dir: TempDir,
    store: LayerStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(&dir.path().join("layers"), IdMap::single()).unwrap();
        Self { dir, store }
    }

    fn unpack(&self, bytes: &[u8]) -> Result<PathBuf, LayerError> {
        let bytes = bytes.to_vec();
        self.store.ensure(&describe(&bytes), None, move || Ok(Box::new(io::Cursor::new(bytes))))
    }

    /// A refused layer leaves nothing behind.
    fn refuses(&self, entries: &[Raw]) -> String {
        let error = self.unpack(&archive(entries)).expect_err("refused");
        let left: Vec<_> =
            fs::read_dir(self.dir.path().join("layers")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["made-in"], "{error}");
        error.to_string()
    }
}

#[test]
fn an_honest_layer() {
    let place = Place::new();
    let path = place
        .unpack(&archive(&[
            dir("./"),
            Raw { mode: 0o555, ..dir("bin/") },
            Raw { mode: 0o4755, ..file("bin/su", b"elf") },
            hard("bin/mount", "bin/su"),
            link("sbin", "bin"),
            file("deep/without/parents", b"x"),
            entry("pipe", tar::EntryType::Fifo),
            file("/etc/absolute", b"stays inside"),
        ]))
        .unwrap();
    let su = fs::metadata(path.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.mtime(), su.nlink()), (0o4755, 1_700_000_000, 2));
    assert_eq!(fs::metadata(path.join("bin")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(path.join("bin")).unwrap().mtime(), 1_700_000_000);
    assert_eq!(fs::read_link(path.join("sbin")).unwrap(), Path::new("bin"));
    assert_eq!(fs::read(path.join("deep/without/parents")).unwrap(), b"x");
    assert_eq!(fs::metadata(path.join("deep")).unwrap().mode() & 0o7777, 0o755);
    assert!(fs::metadata(path.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read(path.join("etc/absolute")).unwrap(), b"stays inside");
    assert!(place.store.find(&describe(b"nothing").digest).is_none());
    assert_eq!(place.store.list().unwrap().len(), 1);
    let digest = place.store.list().unwrap()[0];
    place.store.remove(&digest).unwrap();
    assert!(!path.exists());
}

#[test]
fn nothing_leaves_the_layer() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    for hostile in [
        vec![file("../outside/x", b"x")],
        vec![file("a/../../outside/x", b"x")],
        vec![hard("x", "../outside/secret")],
        vec![hard("x", "/../outside/secret")],
        vec![link("up", "../../outside"), hard("x", "up/secret")],
        vec![hard("x", "missing")],
        vec![dir("d"), hard("x", "d")],
        vec![file("f", b""), hard("f", "f")],
        vec![link("up", "../../outside"), file("up/.wh.secret", b"")],
        vec![link("up", "../../outside"), file("up/.wh..wh..opq", b"")],
        vec![file(".wh...", b"")],
        vec![file(".wh..", b"")],
        vec![file(".wh.", b"")],
        vec![file("a/.wh...", b"")],
        vec![file(".wh.x/y", b"")],
        vec![link("round", "round"), file("round/x", b"")],
        vec![file("f", b""), file("f/below", b"")],
        vec![file("./", b"").into_file_at_root()],
        vec![link("empty", "")],
    ] {
        place.refuses(&hostile);
    }
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

impl Raw {
    /// A file whose path comes to nothing.
    fn into_file_at_root(self) -> Self {
        Self { path: ".", ..self }
    }
}

#[test]
fn links_on_the_way_stay_inside() {
    let place = Place::new();
    let path = place
        .unpack(&archive(&[
            link("up", "../../outside"),
            file("up/file", b"x"),
            dir("usr/lib"),
            link("lib", "/usr/lib"),
            file("lib/so", b"y"),
        ]))
        .unwrap();
    assert!(!place.dir.path().join("outside").exists());
    assert_eq!(fs::read(path.join("outside/file")).unwrap(), b"x");
    assert_eq!(fs::read(path.join("usr/lib/so")).unwrap(), b"y");
    assert!(fs::symlink_metadata(path.join("lib")).unwrap().is_symlink());
}

#[test]
fn a_file_never_goes_through_the_link_it_replaces() {
    let place = Place::new();
    let victim = place.dir.path().join("victim");
    fs::write(&victim, "old").unwrap();
    let path = place
        .unpack(&archive(&[
            link("f", "../../victim"),
            file("f", b"new"),
            dir("d"),
            file("d/x", b""),
            link("d", "elsewhere"),
            dir("e"),
            file("e", b"now a file"),
        ]))
        .unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"old");
    assert_eq!(fs::read(path.join("f")).unwrap(), b"new");
    assert_eq!(fs::read_link(path.join("d")).unwrap(), Path::new("elsewhere"));
    assert_eq!(fs::read(path.join("e")).unwrap(), b"now a file");
}

#[test]
fn whiteouts_mean_the_layers_below() {
    let place = Place::new();
    let path = place
        .unpack(&archive(&[
            file("a/.wh.gone", b""),
            file(".wh.kept", b""),
            file("kept", b"of this layer"),
            dir("both"),
            file("both/x", b""),
            file(".wh.both", b""),
            file("opaque/.wh..wh..opq", b""),
            file("opaque/y", b""),
            file(".wh.tree", b""),
            file("tree/.wh.leaf", b""),
            file(".wh..wh.plnk/1.2", b""),
            entry("dev/null", tar::EntryType::Char),
            entry("dev/sda", tar::EntryType::Block),
        ]))
        .unwrap();
    let gone = fs::symlink_metadata(path.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(fs::read(path.join("kept")).unwrap(), b"of this layer");
    let opaque = |name: &str| {
        let mut value = [0; 4];
        rustix::fs::getxattr(path.join(name), "user.overlay.opaque", &mut value).is_ok_and(|n| &value[..n] == b"y")
    };
    assert!(opaque("both") && opaque("opaque") && opaque("tree") && !opaque("a"));
    assert!(path.join("both/x").exists());
    assert!(!path.join(".wh..wh.plnk").exists());
    assert!(fs::symlink_metadata(path.join("dev/null")).is_err());
}

#[test]
fn overlay_attributes_of_a_stranger_are_dropped() {
    let place = Place::new();
    let xattrs = [("user.overlay.opaque", b"y"), ("trusted.overlay.opaque", b"y"), ("user.mime", b"t")];
    let xattrs = xattrs.map(|(name, value)| (name.to_owned(), value.to_vec())).into();
    let meta = Meta { xattrs, ..Meta::root(0o755, Timestamp(0)) };
    let mut writer = LayerWriter::new(Vec::new());
    writer.directory(b"d", &meta).unwrap();
    writer.file(b"f", &meta, 0, &mut io::empty()).unwrap();
    let path = place.unpack(&writer.finish().unwrap()).unwrap();
    for name in ["d", "f"] {
        let mut names = [0; 200];
        let length = rustix::fs::listxattr(path.join(name), &mut names[..]).unwrap_or(0);
        let names = String::from_utf8_lossy(&names[..length]).into_owned();
        assert!(!names.contains("overlay"), "{names}");
    }
}

#[test]
fn bombs_end_at_their_limit() {
    let place = Place::new();
    let limits = UnpackLimits { entries: 10, bytes: 1 << 20 };
    let store = place.store.with_limits(limits);
    let ensure = |bytes: Vec<u8>| {
        let descriptor = describe(&bytes);
        store.ensure(&descriptor, None, move || Ok(Box::new(io::Cursor::new(bytes)))).expect_err("a bomb")
    };
    let mut gzip = GzipWriter::new(Vec::new());
    let mut writer = LayerWriter::new(&mut gzip);
    let meta = Meta::root(0o644, Timestamp(0));
    writer.file(b"zeros", &meta, 64 << 20, &mut io::repeat(0).take(64 << 20)).unwrap();
    writer.finish().unwrap();
    assert!(matches!(ensure(gzip.finish().unwrap().inner), LayerError::Archive(_)));
    // Endless zeros after the end of the archive.
    let tail = zstd::encode_all(&vec![0u8; 16 << 20][..], 1).unwrap();
    assert!(matches!(ensure(tail), LayerError::Archive(_)));
    let many: Vec<Raw> = (0..11).map(|_| dir("d")).collect();
    assert!(matches!(ensure(archive(&many)), LayerError::TooMany(10)));
    assert_eq!(fs::read_dir(place.dir.path().join("layers")).unwrap().count(), 1);
}

#[test]
fn lies_about_content_leave_nothing() {
    let place = Place::new();
    let bytes = archive(&[file("f", b"x")]);
    let honest = describe(&bytes);
    let ensure = |descriptor: &Descriptor, diff_id: Option<&Digest>| {
        let bytes = bytes.clone();
        place.store.ensure(descriptor, diff_id, move || Ok(Box::new(io::Cursor::new(bytes))))
    };
    let other = Descriptor { digest: Digest::sha256([7; 32]), ..honest.clone() };
    assert!(matches!(ensure(&other, None), Err(LayerError::Digest(_))));
    let longer = Descriptor { size: honest.size + 1, ..honest.clone() };
    assert!(matches!(ensure(&longer, None), Err(LayerError::Size { .. })));
    let shorter = Descriptor { size: honest.size - 1, ..honest.clone() };
    assert!(ensure(&shorter, None).is_err());
    assert!(matches!(ensure(&honest, Some(&Digest::sha256([7; 32]))), Err(LayerError::DiffId(_))));
    assert_eq!(place.store.list().unwrap(), []);
    ensure(&honest, Some(&honest.digest)).unwrap();
}

#[test]
fn callers_share_and_other_boots_start_anew() {
    let place = Place::new();
    let bytes = archive(&[file("f", b"x")]);
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let source = bytes.clone();
                place.store.ensure(&describe(&bytes), None, || {
                    opened.fetch_add(1, Ordering::SeqCst);
                    Ok(Box::new(io::Cursor::new(source)))
                })
            });
        }
    });
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    let layers = place.dir.path().join("layers");
    fs::create_dir(layers.join("unfinished-1-1")).unwrap();
    let again = LayerStore::open(&layers, IdMap::single()).unwrap();
    assert_eq!(again.list().unwrap().len(), 1);
    assert!(!layers.join("unfinished-1-1").exists());
    fs::write(layers.join("made-in"), "boot of yesterday\n").unwrap();
    assert_eq!(LayerStore::open(&layers, IdMap::single()).unwrap().list().unwrap(), []);
}

#[test]
fn owners_are_shifted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: owners can only be set as root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::open(&dir.path().join("layers"), IdMap::shifted(1_000_000_000)).unwrap();
    let bytes = archive(&[Raw { uid: 33, mode: 0o4755, ..file("d/f", b"x") }, Raw { uid: 12, ..link("l", "f") }]);
    let descriptor = describe(&bytes);
    let path = store.ensure(&descriptor, None, move || Ok(Box::new(io::Cursor::new(bytes)))).unwrap();
    let owner = |name: &str| fs::symlink_metadata(path.join(name)).unwrap().uid();
    let owners = ["", "d", "d/f", "l"].map(owner);
    assert_eq!(owners, [1_000_000_000, 1_000_000_000, 1_000_000_033, 1_000_000_012]);
    assert_eq!(fs::metadata(path.join("d/f")).unwrap().mode() & 0o7777, 0o4755);
    let options = DiffOptions { ids: store.ids(), epoch: None, skip: &|_| false };
    let mut writer = LayerWriter::new(Vec::new());
    write_upper(&path, &mut writer, &options).unwrap();
    let out = writer.finish().unwrap();
    let mut reader = TarReader::new(&out[..]);
    let entries: Vec<_> = std::iter::from_fn(|| reader.next_entry().unwrap()).collect();
    assert_eq!(entries.iter().map(|e| e.uid).collect::<Vec<_>>(), [0, 33, 12]);
}

fn upper(dir: &Path) -> PathBuf {
    let upper = dir.join("upper");
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::create_dir_all(upper.join("new/sub")).unwrap();
    fs::create_dir_all(upper.join("proc/sys")).unwrap();
    fs::write(upper.join("etc/b"), "b").unwrap();
    fs::write(upper.join("etc/a"), "a").unwrap();
    fs::hard_link(upper.join("etc/a"), upper.join("etc/c")).unwrap();
    symlink("../x", upper.join("new/link")).unwrap();
    fs::set_permissions(upper.join("new/sub"), fs::Permissions::from_mode(0o500)).unwrap();
    let parent = fs::File::open(upper.join("etc")).unwrap();
    rustix::fs::mknodat(&parent, "gone", rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty(), 0).unwrap();
    let new = fs::File::open(upper.join("new")).unwrap();
    rustix::fs::fsetxattr(&new, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    upper
}

#[test]
fn an_upper_directory_becomes_a_layer_and_comes_back() {
    let place = Place::new();
    let upper = upper(place.dir.path());
    let epoch = Timestamp(1_600_000_000_000);
    let layer = || {
        let options = DiffOptions { ids: IdMap::single(), epoch: Some(epoch), skip: &|path| path.starts_with(b"proc") };
        let mut writer = LayerWriter::new(Vec::new());
        let summary = write_upper(&upper, &mut writer, &options).unwrap();
        (writer.finish().unwrap(), summary)
    };
    let (first, summary) = layer();
    assert_eq!((summary.entries, summary.bytes), (9, 2));
    assert_eq!(first, layer().0);
    let mut reader = TarReader::new(&first[..]);
    let entries: Vec<_> = std::iter::from_fn(|| reader.next_entry().unwrap()).collect();
    let paths: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
    assert_eq!(
        paths,
        ["etc/", "etc/a", "etc/b", "etc/c", "etc/.wh.gone", "new/", "new/.wh..wh..opq", "new/link", "new/sub/"]
    );
    assert_eq!((entries[3].kind, entries[3].link.as_slice()), (EntryKind::HardLink, &b"etc/a"[..]));
    assert!(entries.iter().all(|entry| entry.mtime == epoch.seconds() && entry.uid == 0));
    let back = place.unpack(&first).unwrap();
    assert_eq!(fs::metadata(back.join("new/sub")).unwrap().mode() & 0o7777, 0o500);
    let options = DiffOptions { ids: IdMap::single(), epoch: Some(epoch), skip: &|_| false };
    let mut writer = LayerWriter::new(Vec::new());
    write_upper(&back, &mut writer, &options).unwrap();
    assert_eq!(writer.finish().unwrap(), first);
    // As the unpacked form of another blob, without unpacking.
    let adopted = place.store.adopt(&Digest::sha256([3; 32]), &upper).unwrap();
    assert!(adopted.join("etc/a").exists() && !upper.exists());
}

#[test]
fn a_changed_name_that_looks_like_a_whiteout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.passwd"), "").unwrap();
    let options = DiffOptions { ids: IdMap::single(), epoch: None, skip: &|_| false };
    assert!(write_upper(dir.path(), &mut LayerWriter::new(io::sink()), &options).is_err());
}

#[test]
fn a_stack_is_seen_as_a_container_sees_it() {
    let place = Place::new();
    let below = place
        .unpack(&archive(&[
            file("etc/passwd", b"below"),
            file("etc/gone", b""),
            file("old/x", b""),
            dir("usr/bin"),
            file("usr/bin/sh", b"sh"),
            link("bin", "usr/bin"),
            file("became/a-file/x", b""),
        ]))
        .unwrap();
    let above = place
        .unpack(&archive(&[
            file("etc/.wh.gone", b""),
            file("etc/new", b"above"),
            file("old/.wh..wh..opq", b""),
            file("old/y", b""),
            file("became/a-file", b""),
            link("out", "../../../../etc/passwd"),
        ]))
        .unwrap();
    let merged = Merged::new(vec![above, below]);
    let read = |path: &str| merged.read(Path::new(path), 100).unwrap();
    assert_eq!(read("/etc/passwd").unwrap(), b"below");
    assert_eq!(read("etc/new").unwrap(), b"above");
    assert_eq!(read("/etc/gone"), None);
    assert_eq!(read("/old/x"), None);
    assert_eq!(read("/bin/sh").unwrap(), b"sh");
    assert_eq!(read("/out").unwrap(), b"below");
    assert_eq!(read("/became/a-file/x"), None);
    assert!(merged.read(Path::new("/etc/passwd"), 2).is_err());
    assert!(merged.find(Path::new("/bin"), false).unwrap().unwrap().metadata.is_symlink());
    assert_eq!(merged.find(Path::new("/bin/sh"), false).unwrap().unwrap().inside, Path::new("/usr/bin/sh"));
    let list = |path: &str| merged.list(Path::new(path)).unwrap().map(|found| found.into_keys().collect::<Vec<_>>());
    assert_eq!(list("/etc").unwrap(), ["new", "passwd"]);
    assert_eq!(list("/old").unwrap(), ["y"]);
    assert_eq!(list("/bin").unwrap(), ["sh"]);
    assert_eq!(list("/etc/new"), None);
    assert_eq!(list("/").unwrap(), ["became", "bin", "etc", "old", "out", "usr"]);
}

#[test]
fn a_large_layer_streams() {
    let place = Place::new();
    let mut gzip = GzipWriter::with_level(Vec::new(), 1);
    let mut writer = LayerWriter::new(&mut gzip);
    let size = 40 << 20;
    writer.file(b"big", &Meta::root(0o644, Timestamp(0)), size, &mut io::repeat(1).take(size)).unwrap();
    writer.finish().unwrap();
    let gzipped = gzip.finish().unwrap();
    let descriptor = describe(&gzipped.inner);
    let bytes = gzipped.inner;
    let path =
        place.store.ensure(&descriptor, Some(&gzipped.diff_id), move || Ok(Box::new(io::Cursor::new(bytes)))).unwrap();
    assert_eq!(fs::metadata(path.join("big")).unwrap().len(), size);
}

/// What the kernel makes of unpacked layers, and what comes back of its upper directory.
#[test]
fn a_real_overlay_agrees() {
    let place = Place::new();
    let below = place
        .unpack(&archive(&[
            file("etc/gone", b"x"),
            file("etc/kept", b"below"),
            file("old/x", b""),
            file("replaced/x", b""),
            Raw { mode: 0o600, ..file("changed", b"below") },
        ]))
        .unwrap();
    let above = place
        .unpack(&archive(&[file("etc/.wh.gone", b""), file("old/.wh..wh..opq", b""), file("old/y", b"")]))
        .unwrap();
    let dir = place.dir.path();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let lower = format!("{}:{}", above.display(), below.display());
    let script = "set -e; cd \"$1\"
        mount -t overlay overlay -o userxattr,lowerdir=$2,upperdir=upper,workdir=work merged || exit 9
        cd merged; find . -type f | sort > ../seen
        rm etc/kept; rm -r replaced; mkdir replaced; echo z > replaced/z; echo more >> changed; chmod 700 etc";
    let mut command = std::process::Command::new("unshare");
    command.args(["-Urm", "sh", "-c", script, "sh"]).arg(dir).arg(lower);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(9) || why.starts_with("unshare"), "{why}");
            eprintln!("skipped: an overlay in a user namespace ({})", why.trim());
            return;
        }
        Err(error) => {
            eprintln!("skipped: unshare ({error})");
            return;
        }
    }
    let seen = fs::read_to_string(dir.join("seen")).unwrap();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["./changed", "./etc/kept", "./old/y", "./replaced/x"]);
    let options = DiffOptions { ids: IdMap::single(), epoch: Some(Timestamp(0)), skip: &|_| false };
    let mut writer = LayerWriter::new(Vec::new());
    write_upper(&dir.join("upper"), &mut writer, &options).unwrap();
    let out = writer.finish().unwrap();
    let mut reader = TarReader::new(&out[..]);
    let entries: Vec<_> = std::iter::from_fn(|| reader.next_entry().unwrap()).collect();
    let paths: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
    assert_eq!(paths, ["changed", "etc/", "etc/.wh.kept", "replaced/", "replaced/.wh..wh..opq", "replaced/z"]);
    assert_eq!((entries[0].mode, entries[1].mode), (0o600, 0o700));
    // On top of the others it is what the container left.
    let top = place.unpack(&out).unwrap();
    let merged = Merged::new(vec![top, above, below]);
    let read = |path: &str| merged.read(Path::new(path), 100).unwrap();
    assert_eq!(read("changed").unwrap(), b"belowmore\n");
    assert_eq!((read("etc/kept"), read("replaced/x")), (None, None));
    assert_eq!(read("replaced/z").unwrap(), b"z\n");
}
