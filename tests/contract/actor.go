// The program that the contract suite runs in jails: it does what its standard input says.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "stray" {
		signal.Ignore()
		time.Sleep(time.Hour)
	}
	order, _ := io.ReadAll(os.Stdin)
	words := strings.Fields(string(order))
	if len(words) == 0 {
		return
	}
	number := func() int { n, _ := strconv.Atoi(words[1]); return n }
	switch words[0] {
	case "say":
		fmt.Print(strings.Join(words[1:], " "))
	case "complain":
		fmt.Fprint(os.Stderr, strings.Join(words[1:], " "))
	case "exit":
		os.Exit(number())
	case "signal":
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number()))
		time.Sleep(time.Hour)
	case "linger":
		fmt.Print("lingering")
		time.Sleep(time.Hour)
	case "sleep":
		signal.Ignore()
		time.Sleep(time.Hour)
	case "flood":
		for {
			fmt.Println(strings.Repeat("flood ", 1000))
		}
	case "hog":
		hoard := make([]byte, number()<<20)
		for i := 0; i < len(hoard); i += 4096 {
			hoard[i] = 1
		}
		fmt.Print("survived")
	case "stray":
		self, _ := os.Executable() // FreeBSD's jails have no /proc
		child := exec.Command(self, "stray")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			fmt.Print(err)
			return
		}
		fmt.Print("left a stray")
	case "mark":
		_, err := os.Stat("/tmp/mark")
		write := os.WriteFile("/tmp/mark", []byte("x"), 0o600)
		fmt.Print(err == nil, " ", write)
	case "self":
		host, _ := os.Hostname()
		here, _ := os.Getwd()
		fmt.Printf("uid=%d host=%s cwd=%s env=%v", os.Getuid(), host, here, os.Environ())
	case "read":
		text, err := os.ReadFile(words[1])
		fmt.Print(string(text), err)
	case "list":
		entries, err := os.ReadDir(words[1])
		for _, entry := range entries {
			fmt.Println(entry.Name())
		}
		if err != nil {
			fmt.Println(err)
		}
	}
}
