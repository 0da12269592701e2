// The program that the contract suite runs in jails: it does what its standard input says.
package main

import (
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"runtime/debug"
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
	case "world":
		world()
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

// world says what a function finds around it, one thing per line.
func world() {
	say := func(name string, what any, err error) {
		if err != nil {
			what = err
		}
		fmt.Println(name, what)
	}
	in, err := os.Open("/dev/stdin")
	say("stdin", in != nil, err)
	out, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	if err == nil {
		_, err = out.WriteString("stdout written\n")
	}
	say("stdout", out != nil, err)
	complaint, err := os.OpenFile("/dev/stderr", os.O_WRONLY, 0)
	if err == nil {
		_, err = complaint.WriteString("stderr written\n")
	}
	say("stderr", complaint != nil, err)
	if self, err := user.Current(); err != nil {
		say("user", nil, err)
	} else {
		say("user", self.Username+" "+self.HomeDir, nil)
		say("uid", self.Uid == strconv.Itoa(os.Getuid()), nil)
	}
	home, err := os.UserHomeDir()
	say("home", home, err)
	cache, err := os.UserCacheDir()
	say("cache", cache, err)
	if err == nil {
		err = os.MkdirAll(cache, 0o700)
	}
	say("made", err == nil, err)
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err == nil {
		say("zone", time.Unix(0, 0).In(berlin).Format(time.RFC3339), nil)
	} else {
		say("zone", nil, err)
	}
	pool, err := x509.SystemCertPool()
	say("roots", err == nil && len(pool.Subjects()) > 50, err) //nolint:staticcheck // it counts, no more
	say("memory", debug.SetMemoryLimit(-1)>>20, nil)
	say("processors", runtime.GOMAXPROCS(0), nil)
}
