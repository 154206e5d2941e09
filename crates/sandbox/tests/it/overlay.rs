//! Roots of image layers.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sandbox::{Root, SandboxError, Spec, id_map, probe};

use crate::{Work, bind, isolates, run};

/// Two layers with the machine's tools mounted over them.
struct Image {
    work: Work,
}

impl Image {
    fn new() -> Option<Self> {
        if !isolates() {
            return None;
        }
        if !probe().overlay {
            testkit::skipped("an overlay file system");
            return None;
        }
        let work = Work::new((0, 0));
        let (bottom, top) = (work.0.join("bottom"), work.0.join("top"));
        for dir in [bottom.join("dir/sub"), bottom.join("old"), top.join("dir")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for (file, text) in
            [("bottom/a", "a"), ("bottom/b", "b"), ("bottom/dir/sub/c", "c"), ("bottom/old/d", "d"), ("top/b", "B")]
        {
            std::fs::write(work.0.join(file), text).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            if let Ok(target) = std::fs::read_link(Path::new("/").join(name)) {
                symlink(target, bottom.join(name)).unwrap();
            }
        }
        let image = Self { work };
        image.give(&bottom);
        image.give(&top);
        Some(image)
    }

    /// Everything belongs to the container's root, as it would after unpacking.
    fn give(&self, path: &Path) {
        sandbox::give(path, (0, 0)).unwrap();
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path());
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.0.join(name)
    }

    fn spec(&self, lower: &[&str], upper: &str, script: &str) -> Spec {
        let root = Root::Layers {
            lower: lower.iter().map(|name| self.path(name)).collect(),
            upper: self.path(upper),
            work: self.path("work"),
        };
        let mut spec = Spec::new(root, ["/bin/sh", "-ec", script]);
        spec.mounts.push(bind(Path::new("/usr"), "/usr", true));
        for name in ["bin", "sbin", "lib", "lib64"] {
            let path = Path::new("/").join(name);
            if path.is_dir() && !path.is_symlink() {
                spec.mounts.push(bind(&path, &format!("/{name}"), true));
            }
        }
        spec
    }
}

#[tokio::test]
async fn changes_land_in_the_upper_directory() {
    let Some(image) = Image::new() else { return };
    let script = "cat a b dir/sub/c; echo; echo new > new; rm a; rm -r old; mkdir old; echo e > old/e; echo C > dir/sub/c; id -u; ls -A /etc";
    let out = run(image.spec(&["top", "bottom"], "upper", script)).await.ok();
    assert_eq!(out, "aBc\n0\nhostname\nhosts\nresolv.conf\n");
    let upper = image.path("upper");
    let removed = std::fs::symlink_metadata(upper.join("a")).unwrap();
    assert!(removed.file_type().is_char_device() && removed.rdev() == 0);
    assert_eq!(std::fs::read_to_string(upper.join("new")).unwrap(), "new\n");
    assert_eq!(std::fs::metadata(upper.join("new")).unwrap().uid(), id_map().outside);
    assert_eq!(std::fs::read_to_string(upper.join("dir/sub/c")).unwrap(), "C\n");
    let mut opaque = [0; 8];
    let length = rustix::fs::getxattr(upper.join("old"), "user.overlay.opaque", &mut opaque[..]).unwrap();
    assert_eq!(&opaque[..length], b"y");
    // What was mounted, and the places it was mounted on, leave no trace.
    let mut names: Vec<_> = std::fs::read_dir(&upper).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "dir", "new", "old"]);
    // The layers themselves are as they were.
    assert_eq!(std::fs::read_to_string(image.path("bottom/a")).unwrap(), "a");

    // The result is a layer like the others.
    let out =
        run(image.spec(&["upper", "top", "bottom"], "upper2", "cat new; ls old; test ! -e a && echo no a")).await.ok();
    assert_eq!(out, "new\ne\nno a\n");
    // And the same upper directory can be mounted again.
    assert_eq!(run(image.spec(&["top", "bottom"], "upper", "cat new; echo more >> new")).await.ok(), "new\n");
    assert_eq!(std::fs::read_to_string(upper.join("new")).unwrap(), "new\nmore\n");
}

#[tokio::test]
async fn the_root_directory_is_the_image_s() {
    let Some(image) = Image::new() else { return };
    std::fs::set_permissions(image.path("top"), std::fs::Permissions::from_mode(0o751)).unwrap();
    let out = run(image.spec(
        &["top", "bottom"],
        "upper",
        "stat -c '%a %u %g' /; stat -c '%u' /dir /new 2>/dev/null || true",
    ))
    .await
    .ok();
    assert_eq!(out, "751 0 0\n0\n");
    let out = run(image.spec(&[], "empty", "stat -c '%a %u' /; mkdir /x && echo made; ls -A /; ls /etc")).await;
    if std::fs::read_link("/bin").is_ok() {
        // Without a layer there is no /bin: the machine's is a link.
        assert_eq!(out.exit, Err(SandboxError::NotFound("/bin/sh".to_owned())));
    } else {
        assert!(out.ok().starts_with("755 0\nmade\n"));
    }
}

#[tokio::test]
async fn root_inside_installs_packages_and_nothing_else() {
    let Some(image) = Image::new() else { return };
    let many = id_map().count > 1;
    // What package managers do: owners, modes, other users. What they must not: devices, mounts.
    let script = "touch f; chmod 4755 f; mknod dev c 1 3 2>/dev/null && echo DEVICE; mount -t tmpfs x /mnt 2>/dev/null && echo MOUNT; \
        chown 33:44 f 2>/dev/null && stat -c '%u:%g' f || echo single; chroot / /bin/true && echo chroot";
    let out = run(image.spec(&["top", "bottom"], "upper", script)).await.ok();
    assert_eq!(out, if many { "33:44\nchroot\n" } else { "single\nchroot\n" });
    let file = std::fs::metadata(image.path("upper/f")).unwrap();
    if many {
        assert_eq!((file.uid(), file.gid()), (id_map().user(33).unwrap(), id_map().group(44).unwrap()));
    }
    if many {
        let mut spec = image.spec(&["top", "bottom"], "upper3", "id -u; id -G; touch /x 2>/dev/null || echo denied");
        spec.user = (33, 44);
        spec.groups = vec![55];
        assert_eq!(run(spec).await.ok(), "33\n44 55\ndenied\n");
    }
}

#[tokio::test]
async fn mount_targets_stay_inside() {
    let Some(image) = Image::new() else { return };
    let outside = Work::new((0, 0));
    std::fs::write(outside.0.join("file"), "mine").unwrap();
    // The image's own links: absolute, climbing, and through /proc.
    symlink(&outside.0, image.path("top/abs")).unwrap();
    symlink(format!("../../../../../..{}", outside.0.display()), image.path("top/climb")).unwrap();
    symlink("/proc/self/root", image.path("top/magic")).unwrap();
    let data = Work::new((0, 0));
    std::fs::write(data.0.join("data"), "data").unwrap();
    sandbox::give(&data.0.join("data"), (0, 0)).unwrap();
    for target in ["/abs/x", "/climb/x", "/magic/x"] {
        let mut spec = image.spec(&["top", "bottom"], "upper", "true");
        spec.mounts.push(bind(&data.0, target, false));
        // Refused or mounted inside; in no case anything is made outside.
        let _ = run(spec).await;
        let names: Vec<_> = std::fs::read_dir(&outside.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{target}");
    }
    let mut spec = image.spec(&["top", "bottom"], "upper4", "cat /deep/er/mount/data; echo; cat /one/file");
    spec.mounts.push(bind(&data.0, "/deep/er/mount", true));
    spec.mounts.push(bind(&data.0.join("data"), "/one/file", true));
    assert_eq!(run(spec).await.ok(), "data\ndata");
    assert_eq!(std::fs::read_dir(image.path("upper4")).unwrap().count(), 0);
}
