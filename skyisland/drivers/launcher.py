"""The launcher: a small process of root that makes jails of namespaces, one fork each.

It is a program of its own (`python -I -S launcher.py FD`), started by `namespaces.py`, because a process
of a few megabytes and one thread forks several times faster than the island, may be born into a cgroup,
and has no secret in its memory. It reads orders from a SOCK_SEQPACKET socket and answers each with the
jail's init as pid and pidfd; everything else a jail tells goes through its own status pipe.

Theory of operation, for each order:

    launcher ── clone(new namespaces) ──▶ init ── fork ──▶ the function

    init      joins its cgroups (before anything can be charged elsewhere), lays its root
              (`lay_root`), drops what root can do (`confine`), forks the function, reaps whatever is
              orphaned in the jail, reports the function's end, and dies; with it, as the kernel does for
              every process namespace, all that is left in the jail.
    function  sees descriptors 0 to 2 and executes the binary.

There is no user namespace: init and function are an unprivileged uid of the host, with no capability,
none to be gained (no new privileges, empty bounding set, every mount nosuid) and the system call filter.

Status pipe, one record a line: `!text` it could not be made; `+` the function is started; `d` it failed,
and its disk was full then; `e3` it ended with exit code 3; `s9` by signal 9. The end of the pipe without
either: init was killed.

Init dies with the launcher and the launcher with the island (`PR_SET_PDEATHSIG`, and the end of the
socket).
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import gc
import json
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x0002_0000, 0x0200_0000, 0x0400_0000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x0800_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
CALLS = {
    "x86_64": {"clone": 56, "pivot_root": 155},
    "aarch64": {"clone": 220, "pivot_root": 41},
}
"""Numbers of system calls that the C library has no plain function for."""
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9))
LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
FULL_BYTES = 128 << 10
"""A disk with less room than this counts as full: ZFS writes records of that size."""
ORDER_BYTES = 1 << 17
FDS = 4
"""That come with an order: standard input, output, error, status pipe."""
STATUS = 3
OURS = (signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that the interpreter, or we, treat otherwise than the system does; exec would pass that on."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Failed(Exception):
    """A step of making a jail did not work; the text reaches the operator."""


def check(result: int, what: str) -> int:
    if result < 0:
        raise Failed(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    result = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind) if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    check(result, f"mount {source} on {target}")


class Launcher:
    """What outlives the orders: the socket, the filter, and the folder where roots are laid."""

    def __init__(self, link: socket.socket, scratch: str, program: bytes) -> None:
        self.link = link
        self.scratch = scratch
        """An empty folder; each jail mounts its own scratch tmpfs over it, in its own namespace."""
        self.devices = f"{scratch}.dev"
        self.call = CALLS[platform.machine()]
        self._instructions = ctypes.create_string_buffer(program, len(program))
        self._filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._instructions))

    def prepare(self) -> None:
        """A mount namespace of our own, so that no mount of a jail ever shows on the host; the devices."""
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        check(libc.unshare(CLONE_NEWNS), "unshare")
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", self.devices, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
        os.umask(0)
        for name, major, minor in DEVICES:
            os.mknod(f"{self.devices}/{name}", 0o020666, os.makedev(major, minor))
        for name, end in LINKS:
            os.symlink(f"/proc/self/fd{end}", f"{self.devices}/{name}")
        mount("none", self.devices, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC)
        for capability in range(64):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                break
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        os.umask(0o022)

    def serve(self) -> None:
        """Carry out orders until the island closes the socket; wait for inits that have ended."""
        wake_r, wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(wake_r, select.POLLIN)
        # Forks share memory for as long as nobody writes to it, and a collector writes.
        gc.collect()
        gc.freeze()
        gc.disable()
        while True:
            for fd, _ in poll.poll():
                if fd == wake_r:
                    os.read(wake_r, 4096)
                    self._reap()
                elif not self._take_order():
                    return

    def _reap(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def _take_order(self) -> bool:
        data, ancillary, _, _ = self.link.recvmsg(ORDER_BYTES, socket.CMSG_SPACE(FDS * 4))
        if not data:
            return False
        fds = array.array("i")
        for _level, _kind, payload in ancillary:
            fds.frombytes(payload)
        pidfd = -1
        try:
            order = json.loads(data)
            pid = self._clone(order, list(fds))
            pidfd = os.pidfd_open(pid)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", pidfd))]
            self.link.sendmsg([json.dumps({"name": order["name"], "pid": pid}).encode()], rights)
        except (Failed, OSError) as failure:
            answer = {"name": order["name"], "error": str(failure)}
            self.link.send(json.dumps(answer).encode())
        finally:
            for fd in (*fds, *((pidfd,) if pidfd >= 0 else ())):
                os.close(fd)
        return True

    def _clone(self, order: dict[str, Any], fds: list[int]) -> int:
        """Fork init into its namespaces. clone(2) as a plain system call: there is one thread, and none
        of the C library's own preparations for a fork are needed."""
        spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
        if order["network"] != "host":
            spaces |= CLONE_NEWNET
        flags = ctypes.c_ulong(spaces | signal.SIGCHLD)
        zero = ctypes.c_ulong(0)
        pid = int(libc.syscall(ctypes.c_long(self.call["clone"]), flags, zero, zero, zero, zero))
        check(pid, "clone")
        if pid == 0:
            self._init(order, fds)
        return pid

    # In the jail

    def _init(self, order: dict[str, Any], fds: list[int]) -> NoReturn:
        """Never returns into the launcher's loop, whatever happens."""
        code = 125
        try:
            _arrange(fds)
            signal.set_wakeup_fd(-1)
            for number in OURS:
                signal.signal(number, signal.SIG_DFL)
            self._join(order)
            self._lay_root(order)
            self._confine(order)
            function = self._execute(order)
            os.closerange(0, STATUS)
            os.write(STATUS, b"+\n")
            code = self._wait(function)
        except BaseException as failure:
            # Whatever it is, it is told and ends here: this is a copy of the launcher.
            os.write(STATUS, f"!{failure}\n".encode())
        finally:
            os._exit(code)

    def _join(self, order: dict[str, Any]) -> None:
        for path in order["cgroups"]:
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)
        check(libc.unshare(CLONE_NEWCGROUP), "unshare the cgroups")
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"1000")  # when the host runs out of memory, jails go before the island
        os.close(fd)

    def _lay_root(self, order: dict[str, Any]) -> None:
        scratch = self.scratch
        root = f"{scratch}/root"
        mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, order["scratch"])
        for folder in ("root", "upper", "upper/tmp", "work"):
            os.mkdir(f"{scratch}/{folder}")
        os.chmod(f"{scratch}/upper/tmp", 0o1777)  # noqa: S103 - the jail's own
        if order["clone"]:
            mount(order["clone"], root, None, MS_BIND | MS_REC)
        else:
            layers = f"lowerdir={_plain(order['base'])},upperdir={_plain(scratch)}/upper,"
            layers += f"workdir={_plain(scratch)}/work"
            mount("overlay", root, "overlay", MS_NOSUID | MS_NODEV, layers)
        mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount(self.devices, f"{root}/dev", None, MS_BIND)
        for source, target, writable in order["mounts"]:
            self._show(source, f"{root}{target}", writable)
        os.chdir(root)
        here = b"."
        check(
            int(libc.syscall(ctypes.c_long(self.call["pivot_root"]), here, here)),
            "pivot_root",
        )
        # Old root and new lie on one another now; the upper one is the old.
        check(libc.umount2(here, MNT_DETACH), "leave the old root")
        os.chdir("/")
        socket.sethostname(order["name"])
        if order["network"] != "host":
            self._raise_loopback()

    def _show(self, source: str, target: str, writable: bool) -> None:
        """A host path in the jail; a remount is what makes a bind mount read-only."""
        if not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        mount(source, target, None, MS_BIND)
        flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV
        mount("none", target, None, flags if writable else flags | MS_RDONLY)

    def _raise_loopback(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            request = struct.pack("16sh14x", b"lo", IFF_UP)
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)

    def _confine(self, order: dict[str, Any]) -> None:
        """From here on nothing of root is left, and nothing of it can come back."""
        for name, value in order["rlimits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        os.setsid()
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])  # every capability goes with uid 0
        # A change of uid forgets this wish, so it comes after.
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the launcher")
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._filter, 0, 0), "load the filter")

    def _execute(self, order: dict[str, Any]) -> int:
        """Start the function; vfork, so that init's memory is not copied once more."""
        os.chdir(order["cwd"])
        try:
            return os.posix_spawn(order["argv"][0], order["argv"], order["env"])
        except OSError as failure:
            raise Failed(f"cannot execute {order['argv'][0]}: {failure.strerror}") from failure

    def _wait(self, function: int) -> int:
        """Reap until the function has ended, and tell how."""
        while True:
            pid, how = os.wait()
            if pid == function:
                break
        if how:
            disk = os.statvfs("/")
            if disk.f_bavail * disk.f_frsize < FULL_BYTES or disk.f_favail == 0:
                os.write(STATUS, b"d\n")
        if os.WIFSIGNALED(how):
            os.write(STATUS, f"s{os.WTERMSIG(how)}\n".encode())
        else:
            os.write(STATUS, f"e{os.WEXITSTATUS(how)}\n".encode())
        return 0


def _plain(path: str) -> str:
    """A path among overlayfs options, where three characters have a meaning."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _arrange(fds: list[int]) -> None:
    """Make the four descriptors of an order 0 to 3, the last closed by exec, and close all others."""
    aloft = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    for number, fd in enumerate(aloft):
        os.dup2(fd, number, inheritable=number != STATUS)
    os.closerange(STATUS + 1, 4096)


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    setup = json.loads(link.recv(ORDER_BYTES))
    launcher = Launcher(link, setup["scratch"], bytes.fromhex(setup["filter"]))
    try:
        launcher.prepare()
    except (Failed, OSError) as failure:
        link.send(json.dumps({"error": str(failure)}).encode())
        sys.exit(1)
    link.send(b"{}")
    launcher.serve()


if __name__ == "__main__":
    main()
