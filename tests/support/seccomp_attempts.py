"""Tries system calls that a jail must not have, and prints the errno of each as JSON (0: it worked).

Run as a program of its own, with the file of a filter as argument to load it first. Each attempt is
made with arguments that do no harm where it works, or fail after the kernel's check of rights.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable

import pyseccomp

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
CLONE_NEWUTS, CLONE_NEWUSER, SIGCHLD = 0x04000000, 0x10000000, signal.SIGCHLD


def call(name: str, *args: object) -> int:
    """The errno of a system call; 0 when it worked."""
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return call_number(number, *args)


def call_number(number: int, *args: object) -> int:
    passed = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    passed += [ctypes.c_long(0)] * (6 - len(passed))
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *passed) == -1 else 0


def process_vm_readv() -> int:
    source = ctypes.create_string_buffer(b"secret")
    target = ctypes.create_string_buffer(6)
    vectors = (ctypes.c_void_p * 4)(ctypes.addressof(target), 6, ctypes.addressof(source), 6)
    at = ctypes.addressof(vectors)
    return call("process_vm_readv", os.getpid(), ctypes.c_void_p(at), 1, ctypes.c_void_p(at + 16), 1, 0)


def by_handle() -> int:
    """Open a folder by its handle, as the escape "shocker" did."""
    handle = ctypes.create_string_buffer(136)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount = ctypes.c_int()
    folder = os.open("/tmp", os.O_RDONLY)
    if failed := call("name_to_handle_at", folder, b"", handle, ctypes.byref(mount), 0x1000):
        return failed
    return call("open_by_handle_at", folder, handle, os.O_RDONLY)


def type_into_terminal() -> int:
    """TIOCSTI into a terminal of our own; the number's upper half is set, which the kernel ignores."""
    keyboard, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        return call("ioctl", terminal, 0x5412 | 1 << 32, b"x")
    finally:
        os.close(keyboard)
        os.close(terminal)


def forked(flags: int) -> int:
    """clone(2) without a stack of its own, which is fork."""
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, "clone")
    ctypes.set_errno(0)
    pid = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, (flags | SIGCHLD, 0, 0, 0, 0)))
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return ctypes.get_errno() if pid == -1 else 0


def made_socket(family: int, kind: int, protocol: int = 0) -> int:
    return call("socket", family, kind, protocol)


def old_entry() -> int:
    """getpid by the 32-bit entry of x86 (`int 0x80`), in a child; 0 when it worked."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    enter = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if enter() == os.getpid() else 1)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def pidfd_getfd() -> int:
    return call("pidfd_getfd", os.pidfd_open(os.getpid()), 0, 0)


NAME = os.uname().nodename.encode()

ATTEMPTS: dict[str, tuple[int, bool, Callable[[], int]]] = {
    # what: errno (or signal) under the filter, whether only root gets further without it, the attempt
    "ptrace": (errno.EPERM, False, lambda: call("ptrace", 0)),
    "process_vm_readv": (errno.EPERM, False, process_vm_readv),
    "pidfd_getfd": (errno.EPERM, False, pidfd_getfd),
    "keyctl": (errno.EPERM, False, lambda: call("keyctl", 0, -3, 1)),
    "add_key": (errno.EPERM, False, lambda: call("add_key", b"user", b"sky-test", b"x", 1, -1)),
    "request_key": (errno.EPERM, False, lambda: call("request_key", b"user", b"sky-none", 0, -1)),
    "personality": (errno.EPERM, False, lambda: call("personality", 0x0040000)),
    "new user namespace": (errno.EPERM, True, lambda: forked(CLONE_NEWUSER)),
    "clone3": (errno.ENOSYS, False, lambda: call("clone3", 0, 0)),
    "socket vsock": (errno.EAFNOSUPPORT, False, lambda: made_socket(40, socket.SOCK_DGRAM, 77)),
    "socket alg": (errno.EAFNOSUPPORT, False, lambda: made_socket(38, socket.SOCK_DGRAM, 77)),
    "socket audit": (errno.EPROTONOSUPPORT, False, lambda: made_socket(16, socket.SOCK_RAW, 16)),
    "open_by_handle_at": (errno.EPERM, True, by_handle),
    "userfaultfd": (errno.EPERM, True, lambda: call("userfaultfd", 0)),
    "io_uring_setup": (errno.EPERM, True, lambda: call("io_uring_setup", 4, 0)),
    "bpf": (errno.EPERM, True, lambda: call("bpf", 0, bytes(120), 120)),
    "perf_event_open": (errno.EPERM, True, lambda: call("perf_event_open", 0, 0, -1, -1, 0)),
    "unshare": (errno.EPERM, True, lambda: call("unshare", CLONE_NEWUTS)),
    "setns": (errno.EPERM, True, lambda: call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0)),
    "clone into a namespace": (errno.EPERM, True, lambda: forked(CLONE_NEWUTS)),
    "mount": (errno.EPERM, True, lambda: call("mount", 0, 0, 0, 0, 0)),
    "umount2": (errno.EPERM, True, lambda: call("umount2", b"/sky-nonexistent", 0)),
    "pivot_root": (errno.EPERM, True, lambda: call("pivot_root", b"/sky-nonexistent", b"/sky-nonexistent")),
    "chroot": (errno.EPERM, True, lambda: call("chroot", b"/")),
    "fsopen": (errno.EPERM, True, lambda: call("fsopen", b"tmpfs", 0)),
    "open_tree": (errno.EPERM, True, lambda: call("open_tree", -100, b"/", 1)),
    "move_mount": (errno.EPERM, True, lambda: call("move_mount", -1, 0, -1, 0, 0)),
    "mount_setattr": (errno.EPERM, True, lambda: call("mount_setattr", -100, b"/", 0, 0, 0)),
    "kexec_load": (errno.EPERM, True, lambda: call("kexec_load", 0, 1 << 20, 0, 0)),
    "init_module": (errno.EPERM, True, lambda: call("init_module", 0, 0, 0)),
    "finit_module": (errno.EPERM, True, lambda: call("finit_module", -1, 0, 0)),
    "delete_module": (errno.EPERM, True, lambda: call("delete_module", b"sky-none", 0)),
    "quotactl": (errno.EPERM, True, lambda: call("quotactl", -1, 0, 0, 0)),
    "swapon": (errno.EPERM, True, lambda: call("swapon", b"/sky-nonexistent", 0)),
    "reboot": (errno.EPERM, True, lambda: call("reboot", 0, 0, 0, 0)),
    "syslog": (errno.EPERM, True, lambda: call("syslog", 10, 0, 0)),
    "acct": (errno.EPERM, True, lambda: call("acct", b"/sky-nonexistent")),
    "sethostname": (errno.EPERM, True, lambda: call("sethostname", NAME, len(NAME))),
    "settimeofday": (errno.EPERM, True, lambda: call("settimeofday", 0, 0)),
    "clock_settime": (errno.EPERM, True, lambda: call("clock_settime", 99, 0)),
    "TIOCSTI": (errno.EPERM, True, type_into_terminal),
    "socket raw": (errno.EPERM, True, lambda: made_socket(2, socket.SOCK_RAW, 1)),
    "socket packet": (errno.EAFNOSUPPORT, True, lambda: made_socket(17, socket.SOCK_RAW, 77)),
}

ORDINARY: dict[str, Callable[[], int]] = {
    "fork": lambda: forked(0),
    "unix": lambda: made_socket(1, socket.SOCK_STREAM),
    "tcp": lambda: made_socket(2, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 6),
    "udp6": lambda: made_socket(10, socket.SOCK_DGRAM),
    "route": lambda: made_socket(16, socket.SOCK_RAW, 0),
    "personality": lambda: call("personality", 0xFFFFFFFF),
    "futex": lambda: call("futex", ctypes.byref(ctypes.c_int(1)), 1, 1),
    "time": lambda: 0 if time.time() > 0 else 1,
}

if os.uname().machine == "x86_64":
    ATTEMPTS["int 0x80"] = (signal.SIGSYS, False, old_entry)
    ATTEMPTS["x32"] = (errno.ENOSYS, True, lambda: call_number(0x40000000 | 39))


def load(program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    loaded = Program(len(program) // 8, ctypes.addressof(instructions))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no new privileges")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # when the terminal of the TIOCSTI attempt is closed
    found = {}
    order = sorted(ATTEMPTS, key=lambda name: name == "ptrace")  # last, for it changes our signals
    if len(sys.argv) > 1:
        with open(sys.argv[1], "rb") as file:
            load(file.read())
    for name in ORDINARY:
        found[f"ordinary {name}"] = ORDINARY[name]()
    for name in order:
        found[name] = ATTEMPTS[name][2]()
    print(json.dumps(found))
