// Package trouble misbehaves on request.
package trouble

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Panic panics.
func Panic(reason string) string { panic(reason) }

// Exit ends the process with an exit code.
func Exit(code int) { os.Exit(code) }

// Signal sends a signal to its own process.
func Signal(number int) string {
	process, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = process.Signal(syscall.Signal(number))
	}
	time.Sleep(time.Second)
	return fmt.Sprint("still here: ", err)
}

// Sleep sleeps, and ignores SIGTERM and SIGINT meanwhile.
func Sleep(duration time.Duration) string {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	time.Sleep(duration)
	return "slept " + duration.String()
}

// Hog allocates memory and touches every page of it.
func Hog(mebibytes int) int {
	memory := make([]byte, mebibytes<<20)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	return len(memory)
}

// Spin keeps a processor busy for ever.
func Spin() {
	for {
	}
}

// Fill writes files of one MiB each, and panics when the disk is full.
func Fill(mebibytes int) {
	for number := range mebibytes {
		name := fmt.Sprint("/tmp/filled-", number)
		if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
			panic(err)
		}
	}
}

// Flood writes a number of MiB to standard output.
func Flood(mebibytes int) {
	line := strings.Repeat("sky island\n", 95326)
	for range mebibytes {
		fmt.Print(line[:1<<20])
	}
}

// Remember leaves a mark for the next call, and reports whether it found one itself. It never does: each call
// gets a fresh jail.
func Remember() bool {
	_, err := os.Stat("/tmp/mark")
	_ = os.WriteFile("/tmp/mark", []byte("was here"), 0o600)
	return err == nil
}

// Stray starts a process that would outlive its parent and holds its output open.
func Stray() string {
	self, err := os.Executable()
	if err == nil {
		_, err = os.StartProcess(self, []string{"stray"}, &os.ProcAttr{
			Files: []*os.File{nil, os.Stdout, os.Stderr},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}
	return fmt.Sprint("started: ", err)
}
