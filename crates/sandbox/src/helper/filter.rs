//! The system call filter: what a sandboxed command can never ask of the kernel, whatever rights it has inside.
//!
//! Everything not listed is allowed. Calls that programs try and do without answer ENOSYS, so that they fall back;
//! the others answer EPERM. A call by another architecture's numbers ends the process.

use std::io;

use seccompiler::sock_filter;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call filter knows x86_64 and aarch64");

/// Numbers from here on are those of x32 on x86_64.
#[cfg(target_arch = "x86_64")]
const FOREIGN: Option<u32> = Some(0x4000_0000);
#[cfg(target_arch = "aarch64")]
const FOREIGN: Option<u32> = None;

/// Calls that answer EPERM.
pub(crate) const FORBIDDEN: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Keys, tracing, programs in the kernel.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_syslog,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    STATMOUNT,
    LISTMOUNT,
    OPEN_TREE_ATTR,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_nfsservctl,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Calls that answer ENOSYS. `clone3` hides its flags in memory; the C libraries then use `clone`.
pub(crate) const UNKNOWN: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

// Numbers that are the same everywhere and newer than the names in libc.
const QUOTACTL_FD: libc::c_long = 443;
const STATMOUNT: libc::c_long = 457;
const LISTMOUNT: libc::c_long = 458;
const OPEN_TREE_ATTR: libc::c_long = 467;

/// The flags of `clone` and `unshare` that make namespaces.
pub(crate) const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
/// CLONE_NEWTIME shares its bit with the exit signal of `clone`, and is `unshare`'s alone.
const NEWTIME: u32 = 0x80;

/// Terminal controls that put characters into somebody's input.
const TERMINAL: [u32; 2] = [0x5412, 0x541c];
/// Personalities that only change what `uname` says.
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// Installs the filter for this process and all it starts.
pub(crate) fn install() -> io::Result<()> {
    seccompiler::apply_filter(&program()).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    })
}

const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;

fn error(errno: i32) -> u32 {
    0x0005_0000 | errno.unsigned_abs()
}

/// The lower half of an argument, from 0; both machines have it first.
fn argument(index: u32) -> u32 {
    16 + 8 * index
}

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A test; jumps are counted from the next instruction.
fn test(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn number(call: libc::c_long) -> u32 {
    // System call numbers are small.
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn program() -> Vec<sock_filter> {
    let mut list = vec![op(LOAD, MACHINE), test(IF_EQUAL, ARCHITECTURE, 1, 0), op(RETURN, KILL), op(LOAD, NUMBER)];
    if let Some(first) = FOREIGN {
        list.extend([test(IF_AT_LEAST, first, 0, 1), op(RETURN, error(libc::ENOSYS))]);
    }
    for (calls, errno) in [(FORBIDDEN, libc::EPERM), (UNKNOWN, libc::ENOSYS)] {
        for call in calls {
            list.extend([test(IF_EQUAL, number(*call), 0, 1), op(RETURN, error(errno))]);
        }
    }
    any_bit(&mut list, libc::SYS_clone, NAMESPACES);
    any_bit(&mut list, libc::SYS_unshare, NAMESPACES | NEWTIME);
    argument_in(&mut list, libc::SYS_ioctl, 1, &TERMINAL, Listed::Refused);
    argument_in(&mut list, libc::SYS_personality, 0, &PERSONALITIES, Listed::Allowed);
    sockets(&mut list);
    list.push(op(RETURN, ALLOW));
    list
}

/// Refuses `call` when its first argument has one of the bits.
fn any_bit(list: &mut Vec<sock_filter>, call: libc::c_long, bits: u32) {
    list.extend([
        test(IF_EQUAL, number(call), 0, 4),
        op(LOAD, argument(0)),
        test(IF_ANY_BIT, bits, 0, 1),
        op(RETURN, error(libc::EPERM)),
        op(RETURN, ALLOW),
    ]);
}

/// What happens to a call whose argument is in the list.
enum Listed {
    Allowed,
    Refused,
}

fn argument_in(list: &mut Vec<sock_filter>, call: libc::c_long, index: u32, values: &[u32], listed: Listed) {
    let refuse = error(libc::EPERM);
    let (hit, miss) = match listed {
        Listed::Allowed => (ALLOW, refuse),
        Listed::Refused => (refuse, ALLOW),
    };
    let length = u8::try_from(values.len() * 2 + 2).unwrap_or(u8::MAX);
    list.extend([test(IF_EQUAL, number(call), 0, length), op(LOAD, argument(index))]);
    for value in values {
        list.extend([test(IF_EQUAL, *value, 0, 1), op(RETURN, hit)]);
    }
    list.push(op(RETURN, miss));
}

/// Sockets of the local machine, of IP, and for asking about routes and addresses; no others (vsock, raw, crypto …).
fn sockets(list: &mut Vec<sock_filter>) {
    let plain = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(i32::unsigned_abs);
    list.extend([
        test(IF_EQUAL, number(libc::SYS_socket), 0, 9),
        op(LOAD, argument(0)),
        test(IF_EQUAL, plain[0], 6, 0),
        test(IF_EQUAL, plain[1], 5, 0),
        test(IF_EQUAL, plain[2], 4, 0),
        test(IF_EQUAL, libc::AF_NETLINK.unsigned_abs(), 0, 2),
        op(LOAD, argument(2)),
        test(IF_EQUAL, libc::NETLINK_ROUTE.unsigned_abs(), 1, 0),
        op(RETURN, error(libc::EAFNOSUPPORT)),
        op(RETURN, ALLOW),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(machine: u32, call: u32, arguments: [u32; 3]) -> u32 {
        let program = program();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            match step.code {
                LOAD if step.k == NUMBER => loaded = call,
                LOAD if step.k == MACHINE => loaded = machine,
                LOAD => loaded = arguments[(step.k as usize - 16) / 8],
                IF_EQUAL => at += jump(loaded == step.k),
                IF_AT_LEAST => at += jump(loaded >= step.k),
                IF_ANY_BIT => at += jump(loaded & step.k != 0),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn decides_by_number_and_arguments() {
        let eperm = error(libc::EPERM);
        let sys = |call, arguments| run(ARCHITECTURE, number(call), arguments);
        assert_eq!(run(0x4000_0003, 1, [0; 3]), KILL);
        assert_eq!(sys(libc::SYS_read, [0; 3]), ALLOW);
        assert_eq!(sys(libc::SYS_keyctl, [0; 3]), eperm);
        assert_eq!(sys(libc::SYS_clone3, [0; 3]), error(libc::ENOSYS));
        assert_eq!(sys(libc::SYS_clone, [libc::SIGCHLD.unsigned_abs(), 0, 0]), ALLOW);
        assert_eq!(sys(libc::SYS_clone, [libc::CLONE_NEWUSER.unsigned_abs(), 0, 0]), eperm);
        assert_eq!(sys(libc::SYS_unshare, [libc::CLONE_FILES.unsigned_abs(), 0, 0]), ALLOW);
        assert_eq!(sys(libc::SYS_unshare, [NEWTIME, 0, 0]), eperm);
        assert_eq!(sys(libc::SYS_ioctl, [0, 0x5412, 0]), eperm);
        assert_eq!(sys(libc::SYS_ioctl, [0, 0x5401, 0]), ALLOW);
        assert_eq!(sys(libc::SYS_personality, [0xffff_ffff, 0, 0]), ALLOW);
        assert_eq!(sys(libc::SYS_personality, [0x0040_0000, 0, 0]), eperm);
        for (family, protocol, allowed) in [
            (libc::AF_UNIX, 0, true),
            (libc::AF_INET, 0, true),
            (libc::AF_INET6, 6, true),
            (libc::AF_NETLINK, 0, true),
            (libc::AF_NETLINK, 12, false),
            (libc::AF_VSOCK, 0, false),
            (libc::AF_PACKET, 0, false),
            (libc::AF_ALG, 0, false),
        ] {
            let expected = if allowed { ALLOW } else { error(libc::EAFNOSUPPORT) };
            assert_eq!(sys(libc::SYS_socket, [family.unsigned_abs(), 0, protocol]), expected, "{family} {protocol}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn refuses_the_other_numbering() {
        assert_eq!(run(ARCHITECTURE, 0x4000_0000 | number(libc::SYS_bpf), [0; 3]), error(libc::ENOSYS));
    }
}
