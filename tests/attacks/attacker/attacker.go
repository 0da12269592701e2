// A program that tries to do harm: `attacker VERB ARGUMENT…` makes one attempt and prints what came of
// it, "worked" or the name of the error. The tests run it twice: where nothing confines it, to know that
// the attempt is a real one, and in a jail.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var verbs = map[string]func(words []string){
	"memory": memory, "memory-child": memoryChild, "forks": forks, "storm": storm, "zombies": zombies,
	"orphans": orphans, "stray": stray, "fds": fds, "hoard": hoard, "disk": disk, "full": full, "inodes": inodes,
	"large": large, "tree": tree, "flood": flood, "trickle": trickle, "spin": spin, "deaf": deaf,
	"kill": kill, "besiege": besiege, "syscall": attempt, "open": open, "list": list, "inherited": inherited, "env": environ,
	"cwd": cwd, "mknod": mknod, "keyring": keyring, "shm": shm, "limits": limits, "rewrite": rewrite,
	"listen": listen, "connect": connect, "lookup": lookup, "socket": socket, "ids": ids, "chroot": chroot,
	"namespace": namespace, "handle": handle, "lock": lock, "passed": passed, "raise": raise,
	"tell": tell, "hear": hear, "watch": watch, "read": read, "write": write, "pretend": pretend,
}

var bornWith = openAtStart()

func main() {
	verb, found := verbs[os.Args[1]]
	if !found {
		fmt.Print("no such verb")
		os.Exit(3)
	}
	verb(os.Args[2:])
}

// Telling what came of it

var names = map[syscall.Errno]string{
	syscall.EPERM: "EPERM", syscall.EACCES: "EACCES", syscall.ENOENT: "ENOENT", syscall.EROFS: "EROFS",
	syscall.ESRCH: "ESRCH", syscall.EAGAIN: "EAGAIN", syscall.EMFILE: "EMFILE", syscall.ENFILE: "ENFILE",
	syscall.ENOSPC: "ENOSPC", syscall.EFBIG: "EFBIG", syscall.ENOMEM: "ENOMEM", syscall.ENOSYS: "ENOSYS",
	syscall.EINVAL: "EINVAL", syscall.EAFNOSUPPORT: "EAFNOSUPPORT", syscall.EBADF: "EBADF",
	syscall.EPROTONOSUPPORT: "EPROTONOSUPPORT", syscall.ENETUNREACH: "ENETUNREACH",
	syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ETIMEDOUT: "ETIMEDOUT", syscall.ETXTBSY: "ETXTBSY",
	syscall.ENXIO: "ENXIO", syscall.EOVERFLOW: "EOVERFLOW", syscall.EHOSTUNREACH: "EHOSTUNREACH",
	syscall.EXDEV: "EXDEV", syscall.EEXIST: "EEXIST", syscall.EBUSY: "EBUSY", syscall.EFAULT: "EFAULT",
}

func word(err error) string {
	for err != nil {
		if number, ok := err.(syscall.Errno); ok {
			if number == 0 {
				return "worked"
			}
			if name, ok := names[number]; ok {
				return name
			}
			return fmt.Sprint("errno ", int(number))
		}
		wrapped, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err.Error()
		}
		err = wrapped.Unwrap()
	}
	return "worked"
}

func stay() { time.Sleep(time.Hour) }

func say(err error)          { fmt.Print(word(err)) }
func number(text string) int { n, _ := strconv.ParseInt(text, 0, 64); return int(n) }
func forever()               { signal.Ignore(); stay() }
func bytePointer(s string) uintptr {
	p, _ := syscall.BytePtrFromString(s)
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

var kept []*byte

// Resources

func touch(block []byte) {
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
}

func memory(words []string) {
	touch(make([]byte, number(words[0])<<20))
	fmt.Print("worked")
}

// A child takes the memory; the program itself would stay behind.
func memoryChild(words []string) {
	process, err := os.StartProcess("/proc/self/exe", []string{"attacker", "memory", words[0]}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stderr, os.Stderr}})
	if err != nil {
		say(err)
		return
	}
	state, _ := process.Wait()
	if state.Success() {
		fmt.Print("worked")
		return
	}
	stay()
}

// fork is fork(2) without Go's care: the child may do nothing but raw system calls.
func fork() (int, syscall.Errno) {
	pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	return int(pid), err
}

func pause() {
	for {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func leave() { syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0) }

func forks(words []string) {
	children := []int{}
	defer func() {
		for _, pid := range children {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	for len(children) < number(words[0]) {
		pid, err := fork()
		if pid == 0 && err == 0 {
			pause()
		}
		if err != 0 {
			say(err)
			return
		}
		children = append(children, pid)
	}
	fmt.Print("worked")
}

// Every process doubles itself, generation after generation, and then stays.
func storm(words []string) {
	signal.Ignore()
	runtime.LockOSThread()
	os.Stdout.WriteString("begun")
	generations := number(words[0])
	for i := 0; i < generations; i++ {
		fork()
	}
	pause()
}

func zombies(words []string) {
	for i := 0; i < number(words[0]); i++ {
		pid, err := fork()
		if pid == 0 && err == 0 {
			leave()
		}
		if err != 0 {
			say(err)
			return
		}
	}
	fmt.Print("worked")
}

// Children of children, whose parents are gone: somebody else has to wait for them.
func orphans(words []string) {
	for i := 0; i < number(words[0]); i++ {
		pid, err := fork()
		if pid == 0 && err == 0 {
			fork()
			leave()
		}
		if err != 0 {
			say(err)
			return
		}
		syscall.Wait4(pid, nil, 0, nil)
	}
	fmt.Print("worked")
}

// A daemon that has left its parent and session and keeps standard output.
func stray([]string) {
	if os.Getenv("STRAY") != "" {
		fmt.Print(os.Getpid())
		forever()
	}
	process, err := os.StartProcess("/proc/self/exe", []string{"attacker", "stray"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Env:   []string{"STRAY=1"},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		say(err)
		return
	}
	_ = process.Release()
	fmt.Print("worked ")
}

func fds(words []string) {
	most := number(words[0])
	for i := 0; i < most; i++ {
		if _, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0); err != nil {
			fmt.Printf("%s %d", word(err), i)
			return
		}
	}
	fmt.Printf("worked %d", most)
}

// hoard KIND COUNT takes things that the kernel keeps.
func hoard(words []string) {
	var take func(i int) syscall.Errno
	block := make([]byte, 1<<20)
	switch words[0] {
	case "memfd":
		name := bytePointer("x")
		take = func(int) syscall.Errno {
			fd, _, err := syscall.Syscall(sysMemfdCreate, name, 0, 0)
			if err == 0 {
				_, failed := syscall.Write(int(fd), block)
				err, _ = failed.(syscall.Errno)
			}
			return err
		}
	case "sysv":
		take = func(int) syscall.Errno {
			id, _, err := syscall.Syscall(syscall.SYS_SHMGET, 0, 1<<20, 0o1600)
			if err != 0 {
				return err
			}
			at, _, err := syscall.Syscall(syscall.SYS_SHMAT, id, 0, 0)
			if err == 0 {
				touch(unsafe.Slice((*byte)(unsafe.Add(nil, at)), 1<<20))
				syscall.Syscall(syscall.SYS_SHMCTL, id, 0, 0) // goes with the last process that has it
			}
			return err
		}
	case "mqueue":
		take = func(i int) syscall.Errno {
			name := bytePointer(fmt.Sprintf("sky-%d-%d", os.Getpid(), i))
			fd, _, err := syscall.Syscall6(syscall.SYS_MQ_OPEN, name, syscall.O_RDWR|syscall.O_CREAT, 0o600, 0, 0, 0)
			if err == 0 {
				syscall.Close(int(fd))
				if len(words) > 2 {
					syscall.Syscall(syscall.SYS_MQ_UNLINK, name, 0, 0)
				}
			}
			return err
		}
	case "pipe":
		take = func(int) syscall.Errno {
			ends := make([]int, 2)
			err, _ := syscall.Pipe(ends).(syscall.Errno)
			if err == 0 {
				syscall.SetNonblock(ends[1], true)
				syscall.Write(ends[1], block[:1<<16])
			}
			return err
		}
	case "socket":
		take = func(int) syscall.Errno {
			ends, failed := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			err, _ := failed.(syscall.Errno)
			if err == 0 {
				syscall.SetNonblock(ends[1], true)
				syscall.Write(ends[1], block[:1<<17])
			}
			return err
		}
	case "inotify":
		take = func(int) syscall.Errno {
			_, failed := syscall.InotifyInit()
			err, _ := failed.(syscall.Errno)
			return err
		}
	case "timer":
		take = func(int) syscall.Errno {
			var id int
			_, _, err := syscall.Syscall(syscall.SYS_TIMER_CREATE, 1, 0, uintptr(unsafe.Pointer(&id)))
			return err
		}
	}
	for i := 0; i < number(words[1]); i++ {
		if err := take(i); err != 0 {
			fmt.Print(word(err))
			return
		}
	}
	fmt.Print("worked")
}

// disk FOLDER MEGABYTES writes files of a megabyte each.
func disk(words []string) {
	block := make([]byte, 1<<20)
	for i := 0; i < number(words[1]); i++ {
		if err := os.WriteFile(filepath.Join(words[0], fmt.Sprint("fill", i)), block, 0o600); err != nil {
			say(err)
			return
		}
	}
	fmt.Print("worked")
}

// A program that does not get over a full disk.
func full(words []string) {
	disk(words)
	os.Exit(1)
}

func inodes(words []string) {
	for i := 0; i < number(words[1]); i++ {
		fd, err := syscall.Open(filepath.Join(words[0], fmt.Sprint("inode", i)), syscall.O_CREAT|syscall.O_WRONLY, 0o600)
		if err != nil {
			say(err)
			return
		}
		syscall.Close(fd)
	}
	fmt.Print("worked")
}

// One file of so many megabytes, most of it a hole.
func large(words []string) {
	signal.Ignore(syscall.SIGXFSZ)
	file, err := os.Create(filepath.Join(words[0], "large"))
	if err == nil {
		_, err = file.WriteAt([]byte("x"), int64(number(words[1]))<<20)
	}
	say(err)
}

// Folders within folders, deeper than a path can tell, and a file that nobody may change.
func tree(words []string) {
	err := os.Chdir(words[0])
	for i := 0; i < number(words[1]) && err == nil; i++ {
		if err = syscall.Mkdir("d", 0o700); err == nil {
			err = syscall.Chdir("d")
		}
	}
	if err == nil {
		err = os.WriteFile("f", nil, 0)
	}
	if err == nil {
		err = syscall.Chmod(".", 0)
	}
	say(err)
}

func flood([]string) {
	block := []byte(strings.Repeat("flood ", 10_000))
	for {
		if _, err := os.Stdout.Write(block); err != nil {
			return
		}
	}
}

func trickle([]string) {
	signal.Ignore()
	for {
		fmt.Print(".")
		time.Sleep(20 * time.Millisecond)
	}
}

// spin MILLISECONDS THREADS prints the CPU time used, in milliseconds.
func spin(words []string) {
	until := time.Now().Add(time.Duration(number(words[0])) * time.Millisecond)
	threads := number(words[1])
	runtime.GOMAXPROCS(threads)
	done := make(chan bool)
	for i := 0; i < threads; i++ {
		go func() {
			for time.Now().Before(until) {
			}
			done <- true
		}()
	}
	for i := 0; i < threads; i++ {
		<-done
	}
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	fmt.Print((used.Utime.Nano() + used.Stime.Nano()) / 1_000_000)
}

func deaf([]string) {
	signal.Ignore()
	os.Stdout.WriteString("deaf")
	stay()
}

func limits([]string) {
	for _, which := range []int{rlimitFiles, rlimitFileSize, rlimitCore} {
		var limit syscall.Rlimit
		syscall.Getrlimit(which, &limit)
		fmt.Print(limit.Max, " ")
	}
}

const rlimitFileSize, rlimitCore, rlimitFiles = 1, 4, 7

// raise the limit of open files by one.
func raise([]string) {
	var limit syscall.Rlimit
	syscall.Getrlimit(rlimitFiles, &limit)
	limit.Max++
	say(syscall.Setrlimit(rlimitFiles, &limit))
}

// The kernel and other processes

func kill(words []string) {
	say(syscall.Kill(number(words[0]), syscall.Signal(number(words[1]))))
}

// besiege PID: every signal there is, again and again.
func besiege(words []string) {
	var err error
	for i := 0; i < 6400; i++ {
		err = syscall.Kill(number(words[0]), syscall.Signal(i%64+1))
	}
	say(err)
}

// syscall NUMBER ARGUMENT…: numbers, or text after a colon.
func attempt(words []string) {
	var args [7]uintptr
	for i, text := range words {
		if strings.HasPrefix(text, ":") {
			args[i] = bytePointer(text[1:])
		} else {
			args[i] = uintptr(number(text))
		}
	}
	_, _, err := syscall.Syscall6(args[0], args[1], args[2], args[3], args[4], args[5], args[6])
	say(err)
}

// namespace FLAGS: a child in namespaces of its own.
func namespace(words []string) {
	runtime.LockOSThread()
	pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(number(words[0]))|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && err == 0 {
		leave()
	}
	say(err)
}

// open MODE PATH: r or w, and nothing is written.
func open(words []string) {
	mode := map[string]int{"r": syscall.O_RDONLY, "w": syscall.O_WRONLY}[words[0]]
	_, err := syscall.Open(words[1], mode|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	say(err)
}

func list(words []string) {
	entries, err := os.ReadDir(words[0])
	if err != nil {
		say(err)
		return
	}
	for _, entry := range entries {
		fmt.Print(entry.Name(), " ")
	}
}

func openAtStart() (found []int) {
	for fd := 0; fd < 4096; fd++ {
		if _, _, err := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); err == 0 {
			found = append(found, fd)
		}
	}
	return
}

// Which descriptors we were born with, and what they are. Go's runtime has opened what is its own.
func inherited([]string) {
	for _, fd := range bornWith {
		target, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if !strings.HasPrefix(target, "anon_inode:[event") {
			fmt.Print(fd, " ")
		}
	}
}

func environ([]string) {
	found := os.Environ()
	sort.Strings(found)
	fmt.Print(strings.Join(found, " "))
}

func cwd([]string) {
	folder, err := os.Getwd()
	if err != nil {
		say(err)
		return
	}
	fmt.Print(folder)
}

func mknod(words []string) {
	err := syscall.Mknod(words[0], syscall.S_IFCHR|0o600, 1<<8|7)
	if err == nil {
		os.Remove(words[0])
	}
	say(err)
}

// keyring leave, keyring find: a key for the next call.
func keyring(words []string) {
	kind, name := bytePointer("user"), bytePointer("sky-hostile")
	const sessionKeyring = ^uintptr(2)
	if words[0] == "leave" {
		_, _, err := syscall.Syscall6(syscall.SYS_ADD_KEY, kind, name, bytePointer("x"), 1, sessionKeyring, 0)
		say(err)
		return
	}
	_, _, err := syscall.Syscall6(syscall.SYS_KEYCTL, 10, sessionKeyring, kind, name, 0, 0)
	say(err)
}

// shm leave KEY, shm find KEY, shm remove KEY.
func shm(words []string) {
	key, flags := uintptr(number(words[1])), uintptr(0)
	if words[0] == "leave" {
		flags = 0o1666
	}
	id, _, err := syscall.Syscall(syscall.SYS_SHMGET, key, 4096, flags)
	if words[0] == "remove" {
		syscall.Syscall(syscall.SYS_SHMCTL, id, 0, 0)
	}
	say(err)
	if words[0] == "leave" && len(words) > 2 {
		stay()
	}
}

// rewrite PATH: keep what runs there open for reading, and write to it by way of /proc once it is free.
func rewrite(words []string) {
	fd, err := syscall.Open(words[0], syscall.O_RDONLY, 0)
	if err != nil {
		say(err)
		return
	}
	if len(words) > 1 {
		syscall.Kill(number(words[1]), syscall.SIGKILL)
	}
	for i := 0; i < 100; i++ {
		if _, err = syscall.Open(fmt.Sprint("/proc/self/fd/", fd), syscall.O_WRONLY, 0); err != syscall.ETXTBSY {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	say(err)
}

func chroot(words []string) {
	say(syscall.Chroot(words[0]))
}

// handle PATH: open a file by its handle, past all mounts.
func handle(words []string) {
	buffer := make([]byte, 136)
	buffer[0] = 128
	mount := 0
	at := ^uintptr(99)
	_, _, err := syscall.Syscall6(sysNameToHandleAt, at, bytePointer(words[0]),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&mount)), 0, 0)
	if err == 0 {
		folder, _ := syscall.Open("/", syscall.O_RDONLY, 0)
		_, _, err = syscall.Syscall(sysOpenByHandleAt, uintptr(folder), uintptr(unsafe.Pointer(&buffer[0])), 0)
	}
	say(err)
}

// lock PATH: an exclusive lock on a file opened for reading, kept until the end.
func lock(words []string) {
	fd, err := syscall.Open(words[0], syscall.O_RDONLY, 0)
	if err == nil {
		err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	}
	say(err)
	if err == nil && len(words) > 1 {
		stay()
	}
}

// tell PATH VALUE: a POSIX lock on this byte of a file opened for reading, kept until the end.
func tell(words []string) {
	fd, err := syscall.Open(words[0], syscall.O_RDONLY, 0)
	if err == nil {
		value := syscall.Flock_t{Type: syscall.F_RDLCK, Start: int64(number(words[1])), Len: 1}
		err = syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, &value)
	}
	say(err)
	if err == nil {
		stay()
	}
}

// hear PATH: which byte of it somebody has locked.
func hear(words []string) {
	fd, err := syscall.Open(words[0], syscall.O_RDONLY, 0)
	value := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err == nil {
		err = syscall.FcntlFlock(uintptr(fd), syscall.F_GETLK, &value)
	}
	if err != nil {
		say(err)
	} else if value.Type == syscall.F_UNLCK {
		fmt.Print("nothing")
	} else {
		fmt.Print(value.Start)
	}
}

// watch PATH MILLISECONDS: whether somebody opens it, or what is in it, within this time.
func watch(words []string) {
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK)
	if err == nil {
		_, err = syscall.InotifyAddWatch(fd, words[0], syscall.IN_OPEN|syscall.IN_ACCESS|syscall.IN_CLOSE)
	}
	if err != nil {
		say(err)
		return
	}
	os.Stdout.WriteString("watching ")
	for i := 0; i < number(words[1])/5; i++ {
		if n, _ := syscall.Read(fd, make([]byte, 4096)); n > 0 {
			fmt.Print("seen")
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Print("nothing")
}

// read PATH: what is in it.
func read(words []string) {
	text, err := os.ReadFile(words[0])
	if err != nil {
		say(err)
		return
	}
	os.Stdout.Write(text)
}

// write PATH TEXT
func write(words []string) {
	fd, err := syscall.Open(words[0], syscall.O_WRONLY, 0)
	if err == nil {
		_, err = syscall.Write(fd, []byte(words[1]))
	}
	say(err)
}

// pretend CODE TEXT: to be who would say this and end like this.
func pretend(words []string) {
	os.Stderr.WriteString(words[1])
	os.Exit(number(words[0]))
}

func ids([]string) {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		for _, name := range []string{"Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(line, name) {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
}

// The network

// listen NETWORK ADDRESS: says "worked" and takes whoever comes.
func listen(words []string) {
	if words[0] == "udp" {
		_, err := net.ListenPacket("udp", words[1])
		say(err)
		stay()
	}
	listener, err := net.Listen(words[0], words[1])
	say(err)
	if err != nil {
		return
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		client.Close()
	}
}

func connect(words []string) {
	client, err := net.DialTimeout(words[0], words[1], 2*time.Second)
	if err == nil && strings.HasPrefix(words[0], "udp") {
		_, err = client.Write([]byte("x"))
	}
	say(err)
}

func lookup(words []string) {
	found, err := net.LookupHost(words[0])
	if err != nil {
		fmt.Print("unknown")
		return
	}
	fmt.Print(strings.Join(found, " "))
}

func socket(words []string) {
	_, err := syscall.Socket(number(words[0]), number(words[1]), number(words[2]))
	say(err)
}

// passed give SOCKET FOLDER, passed take SOCKET: a folder's descriptor from one process to another.
func passed(words []string) {
	if words[0] == "give" {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: words[1]})
		say(err)
		if err != nil {
			return
		}
		client, err := listener.AcceptUnix()
		if err == nil {
			folder, _ := syscall.Open(words[2], syscall.O_RDONLY, 0)
			client.WriteMsgUnix([]byte("x"), syscall.UnixRights(folder), nil)
		}
		return
	}
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: words[1]})
	if err == nil {
		_, _, _, _, err = client.ReadMsgUnix(make([]byte, 1), make([]byte, 64))
		if err == io.EOF {
			err = syscall.EBADF
		}
	}
	say(err)
}
