package main

import "syscall"

// Numbers from the kernel's headers that package syscall lacks.
const (
	here           = ^uintptr(99) // AT_FDCWD: -100
	asPath         = 0x200000     // O_PATH
	detach         = 2            // MNT_DETACH
	cloneTree      = 1            // OPEN_TREE_CLONE
	ofSource       = 0x04         // MOVE_MOUNT_F_EMPTY_PATH
	throughLinks   = 0x10         // MOVE_MOUNT_T_SYMLINKS
	newCgroup      = 0x02000000   // CLONE_NEWCGROUP
	setFlags       = 0x8914       // SIOCSIFFLAGS
	filterMode     = 2            // SECCOMP_MODE_FILTER
	onDeath        = 1            // PR_SET_PDEATHSIG, and so on
	dumpable       = 4
	seccomp        = 22
	dropBounding   = 24
	noNewPrivs     = 38
	ambient        = 47
	clearAmbient   = 4
	sysOpenTree    = 428
	sysMoveMount   = 429
	sysCloseRange  = 436
	lastCapability = 63
	harmless       = syscall.MS_NOSUID | syscall.MS_NODEV
)

// step is a system call that must succeed.
type step struct {
	call   uintptr
	with   [5]uintptr
	unless syscall.Errno // which is no failure
	what   string
	whom   *byte
}

type failure struct {
	errno syscall.Errno
	what  string
	whom  *byte
}

var (
	plan   [256]step
	steps  int
	failed failure

	scratch, devices            *byte
	root, upper, upperTmp, work *byte
	lasting, passing            store

	filter struct {
		length       uint16
		instructions *byte
	}
	code     [1 << 15]byte
	loopback = struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{name: [16]byte{'l', 'o'}, flags: syscall.IFF_UP}
)

// do adds a step to the plan.
func do(what string, whom *byte, call uintptr, with ...uintptr) *step {
	if steps == len(plan)-1 {
		failed = failure{syscall.E2BIG, "plan to", whom}
	} else {
		steps++
	}
	s := &plan[steps-1]
	*s = step{call: call, what: what, whom: whom}
	copy(s.with[:], with)
	return s
}

func mount(source, target, kind *byte, flags uintptr, options *byte) {
	do("mount", target, syscall.SYS_MOUNT, word(source), word(target), word(kind), flags, word(options))
}

// settle makes the names of the folders that every jail has.
func settle(given *byte) {
	length := size(given)
	scratch = given
	devices = lasting.join(given, length, ".dev")
	root = lasting.join(given, length, "/root")
	upper = lasting.join(given, length, "/upper")
	upperTmp = lasting.join(given, length, "/upper/tmp")
	work = lasting.join(given, length, "/work")
}

// prepare plans what the launcher does once, for itself and all jails.
func prepare(instructions []byte) {
	filter.length = uint16(copy(code[:], instructions) / 8)
	filter.instructions = &code[0]
	steps = 0
	do("die with the island", nil, syscall.SYS_PRCTL, onDeath, uintptr(syscall.SIGKILL))
	do("leave the mounts of the host", nil, syscall.SYS_UNSHARE, syscall.CLONE_NEWNS)
	// What the host mounts is seen here, clones that it makes later among it; ours is not seen there.
	mount(nil, c("/\x00"), nil, syscall.MS_REC|syscall.MS_SLAVE, nil)
	tmpfs, flags := c("tmpfs\x00"), uintptr(syscall.MS_NOSUID|syscall.MS_NOEXEC)
	mount(tmpfs, devices, tmpfs, flags, c("mode=755,size=64k\x00"))
	do("set the umask", nil, syscall.SYS_UMASK, 0)
	device("/null", 1, 3)
	device("/zero", 1, 5)
	device("/full", 1, 7)
	device("/random", 1, 8)
	device("/urandom", 1, 9)
	link("/proc/self/fd\x00", "/fd")
	link("/proc/self/fd/0\x00", "/stdin")
	link("/proc/self/fd/1\x00", "/stdout")
	link("/proc/self/fd/2\x00", "/stderr")
	mount(nil, devices, nil, syscall.MS_REMOUNT|syscall.MS_RDONLY|flags, nil)
	do("set the umask", nil, syscall.SYS_UMASK, 0o022)
	for capability := uintptr(0); capability <= lastCapability; capability++ {
		do("drop a capability", nil, syscall.SYS_PRCTL, dropBounding, capability).unless = syscall.EINVAL
	}
	do("drop the ambient capabilities", nil, syscall.SYS_PRCTL, ambient, clearAmbient, 0, 0, 0)
}

func device(name string, major, minor uintptr) {
	path := lasting.join(devices, size(devices), name)
	do("make", path, syscall.SYS_MKNODAT, here, word(path), syscall.S_IFCHR|0o666, major<<8|minor)
}

func link(target, name string) {
	path := lasting.join(devices, size(devices), name)
	do("make", path, syscall.SYS_SYMLINKAT, word(c(target)), here, word(path))
}

// draw plans the jail that is wanted, from init's first step to the function's start; false, and failed, if
// that cannot be.
func draw() bool {
	steps = 0
	passing.clear()
	failed = failure{}
	if !wanted.inspect() {
		return false
	}
	arrange()
	join()
	layRoot()
	enter()
	confine()
	return failed.errno == 0
}

// arrange makes the four descriptors of the order 0 to 3, the last closed by exec, and closes all others.
// They are in rising order and the launcher has a 0, 1 and 2, so none is overwritten before its turn.
func arrange() {
	for i := uintptr(0); i < standards; i++ {
		flags := uintptr(0)
		if i == status {
			flags = syscall.O_CLOEXEC
		}
		do("arrange descriptors", nil, syscall.SYS_DUP3, uintptr(received.fds[i]), i, flags)
	}
	closeFrom(status + 1)
	// From here on a descriptor that a step opens is the next number.
	do("die with the launcher", nil, syscall.SYS_PRCTL, onDeath, uintptr(syscall.SIGKILL))
	do("mind our children", nil, syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), at(&asDefault), 0, 8)
}

func closeFrom(first uintptr) {
	do("close descriptors", nil, sysCloseRange, first, uintptr(^uint32(0)), 0)
}

func put(file *byte, text *byte) {
	do("write to", file, syscall.SYS_OPENAT, here, word(file), syscall.O_WRONLY)
	do("write to", file, syscall.SYS_WRITE, status+1, word(text), uintptr(size(text)))
	do("write to", file, syscall.SYS_CLOSE, status+1)
}

func join() {
	for i := 0; i < wanted.groups.count; i++ {
		put(wanted.groups.words[i], c("0\x00"))
	}
	do("unshare the cgroups", nil, syscall.SYS_UNSHARE, newCgroup)
	// When the host runs out of memory, jails go before the island.
	put(c("/proc/self/oom_score_adj\x00"), c("1000\x00"))
}

func layRoot() {
	// From here on nothing that the host mounts is seen.
	mount(nil, c("/\x00"), nil, syscall.MS_REC|syscall.MS_PRIVATE, nil)
	mount(c("tmpfs\x00"), scratch, c("tmpfs\x00"), harmless, wanted.scratch)
	folder(root)
	if wanted.clone != nil {
		mount(wanted.clone, root, nil, syscall.MS_BIND|syscall.MS_REC, nil)
		return
	}
	folder(upper)
	folder(upperTmp)
	do("open to all", upperTmp, syscall.SYS_FCHMODAT, here, word(upperTmp), 0o1777)
	folder(work)
	mount(c("overlay\x00"), root, c("overlay\x00"), harmless, wanted.layers)
}

func folder(path *byte) *step {
	return do("make", path, syscall.SYS_MKDIRAT, here, word(path), 0o755)
}

// enter makes the jail's root ours. What is mounted from the host is taken hold of before, and put in its
// place after, so that no link in the jail's root can lead out of it.
func enter() {
	hold(devices)
	for i := 0; i < wanted.mountCount; i++ {
		hold(wanted.mounts[i].source)
	}
	do("enter", root, syscall.SYS_CHDIR, word(root))
	dot, top := c(".\x00"), c("/\x00")
	do("make a root of", root, syscall.SYS_PIVOT_ROOT, word(dot), word(dot))
	// Old root and new lie on one another now; the upper one is the old.
	do("leave the old root", nil, syscall.SYS_UMOUNT2, word(dot), detach)
	do("enter", top, syscall.SYS_CHDIR, word(top))
	mount(c("proc\x00"), c("/proc\x00"), c("proc\x00"), harmless|syscall.MS_NOEXEC, nil)
	place(0, c("/dev\x00"))
	for i := 0; i < wanted.mountCount; i++ {
		show(uintptr(i)+1, &wanted.mounts[i])
	}
	closeFrom(status + 1)
	do("name the jail", wanted.name, syscall.SYS_SETHOSTNAME, word(wanted.name), uintptr(size(wanted.name)))
	if !wanted.hostNetwork {
		do("raise the loopback", nil, syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_DGRAM)
		do("raise the loopback", nil, syscall.SYS_IOCTL, status+1, setFlags, at(&loopback))
		do("raise the loopback", nil, syscall.SYS_CLOSE, status+1)
	}
}

func hold(source *byte) {
	do("take hold of", source, sysOpenTree, here, word(source), cloneTree)
}

// place puts the mount with this number, in the order of holding, where it belongs.
func place(number uintptr, target *byte) {
	held, itself := status+1+number, word(c("\x00"))
	do("mount on", target, sysMoveMount, held, itself, here, word(target), ofSource|throughLinks)
}

// show lets the jail see a path of the host, at a place that is made if it is not there.
func show(number uintptr, m *mounting) {
	length := size(m.target)
	for i := 1; i < length; i++ {
		if *after(m.target, i) == '/' {
			folder(passing.join(m.target, i, "")).unless = syscall.EEXIST
		}
	}
	if m.folder {
		folder(m.target).unless = syscall.EEXIST
	} else {
		file := do("make", m.target, syscall.SYS_MKNODAT, here, word(m.target), syscall.S_IFREG|0o644, 0)
		file.unless = syscall.EEXIST
	}
	place(number, m.target)
	flags := uintptr(syscall.MS_REMOUNT | syscall.MS_BIND | harmless)
	if !m.writable {
		flags |= syscall.MS_RDONLY
	}
	mount(nil, m.target, nil, flags, nil)
}

// confine plans the end of being root, after which nothing of it can come back.
func confine() {
	for i := 0; i < wanted.limitCount; i++ {
		l := &wanted.limits[i]
		do("set a limit", nil, syscall.SYS_PRLIMIT64, 0, l.which, at(&l.most), 0)
	}
	do("begin a session", nil, syscall.SYS_SETSID)
	do("leave all groups", nil, syscall.SYS_SETGROUPS, 0, 0)
	do("change the gid", nil, syscall.SYS_SETRESGID, wanted.uid, wanted.uid, wanted.uid)
	// With uid 0 every capability goes.
	do("change the uid", nil, syscall.SYS_SETRESUID, wanted.uid, wanted.uid, wanted.uid)
	// A change of uid forgets this wish, and lets the host's settings decide whether its new self may look
	// into the memory of the old.
	do("die with the launcher", nil, syscall.SYS_PRCTL, onDeath, uintptr(syscall.SIGKILL))
	do("close our memory", nil, syscall.SYS_PRCTL, dumpable, 0)
	do("gain no privileges", nil, syscall.SYS_PRCTL, noNewPrivs, 1, 0, 0, 0)
	do("load the filter", nil, syscall.SYS_PRCTL, seccomp, filterMode, at(&filter))
	do("enter", wanted.cwd, syscall.SYS_CHDIR, word(wanted.cwd))
}
