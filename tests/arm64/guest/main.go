// Command guest tests the launcher in a virtual machine. It is both the machine's first process and the
// function that runs in the jails.
//
// As the first process it moves to a root in a tmpfs, because nothing can pivot out of the kernel's initial
// root. It starts /launcher as an island does, orders jails and compares their output. Its last line is
// `passed`, or what failed.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

const (
	uid      = 5000
	clone3   = 435
	powerOff = 0x4321fedc
)

// trial is a jail to order, with the expected output of its program and of its status pipe.
type trial struct {
	what           string
	argv           []string
	output, status string
}

var trials = []trial{
	{"it is confined", []string{"/guest", "identity"}, "Uid:\t5000\t5000\t5000\t5000\nCapEff:\t0000000000000000\n" +
		"CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n0::/\nit-is-confined 2 [WORD=kept] /tmp", "e0\n"},
	{"its input and its files", []string{"/guest", "files"},
		"a frame; /tmp/a <nil>; /guest read-only file system", "e0\n"},
	{"its devices", []string{"/guest", "devices"}, "fd full null random stderr stdin stdout urandom zero", "e0\n"},
	{"system calls are refused", []string{"/guest", "refused"},
		"operation not permitted, operation not permitted, function not implemented", "e0\n"},
	{"children", []string{"/guest", "parent"}, "child says hello", "e0\n"},
	{"its exit code", []string{"/guest", "exit"}, "", "e3\n"},
	{"its signal", []string{"/guest", "die"}, "", "s9\n"},
	{"a full disk", []string{"/guest", "fill"}, "no space left on device", "d\ne4\n"},
	{"no such program", []string{"/nothing"}, "", "!2 cannot execute /nothing\n"},
}

func main() {
	if os.Getpid() != 1 {
		function(os.Args[1])
		return
	}
	err := machine()
	if err == nil {
		fmt.Println("passed")
	} else {
		fmt.Println("failed:", err)
	}
	syscall.Reboot(powerOff)
}

func machine() error {
	launcher, socket, err := start()
	if err != nil {
		return err
	}
	for _, t := range trials {
		if err := t.run(socket); err != nil {
			return fmt.Errorf("%s: %w", t.what, err)
		}
		fmt.Println("ok:", t.what)
	}
	if err := syscall.Shutdown(socket, syscall.SHUT_RDWR); err != nil {
		return err
	}
	return launcher.Wait() // it ends with the island
}

// start makes a root and starts the launcher. It returns the process and the island's end of the socket.
func start() (*exec.Cmd, int, error) {
	if err := makeRoot(); err != nil {
		return nil, 0, err
	}
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	theirs := os.NewFile(uintptr(ends[1]), "socket")
	defer theirs.Close()
	launcher := exec.Command("/launcher", "3", "/run/scratch")
	launcher.ExtraFiles = []*os.File{theirs}
	if err := launcher.Start(); err != nil {
		return nil, 0, err
	}
	filter, err := os.ReadFile("/filter")
	if err != nil {
		return nil, 0, err
	}
	if err := syscall.Sendmsg(ends[0], filter, nil, nil, 0); err != nil {
		return nil, 0, err
	}
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(ends[0], answer, 0)
	if err == nil && string(answer[:n]) != "+" {
		err = fmt.Errorf("the launcher says %q", answer[:n])
	}
	return launcher, ends[0], err
}

func makeRoot() error {
	module, err := os.Open("/overlay.ko")
	if err != nil {
		return err
	}
	none := []byte{0}
	_, _, errno := syscall.Syscall(syscall.SYS_FINIT_MODULE, module.Fd(), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 {
		return fmt.Errorf("overlay.ko: %w", errno)
	}
	folders := []string{"proc", "dev", "sys", "run/scratch", "base/proc", "base/dev", "base/tmp"}
	if err := os.Mkdir("/new", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/new", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.MkdirAll(filepath.Join("/new", folder), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"launcher", "guest", "filter"} {
		data, err := os.ReadFile("/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile("/new/"+name, data, 0o755); err != nil {
			return err
		}
	}
	for _, mount := range [][2]string{{"proc", "proc"}, {"devtmpfs", "dev"}, {"sysfs", "sys"}} {
		if err := syscall.Mount(mount[0], "/new/"+mount[1], mount[0], 0, ""); err != nil {
			return err
		}
	}
	if err := syscall.Mount("cgroup2", "/new/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return err
	}
	if err := os.Chdir("/new"); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return os.Mkdir("/sys/fs/cgroup/jail", 0o755)
}

// run orders a jail and compares what it reports.
func (t trial) run(socket int) error {
	words := []string{
		"n" + strings.ReplaceAll(t.what, " ", "-"),
		"b/sys/fs/cgroup/jail",
		"tmode=755,size=4194304,nr_inodes=1000",
		"o/base",
		"r/guest", "i/guest", "l7=64", fmt.Sprintf("u%d", uid), "d/tmp", "eWORD=kept",
	}
	for _, word := range t.argv {
		words = append(words, "a"+word)
	}
	var ours, theirs [4]*os.File
	for i := range ours {
		reading, writing, err := os.Pipe()
		if err != nil {
			return err
		}
		ours[i], theirs[i] = reading, writing
	}
	ours[0], theirs[0] = theirs[0], ours[0] // we write to its standard input
	var fds []int
	for _, file := range theirs {
		fds = append(fds, int(file.Fd()))
	}
	order := []byte(strings.Join(words, "\x00") + "\x00")
	if err := syscall.Sendmsg(socket, order, syscall.UnixRights(fds...), nil, 0); err != nil {
		return err
	}
	answer, rights := make([]byte, 4096), make([]byte, 128)
	n, size, _, _, err := syscall.Recvmsg(socket, answer, rights, 0)
	if err != nil {
		return err
	}
	if size == 0 {
		return fmt.Errorf("no pidfd came, but %q", answer[:n])
	}
	for _, file := range theirs {
		file.Close()
	}
	fmt.Fprint(ours[0], "a frame")
	ours[0].Close()
	output, _ := io.ReadAll(ours[1])
	stderr, _ := io.ReadAll(ours[2])
	status, _ := io.ReadAll(ours[3])
	if string(output) != t.output || string(status) != t.status {
		return fmt.Errorf("output %q, status %q, standard error %q", output, status, stderr)
	}
	return nil
}

// function is the program in a jail: it does one task and prints what it sees.
func function(task string) {
	switch task {
	case "identity":
		status, _ := os.ReadFile("/proc/self/status")
		for _, line := range strings.Split(string(status), "\n") {
			switch name, _, _ := strings.Cut(line, ":"); name {
			case "Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp":
				fmt.Println(line)
			}
		}
		group, _ := os.ReadFile("/proc/self/cgroup")
		name, _ := os.Hostname()
		folder, _ := os.Getwd()
		fmt.Print(string(group), name, " ", os.Getpid(), " ", os.Environ(), " ", folder)
	case "files":
		frame, _ := io.ReadAll(os.Stdin)
		_, refused := os.Create("/guest")
		fmt.Print(string(frame), "; /tmp/a ", os.WriteFile("/tmp/a", frame, 0o600), "; /guest ", last(refused))
	case "devices":
		entries, _ := os.ReadDir("/dev")
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		fmt.Print(strings.Join(names, " "))
	case "refused":
		var nothing [88]byte
		_, _, errno := syscall.RawSyscall(clone3, uintptr(unsafe.Pointer(&nothing)), uintptr(len(nothing)), 0)
		mounted := syscall.Mount("tmpfs", "/tmp", "tmpfs", 0, "")
		fmt.Print(syscall.Unshare(syscall.CLONE_NEWUSER), ", ", mounted, ", ", errno)
	case "parent":
		output, err := exec.Command("/guest", "child").CombinedOutput()
		if err != nil {
			fmt.Print(err)
		}
		fmt.Print("child says ", string(output))
	case "child":
		fmt.Print("hello")
	case "exit":
		os.Exit(3)
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "fill":
		err := os.WriteFile("/tmp/all", make([]byte, 8<<20), 0o600)
		fmt.Print(last(err))
		os.Exit(4)
	}
}

// last is the reason at the end of an error's chain.
func last(err error) error {
	if path, ok := err.(*os.PathError); ok {
		return path.Err
	}
	return err
}
