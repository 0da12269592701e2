package harness

import (
	"os"
	"syscall"
)

// KeepOutput returns standard output, for the answer alone: what else the process prints goes to standard error,
// whoever kept os.Stdout. For a package of the same library that writes answers of another form.
func KeepOutput() *os.File {
	kept, err := syscall.Dup(1)
	if err == nil {
		syscall.Close(1)
		if _, err = syscall.Dup(2); err == nil { // becomes the lowest that is free: 1. No system lacks this call
			return os.NewFile(uintptr(kept), "/dev/stdout")
		}
	}
	os.Stderr.WriteString("standard output cannot be kept: " + err.Error() + "\n")
	os.Exit(exitTorn)
	return nil
}

// Peer returns the address of who asks, if the frame has it.
func Peer() string { return asked.peer }

// Reject says that what is called cannot be, and why, and ends the process.
func Reject(reason string) { reject(asked.nonce, -1, reason) }
