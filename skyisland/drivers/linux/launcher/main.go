// Command launcher makes jails from namespaces: a small process of root that clones once for each jail.
//
//	launcher FD SCRATCH
//
// FD is a SOCK_SEQPACKET socket whose other end the island holds. The launcher reads orders from it and
// answers each with the pid and a pidfd of the jail's init; everything else that a jail reports goes through
// its own status pipe. SCRATCH is an empty folder: each jail mounts a tmpfs of its own there, in its own mount
// namespace.
//
// # Theory of operation
//
//	launcher ── clone3(new namespaces) ──▶ init ── vfork ──▶ the function
//
//	launcher  reads the order (order.go) and turns it into a plan (plan.go): a list of system calls with
//	          all their arguments.
//	init      executes the plan (init.go): joins its cgroups first, so that nothing is charged elsewhere,
//	          mounts its root, gives up being root. Then it starts the function, reaps orphans, reports the
//	          function's end and exits; with it the kernel kills every other process of its pid namespace.
//	function  executes the binary with descriptors 0 to 2.
//
// There is no user namespace. Init and the function run as an unprivileged uid of the host, without
// capabilities and without a way to gain any (no_new_privs, empty bounding set, every mount nosuid), and under
// a filter on system calls. Init cannot be traced and its memory cannot be read. It handles no signal, so no
// process of the jail can signal it (pid_namespaces(7)).
//
// # Protocol
//
// The first message is the filter, a BPF program; its answer is `+`. Every other message is an order: words
// that end with a zero byte each, whose first letter is their kind (order.take). Four descriptors come with
// it: standard input, output, error and the status pipe. The answer is the jail's name, a zero byte, and the
// pid or a failure: `!2 mount /a`, an error number and what was tried.
//
// The status pipe has one record a line: `!2 mount /a` the function was not started; `d` the function failed
// and its disk was full; `e3` it exited with code 3; `s9` signal 9 killed it. If the pipe ends without `!`,
// `e` or `s`, init was killed.
//
// Init dies with the launcher (PR_SET_PDEATHSIG), and the launcher with the island (the same, and the end of
// the socket).
//
// # No runtime
//
// The cost of a clone grows with the memory of the cloning process, and the child becomes the init that
// confines a jail: so every instruction in it should be ours. Go's runtime has many pages, threads and signal
// handlers. Therefore the linker makes `begin` (begin_*.s) the entry point, and the runtime never starts: one
// thread, no heap, no signal handler, a few pages. Whatever needs the runtime must not be used: make, new and
// append, maps, closures, interfaces, goroutines, defer, concatenated strings. Everything that grows is in
// variables of the package. An index out of range ends the process.
package main

import (
	"syscall"
	"unsafe"
)

const (
	orderFDs           = 4  // descriptors of an order: standard input, output, error, status pipe
	lastSignal         = 64 // _NSIG
	sigIgn             = 1
	sigSetmask         = 2
	clonePidfd         = 0x1000
	cloneIntoCgroup    = 0x200000000
	sysClone3          = 435
	sysPidfdSendSignal = 424
)

// arguments is what the kernel puts on the stack of a new process.
type arguments struct {
	count uintptr
	words [3]*byte
}

// sigaction is the kernel's struct of that name (rt_sigaction(2)); all zero is SIG_DFL.
type sigaction struct{ handler, flags, restorer, mask uintptr }

// cloneArgs is struct clone_args (clone(2)).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, tids, tidCount, cgroup uint64
}

// ancillary is a control message with descriptors (SCM_RIGHTS, unix(7)).
type ancillary struct {
	header syscall.Cmsghdr
	fds    [orderFDs]int32
}

var (
	socket        uintptr
	jail          order
	message       [1 << 17]byte // MESSAGE_BYTES in launching.py
	received      ancillary
	reply         line
	sent          ancillary
	header        syscall.Msghdr
	content       syscall.Iovec
	cloneRequest  cloneArgs
	pid           uintptr
	pidfd         int32
	defaultAction sigaction
	ignoreAction  = sigaction{handler: sigIgn}
	emptyMask     uint64
)

// begin is the entry point; it calls serve.
func begin()

func main() { begin() }

func serve(started *arguments) {
	socket, _ = decimal(started.words[1])
	setPaths(started.words[2])
	hideArguments(started)
	resetSignals()
	length, _ := receive()
	planLauncher(message[:length])
	if !runPlan() {
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

// hideArguments erases our command line: an init has it too, where its jail reads it (/proc/1/cmdline).
func hideArguments(started *arguments) {
	for _, argument := range started.words {
		for ; *argument != 0; argument = after(argument, 1) {
			*argument = 0
		}
	}
}

// resetSignals undoes what the process that started us ignores or blocks. Only SIGCHLD is ignored, so that
// the kernel reaps our children.
func resetSignals() {
	for number := uintptr(1); number <= lastSignal; number++ {
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, number, at(&defaultAction), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), at(&ignoreAction), 0, 8, 0, 0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, at(&emptyMask), 0, 8, 0, 0)
}

// receive waits for a message. It returns the length, 0 at the end of the socket, and the number of
// descriptors that came with the message.
func receive() (length, fds int) {
	content = syscall.Iovec{Base: &message[0], Len: uint64(len(message))}
	for {
		header = syscall.Msghdr{Iov: &content, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&received))}
		header.Controllen = uint64(unsafe.Sizeof(received))
		n, _, errno := syscall.RawSyscall(
			syscall.SYS_RECVMSG, socket, at(&header), syscall.MSG_CMSG_CLOEXEC)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			return 0, 0
		case header.Controllen >= syscall.SizeofCmsghdr:
			fds = int(received.header.Len-syscall.SizeofCmsghdr) / 4
		}
		return int(n), fds
	}
}

// answer sends the reply, with a descriptor unless fd is negative; false if it was not sent.
func answer(fd int32) bool {
	content = syscall.Iovec{Base: &reply.text[0], Len: uint64(reply.length)}
	header = syscall.Msghdr{Iov: &content, Iovlen: 1}
	if fd >= 0 {
		sent.header = syscall.Cmsghdr{
			Len: syscall.SizeofCmsghdr + 4, Level: syscall.SOL_SOCKET, Type: syscall.SCM_RIGHTS,
		}
		sent.fds[0] = fd
		header.Control = (*byte)(unsafe.Pointer(&sent))
		header.Controllen = syscall.SizeofCmsghdr + 8
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, socket, at(&header), syscall.MSG_NOSIGNAL)
	return errno == 0
}

// carryOut reads an order from the message, clones the jail's init, and answers.
func carryOut(length, fds int) {
	init := int32(-1)
	switch understood := jail.read(message[:length]); {
	case !understood || fds != orderFDs:
		failed = failure{syscall.EINVAL, "understand the order", nil}
	case planJail():
		init = cloneInit()
	}
	reply.clear()
	reply.word(jail.name)
	reply.byte(0)
	if init < 0 {
		reply.failure()
	} else {
		reply.number(pid)
	}
	if !answer(init) && init >= 0 {
		// The island is gone, or too many descriptors are on their way to it. It does not know of the jail.
		syscall.RawSyscall6(sysPidfdSendSignal, uintptr(init), uintptr(syscall.SIGKILL), 0, 0, 0, 0)
	}
	for i := 0; i < fds; i++ {
		closeFD(received.fds[i])
	}
	if init >= 0 {
		closeFD(init)
	}
}

// cloneInit clones init into new namespaces. It returns init's pidfd, or -1 and failed is set; in init, it
// does not return.
func cloneInit() int32 {
	namespaces := uint64(syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID)
	if !jail.hostNetwork {
		namespaces |= syscall.CLONE_NEWNET
	}
	cloneRequest = cloneArgs{
		flags:      namespaces | clonePidfd,
		pidfd:      uint64(at(&pidfd)),
		exitSignal: uint64(syscall.SIGCHLD),
	}
	var errno syscall.Errno
	if jail.cloneCgroup != nil {
		var fd uintptr
		fd, _, errno = syscall.RawSyscall6(
			syscall.SYS_OPENAT, atFdcwd, word(jail.cloneCgroup), oPath|syscall.O_CLOEXEC, 0, 0, 0)
		cloneRequest.flags |= cloneIntoCgroup
		cloneRequest.cgroup = uint64(fd)
	}
	if errno == 0 {
		pid, _, errno = syscall.RawSyscall(sysClone3, at(&cloneRequest), unsafe.Sizeof(cloneRequest), 0)
		if errno == 0 && pid == 0 {
			runInit()
		}
	}
	if cloneRequest.flags&cloneIntoCgroup != 0 {
		closeFD(int32(cloneRequest.cgroup))
	}
	if errno != 0 {
		failed = failure{errno, "clone", jail.cloneCgroup}
		return -1
	}
	return pidfd
}

func closeFD(fd int32) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }
