//! What a command cannot see, reach or ask for.

use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;

use sandbox::{Mount, MountSource, Privileges, Root, SandboxError, Secret, Tier, id_map, probe};

use crate::{Work, bind, host, isolates, probe_program, run, shell};

type Call = (&'static str, libc::c_long, [libc::c_long; 3], i32);

const NS: libc::c_long = libc::CLONE_NEWUSER as libc::c_long;

/// Name, number, arguments and the answer there must be.
pub const CALLS: &[Call] = &[
    ("ptrace", libc::SYS_ptrace, [0, 0, 0], libc::EPERM),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0], libc::EPERM),
    ("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0], libc::EPERM),
    ("kcmp", libc::SYS_kcmp, [1, 1, 0], libc::EPERM),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0], libc::EPERM),
    ("add_key", libc::SYS_add_key, [0, 0, 0], libc::EPERM),
    ("request_key", libc::SYS_request_key, [0, 0, 0], libc::EPERM),
    ("keyctl", libc::SYS_keyctl, [0, 0, 0], libc::EPERM),
    ("bpf", libc::SYS_bpf, [0, 0, 0], libc::EPERM),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0], libc::EPERM),
    ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0], libc::EPERM),
    ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0], libc::EPERM),
    ("syslog", libc::SYS_syslog, [10, 0, 0], libc::EPERM),
    ("mount", libc::SYS_mount, [0, 0, 0], libc::EPERM),
    ("umount2", libc::SYS_umount2, [0, 0, 0], libc::EPERM),
    ("pivot_root", libc::SYS_pivot_root, [0, 0, 0], libc::EPERM),
    ("open_tree", libc::SYS_open_tree, [-100, 0, 1], libc::EPERM),
    ("move_mount", libc::SYS_move_mount, [0, 0, 0], libc::EPERM),
    ("fsopen", libc::SYS_fsopen, [0, 0, 0], libc::EPERM),
    ("fsconfig", libc::SYS_fsconfig, [0, 0, 0], libc::EPERM),
    ("fsmount", libc::SYS_fsmount, [0, 0, 0], libc::EPERM),
    ("fspick", libc::SYS_fspick, [0, 0, 0], libc::EPERM),
    ("mount_setattr", libc::SYS_mount_setattr, [0, 0, 0], libc::EPERM),
    ("setns", libc::SYS_setns, [0, 0, 0], libc::EPERM),
    ("unshare user", libc::SYS_unshare, [NS, 0, 0], libc::EPERM),
    ("unshare mount", libc::SYS_unshare, [libc::CLONE_NEWNS as libc::c_long, 0, 0], libc::EPERM),
    ("unshare net", libc::SYS_unshare, [libc::CLONE_NEWNET as libc::c_long, 0, 0], libc::EPERM),
    ("clone user", libc::SYS_clone, [NS | libc::SIGCHLD as libc::c_long, 0, 0], libc::EPERM),
    ("clone3", libc::SYS_clone3, [0, 0, 0], libc::ENOSYS),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0], libc::ENOSYS),
    ("io_uring_enter", libc::SYS_io_uring_enter, [0, 0, 0], libc::ENOSYS),
    ("io_uring_register", libc::SYS_io_uring_register, [0, 0, 0], libc::ENOSYS),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0], libc::EPERM),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, [-100, 0, 0], libc::EPERM),
    ("quotactl", libc::SYS_quotactl, [0, 0, 0], libc::EPERM),
    ("init_module", libc::SYS_init_module, [0, 0, 0], libc::EPERM),
    ("finit_module", libc::SYS_finit_module, [0, 0, 0], libc::EPERM),
    ("delete_module", libc::SYS_delete_module, [0, 0, 0], libc::EPERM),
    ("kexec_load", libc::SYS_kexec_load, [0, 0, 0], libc::EPERM),
    ("reboot", libc::SYS_reboot, [0, 0, 0], libc::EPERM),
    ("swapon", libc::SYS_swapon, [0, 0, 0], libc::EPERM),
    ("acct", libc::SYS_acct, [0, 0, 0], libc::EPERM),
    ("settimeofday", libc::SYS_settimeofday, [0, 0, 0], libc::EPERM),
    ("clock_settime", libc::SYS_clock_settime, [0, 0, 0], libc::EPERM),
    ("personality", libc::SYS_personality, [0x0040_0000, 0, 0], libc::EPERM),
    ("ioctl TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0], libc::EPERM),
    ("socket vsock", libc::SYS_socket, [libc::AF_VSOCK as libc::c_long, 1, 0], libc::EAFNOSUPPORT),
    ("socket packet", libc::SYS_socket, [libc::AF_PACKET as libc::c_long, 2, 0], libc::EAFNOSUPPORT),
    ("socket alg", libc::SYS_socket, [libc::AF_ALG as libc::c_long, 5, 0], libc::EAFNOSUPPORT),
    ("socket netfilter", libc::SYS_socket, [libc::AF_NETLINK as libc::c_long, 2, 12], libc::EAFNOSUPPORT),
    ("socket raw", libc::SYS_socket, [libc::AF_INET as libc::c_long, 3, 1], libc::EPERM),
    // What programs need is still there.
    ("socket inet", libc::SYS_socket, [libc::AF_INET as libc::c_long, 1, 0], 0),
    ("socket unix", libc::SYS_socket, [libc::AF_UNIX as libc::c_long, 1, 0], 0),
    ("socket route", libc::SYS_socket, [libc::AF_NETLINK as libc::c_long, 3, 0], 0),
    ("unshare files", libc::SYS_unshare, [libc::CLONE_FILES as libc::c_long, 0, 0], 0),
    ("personality query", libc::SYS_personality, [0xffff_ffff, 0, 0], 0),
    #[cfg(target_arch = "x86_64")]
    ("x32 getpid", 0x4000_0000 + libc::SYS_getpid, [0, 0, 0], libc::ENOSYS),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl, [3, 0, 0], libc::EPERM),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt, [0, 0, 0], libc::EPERM),
];

#[tokio::test]
async fn forbidden_calls_answer_as_listed() {
    if !isolates() {
        return;
    }
    let expected: Vec<String> = CALLS.iter().map(|(name, _, _, errno)| format!("{name} {errno}")).collect();
    for privileges in [Privileges::None, Privileges::Container] {
        let mut spec = probe_program("calls");
        spec.user = if privileges == Privileges::None { spec.user } else { (0, 0) };
        spec.privileges = privileges;
        let out = run(spec).await.ok();
        let found: Vec<&str> = out.lines().collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{privileges:?}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

#[tokio::test]
async fn sees_tools_and_nothing_of_anybody() {
    if !isolates() {
        return;
    }
    let secret = Work::new((0, 0));
    std::fs::write(secret.0.join("data"), "secret").unwrap();
    let script = format!(
        "ls /; echo --; ls -A /home /root /var /tmp; echo --; \
         for p in {0} /etc/shadow /etc/ssh /var/lib /run/docker.sock /sys/kernel /home/*; do test -e $p && echo FOUND $p; done; \
         touch /x /usr/x /etc/x /dev/x 2>&1 | grep -c Read-only; touch {0}.x /var/tmp/x && echo private",
        secret.0.display()
    );
    let out = run(shell(&script)).await.ok();
    assert!(!out.contains("FOUND"), "{out}");
    assert!(out.contains("\n4\nprivate\n"), "{out}");
    let root: Vec<&str> = out.split("--").next().unwrap().lines().collect();
    let known = "bin dev etc home lib lib32 lib64 libx32 mnt opt proc root run sbin sys tmp usr var";
    assert!(root.iter().all(|name| known.split(' ').any(|known| known == *name)), "{root:?}");
    assert!(!secret.0.with_extension("x").exists());
}

#[tokio::test]
async fn proc_shows_only_the_sandbox() {
    if !isolates() {
        return;
    }
    let script = "ls /proc | grep -c '^[0-9]'; \
        for f in environ mem maps root/etc fd/0 exe; do cat /proc/1/$f >/dev/null 2>&1 && echo OPEN $f; done; \
        ls /proc/1/root/ /proc/1/fd/ 2>/dev/null | head -3; \
        cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; \
        (echo x > /proc/sysrq-trigger) 2>/dev/null; (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo WROTE; \
        (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo WROTE; ls /sys | wc -l; \
        kill -0 -1 2>/dev/null; ls /proc/acpi /proc/scsi 2>/dev/null | grep -v :; hostname 2>/dev/null || cat /proc/sys/kernel/hostname";
    let mut spec = shell(script);
    spec.hostname = "box".to_owned();
    let out = run(spec).await.ok();
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    let processes: usize = lines[0].parse().unwrap();
    assert!(processes <= 5, "{out}");
    assert_eq!(lines[1..], ["0", "0", "box"], "{out}");
}

#[tokio::test]
async fn has_no_rights_and_can_get_none() {
    if !isolates() {
        return;
    }
    let script = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t '";
    let none = "0000000000000000";
    let expected =
        format!("CapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nCapBnd:{none}\nCapAmb:{none}\nNoNewPrivs:1\nSeccomp:2\n");
    for user in [id_map().ordinary(), (0, 0)] {
        let mut spec = shell(script);
        spec.user = user;
        assert_eq!(run(spec).await.ok(), expected, "{user:?}");
    }
    let mut spec = shell(script);
    spec.user = (0, 0);
    spec.privileges = Privileges::Container;
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    assert_eq!(
        run(spec).await.ok(),
        expected.replacen(
            "CapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:0000000000000000",
            "CapPrm:00000000800405fb\nCapEff:00000000800405fb\nCapBnd:00000000800405fb",
            1
        )
    );
}

#[tokio::test]
async fn the_machine_cannot_be_reached() {
    if !isolates() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("towpath-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    for target in [listener.local_addr().unwrap().to_string(), format!("@{name}"), "169.254.169.254:80".to_owned()] {
        let mut spec = probe_program("reach");
        spec.argv.push(target.clone());
        assert_eq!(run(spec).await.ok(), "false\n", "{target}");
    }
}

#[tokio::test]
async fn inherits_no_descriptor_and_no_variable() {
    if !isolates() {
        return;
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    // Inherited by every program this process starts from now on, unless somebody closes it.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    assert!(file.as_raw_fd() > 2);
    assert_eq!(run(probe_program("descriptors")).await.ok(), "0\n1\n2\n");
    let mut spec = shell("env | grep -v ^PWD= | grep -v ^_=");
    spec.env = vec![("A".to_owned(), "b c".to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let out = run(spec).await.ok();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    lines.retain(|line| !line.starts_with("SHLVL="));
    assert_eq!(lines, ["A=b c", "PATH=/usr/bin:/bin"]);
}

#[tokio::test]
async fn working_directories_do_not_lead_out() {
    if !isolates() {
        return;
    }
    for number in 3..24 {
        let mut spec = host(["/bin/pwd"]);
        spec.cwd = format!("/proc/self/fd/{number}");
        let done = run(spec).await;
        assert!(matches!(done.exit, Err(SandboxError::Setup { .. })), "{number}: {:?} {}", done.exit, done.out);
    }
}

#[tokio::test]
async fn refuses_what_does_not_exist_by_name() {
    if !isolates() {
        return;
    }
    let mut spec = shell("id -u");
    spec.user = (70_000, 70_000);
    match (run(spec).await.exit, &probe().tier) {
        (Err(SandboxError::Refused(message)), _) => assert!(message.contains("70000"), "{message}"),
        other => panic!("{other:?}"),
    }
    if probe().tier == Tier::SingleId {
        let mut spec = shell("id -u");
        spec.user = (70_000, 70_000);
        spec.alias_user = true;
        assert_eq!(run(spec).await.ok(), "70000\n");
    }
    let work = Work::new((0, 0));
    std::os::unix::fs::symlink("/etc", work.0.join("link")).unwrap();
    let mut spec = shell("true");
    spec.mounts.push(bind(&work.0.join("link"), "/mnt/x", false));
    assert!(matches!(run(spec).await.exit, Err(SandboxError::Setup { .. })));
    let mut spec = shell("true");
    spec.mounts.push(bind(&work.0.join("missing"), "/mnt/x", false));
    match run(spec).await.exit {
        Err(SandboxError::Setup { what, .. }) => assert!(what.contains("missing"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn mounts_are_what_they_say() {
    if !isolates() {
        return;
    }
    let user = id_map().ordinary();
    let (writable, fixed) = (Work::new(user), Work::new(user));
    std::fs::write(fixed.0.join("f"), "kept").unwrap();
    let mut spec = shell(
        "echo made > /work/new; cat /fixed/f; echo; echo x > /fixed/f; cat /run/key; stat -c %a /run/key; df -B1 --output=size /small | tail -1",
    );
    spec.mounts = vec![
        bind(&writable.0, "/work", false),
        bind(&fixed.0, "/fixed", true),
        Mount {
            source: MountSource::Secret { content: Secret(b"s3cret\n".to_vec()), mode: 0o400, owner: user },
            target: "/run/key".to_owned(),
        },
        Mount { source: MountSource::Tmpfs { bytes: 1 << 20 }, target: "/small".to_owned() },
    ];
    assert!(!format!("{spec:?}").contains("s3cret"));
    let done = run(spec).await;
    assert!(done.err.contains("Read-only"), "{}", done.err);
    let words: Vec<&str> = done.out.split_whitespace().collect();
    assert_eq!(words, ["kept", "s3cret", "400", "1048576"]);
    assert_eq!(std::fs::read_to_string(writable.0.join("new")).unwrap(), "made\n");
    assert_eq!(std::fs::read_to_string(fixed.0.join("f")).unwrap(), "kept");
    use std::os::unix::fs::MetadataExt as _;
    let made = std::fs::metadata(writable.0.join("new")).unwrap();
    assert_eq!(made.uid(), id_map().user(user.0).unwrap_or(id_map().outside));
}

#[tokio::test]
async fn knows_its_user() {
    if !isolates() {
        return;
    }
    let user = id_map().ordinary();
    let out = run(shell("id -u; id -g; whoami >/dev/null && echo named; umask")).await.ok();
    assert_eq!(out, format!("{}\n{}\nnamed\n0022\n", user.0, user.1));
    let mut spec = shell("ls -d /opt/x");
    let shown = Work::new((0, 0));
    spec.root = Root::Host { also: vec![shown.0.clone()] };
    spec.argv = vec!["ls".to_owned(), "-d".to_owned(), shown.0.display().to_string()];
    run(spec).await.ok();
}
