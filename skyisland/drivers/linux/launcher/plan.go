package main

import (
	"syscall"
	"unsafe"
)

// Numbers of the kernel's headers that package syscall does not have.
const (
	atFdcwd            = ^uintptr(99) // -100
	oPath              = 0x200000
	mntDetach          = 2
	openTreeClone      = 1
	moveFromEmptyPath  = 0x04 // MOVE_MOUNT_F_EMPTY_PATH
	moveToSymlinks     = 0x10 // MOVE_MOUNT_T_SYMLINKS
	cloneNewCgroup     = 0x02000000
	ioctlSetFlags      = 0x8914 // SIOCSIFFLAGS
	seccompModeFilter  = 2
	prSetPdeathsig     = 1
	prSetDumpable      = 4
	prSetSeccomp       = 22
	prCapbsetDrop      = 24
	prSetNoNewPrivs    = 38
	prCapAmbient       = 47
	capAmbientClearAll = 4
	sysOpenTree        = 428
	sysMoveMount       = 429
	sysCloseRange      = 436
	lastCapability     = 63 // the kernel's capability sets have 64 bits
	nosuidNodev        = syscall.MS_NOSUID | syscall.MS_NODEV
)

// step is a system call of a plan. If it fails, the plan has failed, except with the tolerated error.
type step struct {
	call      uintptr
	args      [5]uintptr
	tolerated syscall.Errno
	action    string
	object    *byte
}

// failure is a step that failed: the error, what it was to do, and with which path or name, if any.
type failure struct {
	errno  syscall.Errno
	action string
	object *byte
}

var (
	plan   [256]step
	steps  int
	failed failure

	scratch, devices, root, upper, upperTmp, work, base, file, layer, empty *byte
	permanent, perJail                                                      store

	filter struct {
		length       uint16
		instructions *byte
	}
	code     [1 << 15]byte // BPF_MAXINSNS instructions of 8 bytes
	loopback = struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{name: [16]byte{'l', 'o'}, flags: syscall.IFF_UP}
)

// do adds a step to the plan. If the plan is full, it sets failed.
func do(action string, object *byte, call uintptr, args ...uintptr) *step {
	if steps == len(plan)-1 {
		failed = failure{syscall.E2BIG, "plan to", object}
	} else {
		steps++
	}
	s := &plan[steps-1]
	*s = step{call: call, action: action, object: object}
	copy(s.args[:], args)
	return s
}

func mount(source, target, kind *byte, flags uintptr, options *byte) {
	do("mount", target, syscall.SYS_MOUNT, word(source), word(target), word(kind), flags, word(options))
}

// setPaths makes the paths below the scratch folder that every jail uses.
func setPaths(scratchFolder *byte) {
	length := size(scratchFolder)
	scratch = permanent.join(scratchFolder, length, "")
	devices = permanent.join(scratchFolder, length, "/dev")
	root = permanent.join(scratchFolder, length, "/root")
	upper = permanent.join(scratchFolder, length, "/upper")
	upperTmp = permanent.join(scratchFolder, length, "/upper/tmp")
	work = permanent.join(scratchFolder, length, "/work")
	base = permanent.join(scratchFolder, length, "/base")
	file = permanent.join(scratchFolder, length, "/file")
	layer = permanent.join(scratchFolder, length, "/layer")
	empty = permanent.join(scratchFolder, length, "/empty")
}

// planLauncher plans what the launcher does once, before its first jail.
func planLauncher(instructions []byte) {
	filter.length = uint16(copy(code[:], instructions) / 8)
	filter.instructions = &code[0]
	steps = 0
	do("die with the island", nil, syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGKILL))
	do("leave the mounts of the host", nil, syscall.SYS_UNSHARE, syscall.CLONE_NEWNS)
	// Slave mounts: we see what the host mounts later, clones for example; the host does not see our mounts.
	mount(nil, cstr("/\x00"), nil, syscall.MS_REC|syscall.MS_SLAVE, nil)
	do("set the umask", nil, syscall.SYS_UMASK, 0)
	for capability := uintptr(0); capability <= lastCapability; capability++ {
		// EINVAL: this kernel does not have that capability.
		do("drop a capability", nil, syscall.SYS_PRCTL, prCapbsetDrop, capability).tolerated = syscall.EINVAL
	}
	do("drop the ambient capabilities", nil, syscall.SYS_PRCTL, prCapAmbient, capAmbientClearAll, 0, 0, 0)
}

// planDevices makes the jail's devices on its scratch tmpfs. Jails share none: on an inode that two have, a
// lock of one is seen by the other, and so is each time that it is opened (inotify(7)).
func planDevices() {
	makeFolder(devices)
	makeDevice("/null", 1, 3)
	makeDevice("/zero", 1, 5)
	makeDevice("/full", 1, 7)
	makeDevice("/random", 1, 8)
	makeDevice("/urandom", 1, 9)
	makeLink(cstr("/proc/self/fd\x00"), perJail.join(devices, size(devices), "/fd"))
	makeLink(cstr("/proc/self/fd/0\x00"), perJail.join(devices, size(devices), "/stdin"))
	makeLink(cstr("/proc/self/fd/1\x00"), perJail.join(devices, size(devices), "/stdout"))
	makeLink(cstr("/proc/self/fd/2\x00"), perJail.join(devices, size(devices), "/stderr"))
	do("set the umask", nil, syscall.SYS_UMASK, 0o022) // the launcher's is 0, for the devices
}

func makeDevice(name string, major, minor uintptr) {
	path := perJail.join(devices, size(devices), name)
	do("make", path, syscall.SYS_MKNODAT, atFdcwd, word(path), syscall.S_IFCHR|0o666, major<<8|minor)
}

func makeLink(target, path *byte) {
	do("make", path, syscall.SYS_SYMLINKAT, word(target), atFdcwd, word(path))
}

// planJail plans everything that init does before it starts the function; false, and failed is set, if that
// is impossible.
func planJail() bool {
	steps = 0
	perJail.clear()
	failed = failure{}
	if !jail.inspect() {
		return false
	}
	planDescriptors()
	planCgroups()
	planRoot()
	planMounts()
	planConfinement()
	return failed.errno == 0
}

// planDescriptors makes the four descriptors of the order 0 to 3, the last one close-on-exec, and closes all
// others. The four are in rising order and above 2, because 0 to 2 are taken in the launcher: so no dup3
// overwrites one that is still to be moved.
func planDescriptors() {
	for i := uintptr(0); i < orderFDs; i++ {
		flags := uintptr(0)
		if i == statusFD {
			flags = syscall.O_CLOEXEC
		}
		do("arrange descriptors", nil, syscall.SYS_DUP3, uintptr(received.fds[i]), i, flags)
	}
	closeFrom(statusFD + 1)
	// From here on the kernel gives the lowest free number, statusFD+1, to the next descriptor opened.
	do("die with the launcher", nil, syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGKILL))
	// Init inherits the launcher's SIG_IGN, with which the kernel reaps its children unseen.
	do("mind our children", nil, syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), at(&defaultAction), 0, 8)
}

func closeFrom(first uintptr) {
	do("close descriptors", nil, sysCloseRange, first, uintptr(^uint32(0)), 0)
}

func writeFile(file *byte, text *byte) {
	do("write to", file, syscall.SYS_OPENAT, atFdcwd, word(file), syscall.O_WRONLY)
	do("write to", file, syscall.SYS_WRITE, statusFD+1, word(text), uintptr(size(text)))
	do("write to", file, syscall.SYS_CLOSE, statusFD+1)
}

// planCgroups joins the cgroups, and only then makes a cgroup namespace, whose root they become.
func planCgroups() {
	for i := 0; i < jail.cgroupFiles.count; i++ {
		writeFile(jail.cgroupFiles.words[i], cstr("0\x00"))
	}
	do("unshare the cgroups", nil, syscall.SYS_UNSHARE, cloneNewCgroup)
	// When the host runs out of memory, the kernel kills jails before the island.
	writeFile(cstr("/proc/self/oom_score_adj\x00"), cstr("1000\x00"))
}

// planRoot mounts the jail's root: the clone, or an overlay on a tmpfs of its own.
func planRoot() {
	// Private mounts: from here on we see nothing that the host mounts later.
	mount(nil, cstr("/\x00"), nil, syscall.MS_REC|syscall.MS_PRIVATE, nil)
	mount(cstr("tmpfs\x00"), scratch, cstr("tmpfs\x00"), nosuidNodev, jail.scratchOptions)
	planDevices()
	makeFolder(root)
	makeFolder(empty)
	makeFolder(layer)
	// Options of overlays are relative to here, and lower layers are symbolic links, because the jail can
	// read them in its mountinfo: they tell it nothing of where the island keeps its files.
	do("enter", scratch, syscall.SYS_CHDIR, word(scratch))
	if jail.cloneRoot != nil {
		mount(jail.cloneRoot, root, nil, syscall.MS_BIND|syscall.MS_REC, nil)
		return
	}
	makeFolder(upper)
	makeFolder(upperTmp)
	do("open to all", upperTmp, syscall.SYS_FCHMODAT, atFdcwd, word(upperTmp), 0o1777)
	makeFolder(work)
	makeLink(jail.baseRoot, base)
	overlay(root, 0, cstr("lowerdir=base,upperdir=upper,workdir=work\x00"))
}

func overlay(target *byte, flags uintptr, options *byte) {
	mount(cstr("overlay\x00"), target, cstr("overlay\x00"), nosuidNodev|flags, options)
}

func makeFolder(path *byte) *step {
	return do("make", path, syscall.SYS_MKDIRAT, atFdcwd, word(path), 0o755)
}

// planMounts pivots into the jail's root and mounts /proc, /dev and the order's paths there. Those of the
// host are opened before the pivot and mounted after it: so their targets are resolved inside the new root,
// and no symbolic link in it can lead out.
func planMounts() {
	openTree(devices)
	for i := 0; i < jail.mountCount; i++ {
		if jail.mounts[i].shared {
			openTree(jail.mounts[i].source)
		} else {
			openOwnFile(jail.mounts[i].source)
		}
	}
	do("enter", root, syscall.SYS_CHDIR, word(root))
	dot, top := cstr(".\x00"), cstr("/\x00")
	// pivot_root(".", ".") mounts the old root over the new one (pivot_root(2)), where umount finds it.
	do("make a root of", root, syscall.SYS_PIVOT_ROOT, word(dot), word(dot))
	do("leave the old root", nil, syscall.SYS_UMOUNT2, word(dot), mntDetach)
	do("enter", top, syscall.SYS_CHDIR, word(top))
	// Processes only, nothing of the host; and a process cannot undo what init wrote about it (oom_score_adj).
	flags := uintptr(nosuidNodev | syscall.MS_NOEXEC | syscall.MS_RDONLY)
	mount(cstr("proc\x00"), cstr("/proc\x00"), cstr("proc\x00"), flags, cstr("subset=pid\x00"))
	moveMount(0, cstr("/dev\x00"))
	flags = syscall.MS_REMOUNT | syscall.MS_BIND | syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NOEXEC
	mount(nil, cstr("/dev\x00"), nil, flags, nil)
	for i := 0; i < jail.mountCount; i++ {
		planBindMount(uintptr(i)+1, &jail.mounts[i])
	}
	closeFrom(statusFD + 1)
	do("name the jail", jail.name, syscall.SYS_SETHOSTNAME, word(jail.name), uintptr(size(jail.name)))
	if !jail.hostNetwork {
		do("raise the loopback", nil, syscall.SYS_SOCKET, syscall.AF_INET, syscall.SOCK_DGRAM)
		do("raise the loopback", nil, syscall.SYS_IOCTL, statusFD+1, ioctlSetFlags, at(&loopback))
		do("raise the loopback", nil, syscall.SYS_CLOSE, statusFD+1)
	}
}

// openOwnFile opens a file by way of a read-only overlay over its folder: the pages are those of the host's
// file, the inode is the jail's own, with its own locks and watchers. Only the file is mounted in the jail.
func openOwnFile(source *byte) {
	folder := size(source)
	for folder > 0 && *after(source, folder) != '/' {
		folder--
	}
	makeLink(perJail.join(source, folder, ""), file)
	overlay(layer, syscall.MS_RDONLY, cstr("lowerdir=file:empty\x00"))
	do("remove", file, syscall.SYS_UNLINKAT, atFdcwd, word(file), 0)
	name := after(source, folder)
	openTree(perJail.join(layer, size(layer), unsafe.String(name, size(name))))
}

// openTree opens a detached copy of a mount. It stays open as the next descriptor from statusFD+1 on.
func openTree(source *byte) {
	do("take hold of", source, sysOpenTree, atFdcwd, word(source), openTreeClone)
}

// moveMount mounts what the openTree with this number, from 0 on, has opened.
func moveMount(number uintptr, target *byte) {
	tree, itself := statusFD+1+number, word(cstr("\x00"))
	do("mount on", target, sysMoveMount, tree, itself, atFdcwd, word(target), moveFromEmptyPath|moveToSymlinks)
}

// planBindMount mounts a path of the host in the jail, and makes the target and the folders above it.
func planBindMount(number uintptr, m *bindMount) {
	length := size(m.target)
	for i := 1; i < length; i++ {
		if *after(m.target, i) == '/' {
			makeFolder(perJail.join(m.target, i, "")).tolerated = syscall.EEXIST
		}
	}
	if m.folder {
		makeFolder(m.target).tolerated = syscall.EEXIST
	} else {
		file := do("make", m.target, syscall.SYS_MKNODAT, atFdcwd, word(m.target), syscall.S_IFREG|0o644, 0)
		file.tolerated = syscall.EEXIST
	}
	moveMount(number, m.target)
	flags := uintptr(syscall.MS_REMOUNT | syscall.MS_BIND | nosuidNodev)
	if !m.writable {
		flags |= syscall.MS_RDONLY
	}
	mount(nil, m.target, nil, flags, nil)
}

// planConfinement gives up being root for good: uid, capabilities, privileges, system calls.
func planConfinement() {
	for i := 0; i < jail.limitCount; i++ {
		l := &jail.limits[i]
		do("set a limit", nil, syscall.SYS_PRLIMIT64, 0, l.resource, at(&l.softHard), 0)
	}
	do("begin a session", nil, syscall.SYS_SETSID)
	do("leave all groups", nil, syscall.SYS_SETGROUPS, 0, 0)
	do("change the gid", nil, syscall.SYS_SETRESGID, jail.uid, jail.uid, jail.uid)
	// Without uid 0 in any of the three, the kernel clears all capabilities (capabilities(7)).
	do("change the uid", nil, syscall.SYS_SETRESUID, jail.uid, jail.uid, jail.uid)
	// A change of uid clears the parent-death signal, and sets the dumpable flag to fs.suid_dumpable, with
	// which a process of the same uid could be allowed to read init's memory.
	do("die with the launcher", nil, syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGKILL))
	do("close our memory", nil, syscall.SYS_PRCTL, prSetDumpable, 0)
	do("gain no privileges", nil, syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0)
	do("load the filter", nil, syscall.SYS_PRCTL, prSetSeccomp, seccompModeFilter, at(&filter))
	do("enter", jail.cwd, syscall.SYS_CHDIR, word(jail.cwd))
}
