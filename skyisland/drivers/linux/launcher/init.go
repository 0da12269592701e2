package main

import "syscall"

const (
	statusFD  = 3         // init's descriptor of the status pipe
	fullBytes = 128 << 10 // a disk with less is full: ZFS writes records of that size
)

var (
	record line
	disk   syscall.Statfs_t
)

// runInit is the whole life of init, the first process of a jail. It does not return.
func runInit() {
	if !runPlan() {
		exitFailed(failed)
	}
	function, errno := spawn(jail.argv.words[0], &jail.argv.words[0], &jail.env.words[0])
	if errno != 0 {
		exitFailed(failure{errno, "cannot execute", jail.argv.words[0]})
	}
	// Init must not keep the function's pipes open: their readers wait until the last writer has closed.
	syscall.RawSyscall(sysCloseRange, 0, statusFD-1, 0)
	var status uint32
	for {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), at(&status), 0, 0, 0, 0)
		if pid == function && errno == 0 {
			break
		}
		if errno != 0 && errno != syscall.EINTR {
			exit(125)
		}
	}
	if status != 0 && diskIsFull(cstr("/\x00")) {
		record.byte('d')
		writeRecord()
		record.clear()
	}
	ended := syscall.WaitStatus(status)
	if ended.Signaled() {
		record.byte('s')
		record.number(uintptr(ended.Signal()))
	} else {
		record.byte('e')
		record.number(uintptr(ended.ExitStatus()))
	}
	writeRecord()
	exit(0)
}

// diskIsFull reports whether the file system at a path has no room for a record, or for a file.
func diskIsFull(path *byte) bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_STATFS, word(path), at(&disk), 0)
	return errno == 0 && (disk.Bavail*uint64(disk.Frsize) < fullBytes || disk.Ffree == 0)
}

// runPlan makes the system calls of the plan; false, and failed is set, at the first one that fails.
func runPlan() bool {
	for i := 0; i < steps; i++ {
		s := &plan[i]
		_, _, errno := syscall.RawSyscall6(s.call, s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], 0)
		if errno != 0 && errno != s.tolerated {
			failed = failure{errno, s.action, s.object}
			return false
		}
	}
	return true
}

// spawn starts the function by vfork: it shares init's memory until it executes its binary, and init waits
// until then.
//
//go:noescape
func spawn(path *byte, argv, env **byte) (pid uintptr, errno syscall.Errno)

// writeRecord writes the record to the status pipe. If nobody reads the pipe any more, the jail ends.
func writeRecord() {
	record.byte('\n')
	_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, statusFD, at(&record.text), uintptr(record.length))
	if errno != 0 {
		exit(125)
	}
}

// exitFailed writes why there will be no function, and ends the jail.
func exitFailed(reason failure) {
	failed = reason
	record.failure()
	writeRecord()
	exit(125)
}

func exit(code uintptr) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}
