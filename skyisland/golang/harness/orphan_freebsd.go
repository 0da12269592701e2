package harness

import (
	"syscall"
	"unsafe"
)

const (
	sysProcctl       = 544 // sys/kern/syscalls.master
	procPdeathsigCtl = 11  // procctl(2), sys/sys/procctl.h
)

// A function dies with the daemon, whose child this process is: jexec(8) and limits(1) become the program that
// they start. If the daemon is dead already, standard input has ended and nothing is called. On Linux the
// launcher sees to it.
func init() {
	signal := int32(syscall.SIGKILL)
	syscall.Syscall6(sysProcctl, 0, 0, procPdeathsigCtl, uintptr(unsafe.Pointer(&signal)), 0, 0)
}
