package main

import "syscall"

// mounting is a path of the host that the jail sees.
type mounting struct {
	source, target   *byte
	writable, folder bool
}

// limit is struct rlimit64 with its number.
type limit struct {
	which uintptr
	most  [2]uint64
}

// order is what the island wants: one jail.
type order struct {
	name, birthplace, scratch, layers, clone, cwd *byte
	uid                                           uintptr
	hostNetwork                                   bool
	groups, argv, env                             list
	mounts                                        [64]mounting
	mountCount                                    int
	limits                                        [8]limit
	limitCount                                    int
}

func (o *order) clear() {
	o.name, o.birthplace, o.scratch, o.layers, o.clone, o.cwd = nil, nil, nil, nil, nil, nil
	o.uid, o.hostNetwork, o.mountCount, o.limitCount = 0, false, 0, 0
	o.groups.clear()
	o.argv.clear()
	o.env.clear()
}

// read takes an order from the words of a message, which it points into; tells whether all of it was
// understood.
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
	return o.whole()
}

func (o *order) take(kind byte, word *byte) bool {
	switch kind {
	case 'n': // the jail's name, and its host name
		o.name = word
	case 'b': // the cgroup (version 2) to be born in, for which the kernel waits less than for one who joins
		o.birthplace = word
	case 'g': // a cgroup's file, to be joined by writing to it
		return o.groups.add(word)
	case 't': // the options of its scratch tmpfs
		o.scratch = word
	case 'o': // the options of the overlay that is its root
		o.layers = word
	case 'c': // or the folder that is
		o.clone = word
	case 'r', 'w': // a path of the host, only to be read, or to be written too
		return o.mount(word, kind == 'w')
	case 'i': // where in the jail it is, absolute
		return o.mountAt(word)
	case 'h': // the network is the host's
		o.hostNetwork = true
	case 'l': // a resource's number, and how much of it
		return o.limit(word)
	case 'u': // the uid and gid on the host
		o.uid, _ = decimal(word)
	case 'd': // the folder to begin in
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

func (o *order) mount(source *byte, writable bool) bool {
	if o.mountCount == len(o.mounts) {
		return false
	}
	o.mounts[o.mountCount] = mounting{source: source, writable: writable}
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
	which, rest := decimal(word)
	most, _ := decimal(after(rest, 1))
	o.limits[o.limitCount] = limit{which, [2]uint64{uint64(most), uint64(most)}}
	o.limitCount++
	return true
}

// whole tells whether nothing is missing without which a jail would be less than one.
func (o *order) whole() bool {
	for i := 0; i < o.mountCount; i++ {
		if o.mounts[i].target == nil {
			return false
		}
	}
	rooted := (o.layers != nil) != (o.clone != nil)
	return o.name != nil && o.scratch != nil && rooted && o.cwd != nil && o.uid != 0 && o.argv.count > 0
}

// inspect looks which of the mounts are folders; false if one cannot be seen.
func (o *order) inspect() bool {
	for i := 0; i < o.mountCount; i++ {
		fd, _, errno := syscall.RawSyscall6(
			syscall.SYS_OPENAT, here, at(o.mounts[i].source), asPath|syscall.O_CLOEXEC, 0, 0, 0)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall(syscall.SYS_FSTAT, fd, at(&found), 0)
			syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		}
		if errno != 0 {
			failed = failure{errno, "look at", o.mounts[i].source}
			return false
		}
		o.mounts[i].folder = found.Mode&syscall.S_IFMT == syscall.S_IFDIR
	}
	return true
}

var found syscall.Stat_t
