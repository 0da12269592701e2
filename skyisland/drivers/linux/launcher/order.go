package main

import "syscall"

// bindMount is a path of the host that the jail sees. A file that is not shared is another inode there.
type bindMount struct {
	source, target           *byte
	writable, folder, shared bool
}

// limit is a resource number with its struct rlimit64.
type limit struct {
	resource uintptr
	softHard [2]uint64
}

// order describes the jail that the island wants. Its words point into the message.
type order struct {
	name, cloneCgroup, scratchOptions, baseRoot, cloneRoot, cwd *byte
	uid                                                         uintptr
	hostNetwork                                                 bool
	cgroupFiles, argv, env                                      list
	mounts                                                      [64]bindMount
	mountCount                                                  int
	limits                                                      [8]limit
	limitCount                                                  int
}

func (o *order) clear() {
	o.name, o.cloneCgroup, o.scratchOptions, o.baseRoot, o.cloneRoot, o.cwd = nil, nil, nil, nil, nil, nil
	o.uid, o.hostNetwork, o.mountCount, o.limitCount = 0, false, 0, 0
	o.cgroupFiles.clear()
	o.argv.clear()
	o.env.clear()
}

// read parses a message; false if a word is unknown or too many, or if a necessary one is missing.
func (o *order) read(message []byte) bool {
	o.clear()
	if len(message) == 0 || message[len(message)-1] != 0 {
		return false
	}
	for i := 0; i < len(message); i++ {
		start := i
		for message[i] != 0 {
			i++
		}
		if start == i || !o.take(message[start], after(&message[start], 1)) {
			return false
		}
	}
	return o.complete()
}

// take parses one word, without its first letter, which is its kind.
func (o *order) take(kind byte, word *byte) bool {
	switch kind {
	case 'n': // the jail's name, and its host name
		o.name = word
	case 'b': // the folder of a cgroup (version 2) to clone init into: cheaper than to join it afterwards
		o.cloneCgroup = word
	case 'g': // a cgroup's file to which init writes 0 to join
		return o.cgroupFiles.add(word)
	case 't': // mount options of its scratch tmpfs
		o.scratchOptions = word
	case 'o': // the folder over which its root is an overlay
		o.baseRoot = word
	case 'c': // instead of an overlay: the folder that is its root
		o.cloneRoot = word
	case 'r', 's', 'w': // a path of the host that it sees: read-only, read-only and the same inode, writable
		return o.mount(word, kind)
	case 'i': // the absolute path of the last r, s or w inside the jail
		return o.mountAt(word)
	case 'h': // the jail is in the host's network namespace
		o.hostNetwork = true
	case 'l': // a resource limit: NUMBER=MAXIMUM
		return o.limit(word)
	case 'u': // the uid and gid on the host
		o.uid, _ = decimal(word)
	case 'd': // the working directory
		o.cwd = word
	case 'a':
		return o.argv.add(word)
	case 'e': // NAME=value
		return o.env.add(word)
	default:
		return false
	}
	return true
}

func (o *order) mount(source *byte, kind byte) bool {
	if o.mountCount == len(o.mounts) {
		return false
	}
	o.mounts[o.mountCount] = bindMount{source: source, writable: kind == 'w', shared: kind != 'r'}
	o.mountCount++
	return true
}

func (o *order) mountAt(target *byte) bool {
	if o.mountCount == 0 || *target != '/' {
		return false
	}
	o.mounts[o.mountCount-1].target = target
	return true
}

func (o *order) limit(word *byte) bool {
	if o.limitCount == len(o.limits) {
		return false
	}
	resource, rest := decimal(word)
	maximum, _ := decimal(after(rest, 1))
	o.limits[o.limitCount] = limit{resource, [2]uint64{uint64(maximum), uint64(maximum)}}
	o.limitCount++
	return true
}

// complete is false if a word is missing without which the jail would not be confined or could not run.
func (o *order) complete() bool {
	for i := 0; i < o.mountCount; i++ {
		if o.mounts[i].target == nil {
			return false
		}
	}
	oneRoot := (o.baseRoot != nil) != (o.cloneRoot != nil)
	return o.name != nil && o.scratchOptions != nil && oneRoot && o.cwd != nil && o.uid != 0 && o.argv.count > 0
}

// inspect finds out which of the mounts are folders; false, and failed is set, if one cannot be opened.
func (o *order) inspect() bool {
	for i := 0; i < o.mountCount; i++ {
		fd, _, errno := syscall.RawSyscall6(
			syscall.SYS_OPENAT, atFdcwd, at(o.mounts[i].source), oPath|syscall.O_CLOEXEC, 0, 0, 0)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall(syscall.SYS_FSTAT, fd, at(&stat), 0)
			syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		}
		if errno != 0 {
			failed = failure{errno, "look at", o.mounts[i].source}
			return false
		}
		o.mounts[i].folder = stat.Mode&syscall.S_IFMT == syscall.S_IFDIR
		o.mounts[i].shared = o.mounts[i].shared || o.mounts[i].folder
	}
	return true
}

var stat syscall.Stat_t
