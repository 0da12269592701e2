"""The filter on system calls of every jail on Linux (seccomp(2)).

Three kinds of system calls:

- allowed: those that an ordinary program needs. The list is that of container engines for a container
  without capabilities (github.com/moby/profiles, seccomp/default.json), less those that no Go program uses;
- refused, with EPERM: those that we know and do not allow;
- unknown, with ENOSYS, as on an older kernel, so that libc and Go's runtime fall back to an older call.
  clone3 is treated as unknown, because its flags are in memory that a filter cannot read; so are all calls
  of x32.

A system call of a foreign architecture (32-bit ones) ends the process.

Some calls are allowed with certain arguments only: clone without new namespaces; socket and socketpair of
the families and protocols that functions use; ioctl without those that type into a terminal; personality
only if it changes nothing. The filter compares the lower 32 bits of an argument, which is all that the
kernel reads of these arguments (comparing 64 bits caused CVE-2019-10063).

libseccomp tells us the numbers of the names. We make the program ourselves, because its order matters: the
kernel runs each new filter once for every number (to cache the calls that are always allowed), and each
jail loads the filter anew, bwrap even twice. A binary search over runs of numbers with the same verdict
loads in a quarter of the time of libseccomp's own program.
"""

from __future__ import annotations

import errno
import platform
import struct

from skyisland.errors import HostUnfit
from skyisland.status import Capability

REMEDY = "install libseccomp: apt install libseccomp2, dnf install libseccomp, apk add libseccomp"

ALLOWED = """
accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area
getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
ioprio_get kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack
membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2
prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg
recvmsg removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list
set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt
shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
"""
"""Names of every architecture. `_numbers` leaves out those that a machine does not have."""

REFUSED = """
_sysctl acct add_key adjtimex afs_syscall bpf chroot clock_adjtime clock_settime create_module delete_module
fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy
getpmsg init_module io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter
io_uring_register io_uring_setup ioperm iopl ioprio_set kcmp kexec_file_load kexec_load keyctl
lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount mount_setattr move_mount move_pages
name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root
process_madvise process_mrelease process_vm_readv process_vm_writev ptrace putpmsg query_module quotactl
quotactl_fd reboot remap_file_pages request_key security set_mempolicy set_mempolicy_home_node setdomainname
sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall umount2 unshare uselib userfaultfd ustat
vhangup vserver
"""

MACHINES = {"x86_64": 0xC000003E, "amd64": 0xC000003E, "aarch64": 0xC00000B7, "arm64": 0xC00000B7}
"""AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 by the names of `uname -m`; linux/audit.h."""

NUMBER, ARCHITECTURE = 0, 4
ARGUMENTS = (16, 24, 32)
"""Offsets in struct seccomp_data (linux/seccomp.h): the number of the system call, the architecture, the
lower halves of the first three arguments. All of `MACHINES` are little-endian."""

Code = tuple[tuple[int, int, int, int], ...]
"""BPF instructions: operation, jump if true, jump if false, constant; linux/bpf_common.h."""

LOAD, RETURN, KEEP_BITS = 0x20, 0x06, 0x54
EQUALS, AT_LEAST, ANY_BIT = 0x15, 0x35, 0x45
"""BPF operations: LD|W|ABS, RET|K, ALU|AND|K; JMP|JEQ|K, JMP|JGE|K, JMP|JSET|K."""
RET_ERRNO, RET_ALLOW, RET_KILL_PROCESS = 0x00050000, 0x7FFF0000, 0x80000000
"""SECCOMP_RET_…, linux/seccomp.h."""


def _load(offset: int) -> Code:
    """Load 32 bits of struct seccomp_data."""
    return ((LOAD, 0, 0, offset),)


def _return(verdict: int) -> Code:
    return ((RETURN, 0, 0, verdict),)


def _refuse(error: int) -> Code:
    return _return(RET_ERRNO | error)


def _when(test: int, constant: int, then: Code) -> Code:
    """Run `then`, which returns, if the test of the loaded value is true; otherwise go on behind it."""
    return ((test, 0, len(then), constant), *then)


ALLOW = _return(RET_ALLOW)
KILL = _return(RET_KILL_PROCESS)
UNKNOWN = _refuse(errno.ENOSYS)


def _one_of(values: tuple[int, ...], otherwise: Code) -> Code:
    """Allow if the loaded value is one of these."""
    return sum((_when(EQUALS, value, ALLOW) for value in values), ()) + otherwise


NEW_NAMESPACES = 0x7E020000
"""The flags CLONE_NEW… of mount, cgroup, uts, ipc, user, pid and net; linux/sched.h. (CLONE_NEWTIME is no
flag of clone: its bit belongs to the exit signal there.)"""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_RAW = 3
"""Types from here on are refused; 1 and 2 are streams and datagrams."""
PROTOCOLS = (0, 1, 6, 17, 58)
"""The default, ICMP, TCP, UDP, ICMPv6. For others (SCTP, DCCP …) the kernel would load a module."""
NETLINK_ROUTE = 0
"""Go lists interfaces and addresses by this protocol."""

INTERNET: Code = (
    *_load(ARGUMENTS[1]),
    (KEEP_BITS, 0, 0, 0xF),  # SOCK_TYPE_MASK: the type without SOCK_NONBLOCK and SOCK_CLOEXEC
    *_when(AT_LEAST, SOCK_RAW, _refuse(errno.EPERM)),
    *_load(ARGUMENTS[2]),
    *_one_of(PROTOCOLS, _refuse(errno.EPROTONOSUPPORT)),
)
NETLINK: Code = (
    *_load(ARGUMENTS[2]),
    *_one_of((NETLINK_ROUTE,), _refuse(errno.EPROTONOSUPPORT)),
)

TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
"""They put a byte into a terminal's input, paste a console's selection there, and change a terminal's line
discipline (which loads a kernel module)."""

BY_ARGUMENTS: dict[str, Code] = {
    "clone": (
        *_load(ARGUMENTS[0]),
        *_when(ANY_BIT, NEW_NAMESPACES, _refuse(errno.EPERM)),
        *ALLOW,
    ),
    "ioctl": (
        *_load(ARGUMENTS[1]),
        *_when(EQUALS, TIOCSTI, _refuse(errno.EPERM)),
        *_when(EQUALS, TIOCLINUX, _refuse(errno.EPERM)),
        *_when(EQUALS, TIOCSETD, _refuse(errno.EPERM)),
        *ALLOW,
    ),
    "personality": (
        *_load(ARGUMENTS[0]),
        *_one_of((0, 0xFFFFFFFF), _refuse(errno.EPERM)),  # the default, and the question which one it is
    ),
    "socket": (
        *_load(ARGUMENTS[0]),
        *_when(EQUALS, AF_UNIX, ALLOW),
        *_when(EQUALS, AF_INET, INTERNET),
        *_when(EQUALS, AF_INET6, INTERNET),
        *_when(EQUALS, AF_NETLINK, NETLINK),
        *_refuse(errno.EAFNOSUPPORT),
    ),
    "socketpair": (
        *_load(ARGUMENTS[0]),
        *_one_of((AF_UNIX,), _refuse(errno.EAFNOSUPPORT)),
    ),
}


def seccomp_capability() -> Capability:
    """What a driver says whose jails load the filter; both on Linux do."""
    how = "a filter on system calls, no new privileges, no capabilities"
    return Capability(name="seccomp", enforced=True, how=how)


def compile_filter(machine: str | None = None) -> bytes:
    """The filter as a BPF program (struct sock_filter[]), for one of `MACHINES`; by default for this one.

    The first call loads libseccomp from the disk: call it in a thread.

    Raises:
        HostUnfit: libseccomp is missing, or there is no filter for such a machine. Then no jail may run.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        machines = ", ".join(sorted(MACHINES))
        raise HostUnfit(f"there is no filter on system calls for a {machine} machine, only for {machines}")
    numbers = _numbers(MACHINES[machine])
    code = (
        *_load(ARCHITECTURE),
        (EQUALS, len(KILL), 0, MACHINES[machine]),
        *KILL,
        *_load(NUMBER),
        *_search(_runs(numbers)),
    )
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _numbers(architecture: int) -> dict[int, Code]:
    """The code for each known system call, by its number."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise HostUnfit(f"no filter on system calls: {error}; {REMEDY}") from error
    codes = {
        **dict.fromkeys(ALLOWED.split(), ALLOW),
        **dict.fromkeys(REFUSED.split(), _refuse(errno.EPERM)),
        **BY_ARGUMENTS,
    }
    numbers = {}
    for name, code in codes.items():
        try:
            number = pyseccomp.resolve_syscall(architecture, name)
        except OSError:
            continue  # newer than this libseccomp: unknown to the filter as well
        if number >= 0:  # libseccomp gives a negative number to a call that this machine lacks
            numbers[number] = code
    return numbers


def _runs(numbers: dict[int, Code]) -> list[tuple[int, Code]]:
    """First number and code of each run of numbers with equal code, from 0 on; the last run is unknown."""
    runs: list[tuple[int, Code]] = []
    for number in range(max(numbers) + 2):
        code = numbers.get(number, UNKNOWN)
        if not runs or runs[-1][1] != code:
            runs.append((number, code))
    return runs


def _search(runs: list[tuple[int, Code]]) -> Code:
    """A binary search for the run of the loaded number. A jump is 8 bits wide, 255 instructions forward at
    most; struct.pack refuses a longer one."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    below = _search(runs[:middle])
    return ((AT_LEAST, len(below), 0, runs[middle][0]), *below, *_search(runs[middle:]))
