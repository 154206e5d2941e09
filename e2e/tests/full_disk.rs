//! A data disk that is full: what cannot be stored is refused or fails and says so, and nothing is half done.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Options, Site, World, page};
use serde_json::Value;

/// Set in the process that has a disk of its own.
const DISK: &str = "TOWPATH_TEST_DISK";
/// Bytes of that disk.
const SIZE: u64 = 128 << 20;

/// Runs the test `name` again in a mount namespace, with a small disk mounted at the path it gets.
fn on_a_small_disk(name: &str, test: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        test(Path::new(&disk));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let works = Command::new("unshare")
        .args([namespace, "mount", "-t", "tmpfs", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a disk cannot be mounted here (unshare {namespace})");
        return;
    }
    let script = format!("mount -t tmpfs -o size={SIZE},mode=0755 tmpfs \"$0\" && exec \"$@\"");
    let status = Command::new("unshare")
        .args([namespace, "sh", "-c", &script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(DISK, dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed on its small disk");
}

/// A file that takes the space of a disk until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    /// Leaves about `room` bytes of the disk.
    fn fill(disk: &Path, room: u64) -> Self {
        let path = disk.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![1_u8; 64 << 10];
        while free(disk) > room {
            let size = usize::try_from((free(disk) - room).min(block.len() as u64)).unwrap();
            if file.write_all(&block[..size]).is_err() {
                break;
            }
        }
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn free(disk: &Path) -> u64 {
    let found = rustix::fs::statvfs(disk).unwrap();
    found.f_bavail * found.f_frsize
}

/// What is seen of a site from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    page: String,
    deploy: String,
    tags: Vec<String>,
}

impl Seen {
    fn of(world: &World, site: &Site, live: &Value) -> Self {
        Self { page: page(live), deploy: site.pinned_manifest(), tags: world.tags(&site.repository) }
    }
}

fn says_no_space(text: &str) -> bool {
    text.to_ascii_lowercase().contains("no space left")
}

fn delivered(world: &World, site: &Site, outcome: &str) -> Value {
    let status = world.delivered(site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(status["outcome"], outcome, "{status:#}");
    status
}

fn first(disk: &Path, name: &str) -> Option<(World, Site, Value)> {
    let world = World::start(Options { data: Some(disk.join("data")), ..Options::default() })?;
    let site = Site::new(&world, name);
    site.push("main");
    let status = delivered(&world, &site, "succeeded");
    Some((world, site, status))
}

/// Pushes while there is no room: the push is refused, or its run fails; both say why.
fn push_in_vain(world: &World, site: &Site) {
    let commit = site.git(&["rev-parse", "HEAD"]);
    let head = site.remote_head("refs/heads/main");
    let output = site.try_push(&["HEAD:refs/heads/main"]);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let status = world.delivered(site, &commit);
        assert_eq!(status["outcome"], "failed", "{status:#}");
        assert!(says_no_space(&status["cause"].to_string()), "{status:#}");
    } else {
        assert!(says_no_space(&said), "{said}");
        assert_eq!(site.remote_head("refs/heads/main"), head, "a refused push moves nothing: {said}");
    }
}

#[test]
fn a_disk_without_a_byte_left_breaks_nothing() {
    on_a_small_disk("a_disk_without_a_byte_left_breaks_nothing", |disk| {
        let Some((mut world, site, live)) = first(disk, "full") else { return };
        let before = Seen::of(&world, &site, &live);
        site.write("page.txt", "two\n");
        site.commit("feat: two");
        let ballast = Ballast::fill(disk, 0);
        push_in_vain(&world, &site);
        assert!(world.alive());
        assert_eq!(Seen::of(&world, &site, &live), before);
        let blob = vec![7_u8; 1 << 20];
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        let path = format!("/v2/demo/full/blobs/uploads/?digest={digest}");
        let status = world.put_bytes("POST", &path, "application/octet-stream", &blob);
        assert_eq!(status, 507, "a blob for which there is no room");

        drop(ballast);
        site.write("page.txt", "three\n");
        site.commit("feat: three");
        site.push("main");
        let status = delivered(&world, &site, "succeeded");
        assert_eq!(page(&status), "three\n");
        // Every run has its end, and the log goes on where it was.
        assert!(world.runs(&site.repository).iter().all(|run| !run["outcome"].is_null()));
        world.kill();
        world.up();
        assert_eq!(page(&status), "three\n");
    });
}

#[test]
fn a_build_for_which_there_is_no_room_fails_and_says_so() {
    on_a_small_disk("a_build_for_which_there_is_no_room_fails_and_says_so", |disk| {
        let Some((mut world, site, live)) = first(disk, "build") else { return };
        let before = Seen::of(&world, &site, &live);
        // Without a job nothing but the build needs the room.
        std::fs::remove_file(site.dir().join(".towpath/workflows/check.yaml")).unwrap();
        let mut random = Vec::new();
        std::fs::File::open("/dev/urandom").unwrap().take(8 << 20).read_to_end(&mut random).unwrap();
        site.write("random.bin", random);
        site.edit("Dockerfile", "EXPOSE", "COPY random.bin /www/\nEXPOSE");
        site.commit("feat: more than fits");
        // Twice the file for the push, which is less than what the image and its layers take beside it.
        let ballast = Ballast::fill(disk, 14 << 20);
        push_in_vain(&world, &site);
        assert_eq!(Seen::of(&world, &site, &live), before);

        site.write(
            "Dockerfile",
            "FROM demo/base:1\nCOPY page.txt /www/index.html\nRUN dd if=/dev/zero of=/large bs=1M count=64\n",
        );
        site.commit("feat: a command that wants too much");
        push_in_vain(&world, &site);
        assert_eq!(Seen::of(&world, &site, &live), before);
        assert!(world.alive());
        let leftover = free(disk);
        assert!(leftover > 1 << 20, "what a failed build has written is gone: {leftover} bytes are left");

        drop(ballast);
        site.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        site.write("page.txt", "two\n");
        site.commit("feat: two");
        site.push("main");
        let status = delivered(&world, &site, "succeeded");
        assert_eq!(page(&status), "two\n");
    });
}

#[test]
fn with_little_room_a_push_is_delivered_whole_or_not_at_all() {
    on_a_small_disk("with_little_room_a_push_is_delivered_whole_or_not_at_all", |disk| {
        let Some((mut world, site, mut live)) = first(disk, "little") else { return };
        let mut ends = Vec::new();
        for room in [8, 32, 128, 512, 1024, 2048, 4096, 8192] {
            site.write("page.txt", format!("with {room} KiB\n"));
            let commit = site.commit("feat: another page");
            let head = site.remote_head("refs/heads/main");
            let ballast = Ballast::fill(disk, room << 10);
            let output = site.try_push(&["HEAD:refs/heads/main"]);
            let said = String::from_utf8_lossy(&output.stderr);
            let end = if output.status.success() {
                let status = world.delivered(&site, &commit);
                let end = status["outcome"].as_str().unwrap().to_owned();
                match end.as_str() {
                    "succeeded" => live = status,
                    "failed" => assert!(says_no_space(&status["cause"].to_string()), "{room} KiB: {status:#}"),
                    _ => panic!("{room} KiB: {status:#}"),
                }
                end
            } else {
                assert!(says_no_space(&said), "{room} KiB: {said}");
                assert_eq!(site.remote_head("refs/heads/main"), head, "{room} KiB: {said}");
                "refused".to_owned()
            };
            ends.push((room, end));
            // Whatever came of it: what is served is what is pinned, and one whole version.
            let served = site.git(&["show", &format!("{}:page.txt", live["status"]["sourceCommit"].as_str().unwrap())]);
            assert_eq!(page(&live).trim_end(), served, "{ends:?}");
            let digest = live["status"]["imageDigest"].as_str().unwrap();
            assert!(site.pinned_manifest().contains(digest), "{ends:?}");
            assert!(world.alive(), "{ends:?}");
            drop(ballast);
        }
        eprintln!("{ends:?}");
        world.kill();
        world.up();
        site.write("page.txt", "enough\n");
        site.commit("feat: room again");
        site.push("main");
        assert_eq!(page(&delivered(&world, &site, "succeeded")), "enough\n");
    });
}

#[test]
fn a_disk_that_fills_up_during_a_run_ends_the_run() {
    on_a_small_disk("a_disk_that_fills_up_during_a_run_ends_the_run", |disk| {
        let Some((mut world, site, live)) = first(disk, "during") else { return };
        let before = Seen::of(&world, &site, &live);
        site.edit(".towpath/workflows/check.yaml", "test -s page.txt", "sleep 2");
        // The second time nothing is left of what was set aside for the first.
        for text in ["two", "three"] {
            let commit = site.change_page(text);
            let run = world.run_of(&site.repository, "target", &commit);
            world.until_stage(run, "workflow");
            std::thread::sleep(Duration::from_millis(700));
            let ballast = Ballast::fill(disk, 0);
            std::thread::sleep(Duration::from_secs(4));
            assert_eq!(page(&live), "one\n");
            assert!(world.alive());
            if text == "two" {
                let status = world.wait(run);
                assert_eq!(status["outcome"], "failed", "{status:#}");
                assert!(says_no_space(&status["cause"].to_string()), "{status:#}");
                assert_eq!(Seen::of(&world, &site, &live), before);
            }
            drop(ballast);
            let status = world.wait(run);
            let outcome = status["outcome"].as_str().unwrap();
            assert!(["failed", "succeeded"].contains(&outcome), "{status:#}");
            if outcome == "failed" {
                assert!(says_no_space(&status["cause"].to_string()), "{status:#}");
                assert_eq!(Seen::of(&world, &site, &live), before);
            }
        }
        site.change_page("four");
        assert_eq!(page(&delivered(&world, &site, "succeeded")), "four\n");
    });
}

#[test]
fn a_full_disk_is_freed_by_its_administrator() {
    on_a_small_disk("a_full_disk_is_freed_by_its_administrator", |disk| {
        let Some((mut world, _site, live)) = first(disk, "freed") else { return };
        let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let manifest = format!(
            "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\
             \"digest\":\"{digest}\",\"size\":2}},\"layers\":[]}}"
        );
        let blob = format!("/v2/demo/freed/blobs/uploads/?digest={digest}");
        let tag = "/v2/demo/freed/manifests/unwanted";
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let push = |world: &World| world.put_bytes("POST", &blob, "application/octet-stream", b"{}");
        assert_eq!(push(&world), 201);
        assert_eq!(world.put_bytes("PUT", tag, kind, manifest.as_bytes()), 201);
        let ballast = Ballast::fill(disk, 0);
        world.kill();
        world.up();
        assert!(free(disk) > 4 << 20, "a start has room to work in");
        assert_eq!(push(&world), 507, "and nobody pushes into that");
        assert_eq!(world.put_bytes("DELETE", tag, kind, b""), 202);
        assert!(world.told(&["registry", "gc", "--purge"]).starts_with("freed "));
        assert_eq!(page(&live), "one\n");
        drop(ballast);
        assert_eq!(push(&world), 201);
    });
}
