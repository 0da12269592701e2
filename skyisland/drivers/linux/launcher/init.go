package main

import "syscall"

const (
	status = 3         // init's descriptor of the status pipe
	little = 128 << 10 // ZFS writes records of that size
)

var (
	record line
	disk   syscall.Statfs_t
)

// live is the life of init, the first process of a jail. It does not return.
func live() {
	if !perform() {
		give(failed)
	}
	function, errno := spawn(wanted.argv.words[0], &wanted.argv.words[0], &wanted.env.words[0])
	if errno != 0 {
		give(failure{errno, "cannot execute", wanted.argv.words[0]})
	}
	syscall.RawSyscall(sysCloseRange, 0, status-1, 0)
	var how uint32
	for {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), at(&how), 0, 0, 0, 0)
		if pid == function && errno == 0 {
			break
		}
		if errno != 0 && errno != syscall.EINTR {
			exit(125)
		}
	}
	if how != 0 && full(c("/\x00")) {
		record.byte('d')
		tell()
		record.clear()
	}
	ended := syscall.WaitStatus(how)
	if ended.Signaled() {
		record.byte('s')
		record.number(uintptr(ended.Signal()))
	} else {
		record.byte('e')
		record.number(uintptr(ended.ExitStatus()))
	}
	tell()
	exit(0)
}

// full tells whether the disk at a path has no room for anything of use.
func full(path *byte) bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_STATFS, word(path), at(&disk), 0)
	return errno == 0 && (disk.Bavail*uint64(disk.Frsize) < little || disk.Ffree == 0)
}

// perform does the plan; false, and failed, if a step does not work.
func perform() bool {
	for i := 0; i < steps; i++ {
		s := &plan[i]
		_, _, errno := syscall.RawSyscall6(s.call, s.with[0], s.with[1], s.with[2], s.with[3], s.with[4], 0)
		if errno != 0 && errno != s.unless {
			failed = failure{errno, s.what, s.whom}
			return false
		}
	}
	return true
}

// spawn starts the function; it shares init's memory until it has executed its binary, and init waits.
//
//go:noescape
func spawn(path *byte, argv, env **byte) (pid uintptr, errno syscall.Errno)

// tell writes the record; if nobody hears it there is nobody to live for.
func tell() {
	record.byte('\n')
	_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, status, at(&record.text), uintptr(record.length))
	if errno != 0 {
		exit(125)
	}
}

// give tells why there will be no function, and ends.
func give(reason failure) {
	failed = reason
	record.failure()
	tell()
	exit(125)
}

func exit(code uintptr) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}
