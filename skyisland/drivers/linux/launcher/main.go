// Command launcher makes jails of namespaces: a small process of root that forks once for each.
//
//	launcher FD SCRATCH
//
// It reads orders from FD, a SOCK_SEQPACKET socket whose other end the island holds, and answers each with
// the jail's init as pid and pidfd; everything else a jail tells goes through its own status pipe. SCRATCH
// is an empty folder over which each jail mounts a tmpfs of its own, in its own namespace; SCRATCH.dev is
// another, for the devices that all jails see.
//
// Theory of operation, for each order:
//
//	launcher ── clone(new namespaces) ──▶ init ── vfork ──▶ the function
//
//	launcher  turns the order into a plan (plan.go): system calls in a row, with all their arguments.
//	init      does them (jail.go): joins its cgroups before anything can be charged elsewhere, lays its
//	          root, drops what root can do; starts the function, reaps whatever is orphaned in the jail,
//	          reports the function's end, and dies; with it, as the kernel does for every process
//	          namespace, all that is left in the jail.
//	function  sees descriptors 0 to 2 and executes the binary.
//
// There is no user namespace: init and function are an unprivileged uid of the host, with no capability,
// none to be gained (no new privileges, empty bounding set, every mount nosuid) and a filter on system
// calls. Init can be neither traced nor looked into, and handles no signal, so that none of the jail's own
// reaches it (pid_namespaces(7)).
//
// The first message is the filter, a BPF program, and its answer `+`. Every other is an order: words, each ended by a zero
// byte, of which the first letter tells what the word is (order.take); standard input, output, error and
// the status pipe come with it as descriptors. The answer is the jail's name, a zero byte, and the pid, or
// a failure: `!2 mount /a`, the number of the error and what was tried.
//
// Status pipe, one record a line: `!2 mount /a` it could not be made; `d` the function failed, and its disk
// was full then; `e3` it ended with exit code 3; `s9` by signal 9. The end of the pipe without either: init
// was killed.
//
// Init dies with the launcher and the launcher with the island (PR_SET_PDEATHSIG, and the end of the
// socket).
//
// # No runtime
//
// A fork costs as much as the forking process has memory; and what goes on in it should be ours to the
// last instruction, since the child is to be a prison's warder. Go's runtime has many pages, threads and
// handlers of signals. So the linker begins this program at `begin` (begin_*.s), and the runtime is never
// started: one thread, no heap, no handler, a few pages. What would need it must not be used: make, new
// and append, maps, closures, interfaces, goroutines, defer, strings put together. Whatever is built is
// built in variables of the package. An index out of range ends the process.
package main

import (
	"syscall"
	"unsafe"
)

const (
	standards          = 4 // standard input, output, error, status pipe: what comes with an order
	signals            = 64
	ignore             = 1           // SIG_IGN
	setMask            = 2           // SIG_SETMASK
	intoDescriptor     = 0x1000      // CLONE_PIDFD
	intoCgroup         = 0x200000000 // CLONE_INTO_CGROUP
	sysClone3          = 435
	sysPidfdSendSignal = 424
)

// arguments is what the kernel puts on the stack of a new process.
type arguments struct {
	count uintptr
	words [3]*byte
}

// disposition is struct sigaction as rt_sigaction(2) takes it, where all zero means the default.
type disposition struct{ handler, flags, restorer, mask uintptr }

// cloning is struct clone_args (clone(2)).
type cloning struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, tids, tidCount, cgroup uint64
}

// enclosure carries descriptors from process to process (unix(7)).
type enclosure struct {
	header syscall.Cmsghdr
	fds    [standards]int32
}

var (
	socket    uintptr
	wanted    order
	message   [1 << 17]byte
	received  enclosure
	reply     line
	sent      enclosure
	envelope  syscall.Msghdr
	content   syscall.Iovec
	asked     cloning
	pid       uintptr
	pidfd     int32
	asDefault disposition
	ignored   = disposition{handler: ignore}
	noSignals uint64
)

// begin is where the kernel starts us; it calls serve.
func begin()

func main() { begin() }

func serve(started *arguments) {
	socket, _ = decimal(started.words[1])
	settle(started.words[2])
	startAnew()
	length, _ := receive()
	prepare(message[:length])
	if !perform() {
		reply.failure()
		answer(-1)
		exit(1)
	}
	reply.byte('+')
	answer(-1)
	for {
		length, fds := receive()
		if length == 0 {
			exit(0)
		}
		carryOut(length, fds)
	}
}

// startAnew has signals as the system made them, not as whoever started us did; of our children's ends
// the kernel tells us nothing, and waits for them itself.
func startAnew() {
	for number := uintptr(1); number <= signals; number++ {
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number, at(&asDefault), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), at(&ignored), 0, 8, 0, 0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, at(&noSignals), 0, 8, 0, 0)
}

// receive waits for a message; tells its length, 0 when there will be no more, and the number of
// descriptors that came with it.
func receive() (length, fds int) {
	content = syscall.Iovec{Base: &message[0], Len: uint64(len(message))}
	for {
		envelope = syscall.Msghdr{Iov: &content, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&received))}
		envelope.Controllen = uint64(unsafe.Sizeof(received))
		n, _, errno := syscall.RawSyscall(
			syscall.SYS_RECVMSG, socket, at(&envelope), syscall.MSG_CMSG_CLOEXEC)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return 0, 0
		case envelope.Controllen >= syscall.SizeofCmsghdr:
			fds = int(received.header.Len-syscall.SizeofCmsghdr) / 4
		}
		return int(n), fds
	}
}

// answer sends the reply, with a descriptor unless that is negative.
func answer(fd int32) bool {
	content = syscall.Iovec{Base: &reply.text[0], Len: uint64(reply.length)}
	envelope = syscall.Msghdr{Iov: &content, Iovlen: 1}
	if fd >= 0 {
		sent.header = syscall.Cmsghdr{
			Len: syscall.SizeofCmsghdr + 4, Level: syscall.SOL_SOCKET, Type: syscall.SCM_RIGHTS,
		}
		sent.fds[0] = fd
		envelope.Control = (*byte)(unsafe.Pointer(&sent))
		envelope.Controllen = syscall.SizeofCmsghdr + 8
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, socket, at(&envelope), syscall.MSG_NOSIGNAL)
	return errno == 0
}

// carryOut has a jail made, and answers.
func carryOut(length, fds int) {
	init := int32(-1)
	switch understood := wanted.read(message[:length]); {
	case !understood || fds != standards:
		failed = failure{syscall.EINVAL, "understand the order", nil}
	case draw():
		init = fork()
	}
	reply.clear()
	reply.word(wanted.name)
	reply.byte(0)
	if init < 0 {
		reply.failure()
	} else {
		reply.number(pid)
	}
	if !answer(init) && init >= 0 {
		// Nobody knows of it: too many descriptors are on their way to the island, or it is gone.
		syscall.RawSyscall6(sysPidfdSendSignal, uintptr(init), uintptr(syscall.SIGKILL), 0, 0, 0, 0)
	}
	for i := 0; i < fds; i++ {
		shut(received.fds[i])
	}
	if init >= 0 {
		shut(init)
	}
}

// fork clones init into its namespaces, where it lives; returns its pidfd, or -1.
func fork() int32 {
	spaces := uint64(syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID)
	if !wanted.hostNetwork {
		spaces |= syscall.CLONE_NEWNET
	}
	asked = cloning{
		flags:      spaces | intoDescriptor,
		pidfd:      uint64(at(&pidfd)),
		exitSignal: uint64(syscall.SIGCHLD),
	}
	var errno syscall.Errno
	if wanted.birthplace != nil {
		var fd uintptr
		fd, _, errno = syscall.RawSyscall6(
			syscall.SYS_OPENAT, here, word(wanted.birthplace), asPath|syscall.O_CLOEXEC, 0, 0, 0)
		asked.flags |= intoCgroup
		asked.cgroup = uint64(fd)
	}
	if errno == 0 {
		pid, _, errno = syscall.RawSyscall(sysClone3, at(&asked), unsafe.Sizeof(asked), 0)
		if errno == 0 && pid == 0 {
			live()
		}
	}
	if asked.flags&intoCgroup != 0 {
		shut(int32(asked.cgroup))
	}
	if errno != 0 {
		failed = failure{errno, "clone", wanted.birthplace}
		return -1
	}
	return pidfd
}

func shut(fd int32) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }
