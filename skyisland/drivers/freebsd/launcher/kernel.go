package main

import (
	"syscall"
	"unsafe"
)

// The numbers are those of FreeBSD 14 and 15 (sys/sys/jail.h, mount.h, procctl.h, syscall.h).
const (
	sysSigaction     = 416
	lastSignal       = 128
	sysProcctl       = 544
	procPdeathsigCtl = 11
	jailCreate       = 1
	jailAttach       = 4
	mntForce         = 0x80000
	mntByFsid        = 0x8000000
	mntNowait        = 2
)

// parameter is one of a jail or of a mount: a name and its value as the kernel has it.
type parameter struct {
	name  string
	value []byte
}

func text(name, value string) parameter { return parameter{name, append([]byte(value), 0)} }
func flag(name string) parameter        { return parameter{name, nil} }

func integer(name string, value int) parameter {
	number := int32(value)
	return parameter{name, append([]byte(nil), (*[4]byte)(unsafe.Pointer(&number))[:]...)}
}

// parameter takes a parameter of the jail, by the kind of its word; false if its value is none of that kind.
func (o *order) parameter(kind byte, name, value string) bool {
	taken := text(name, value)
	switch kind {
	case 'b':
		taken = flag(name)
	case 'i':
		number, ok := decimal(value)
		if !ok {
			return false
		}
		taken = integer(name, number)
	case '4':
		taken.value = nil
		for rest, more := value, true; more; {
			var part string
			part, rest, more = cut(rest, '.')
			number, ok := decimal(part)
			if !ok || number > 255 {
				return false
			}
			taken.value = append(taken.value, byte(number))
		}
		if len(taken.value) != 4 {
			return false
		}
	}
	o.parameters = append(o.parameters, taken)
	return true
}

// call makes a system call that takes parameters as pairs of a name and a value (jail_set, jail_get, nmount). It
// returns the call's result, and on failure the kernel's own words or those for the error.
func call(number uintptr, parameters []parameter, flags uintptr) (result int, errno syscall.Errno, why string) {
	said := make([]byte, 256)
	parameters = append(parameters, parameter{"errmsg", said})
	vectors := make([]syscall.Iovec, 0, 2*len(parameters))
	for _, p := range parameters {
		name := append([]byte(p.name), 0)
		value := syscall.Iovec{Len: uint64(len(p.value))}
		if len(p.value) > 0 {
			value.Base = &p.value[0]
		}
		vectors = append(vectors, syscall.Iovec{Base: &name[0], Len: uint64(len(name))}, value)
	}
	got, _, errno := syscall.Syscall(
		number, uintptr(unsafe.Pointer(&vectors[0])), uintptr(len(vectors)), flags)
	if errno != 0 {
		why = errno.Error()
		if said[0] != 0 {
			why = word(said)
		}
	}
	return int(got), errno, why
}

// word is the text before the first zero byte.
func word(bytes []byte) string {
	for i, character := range bytes {
		if character == 0 {
			return string(bytes[:i])
		}
	}
	return string(bytes)
}

// rule adds or removes an rctl(8) rule.
func rule(number uintptr, rule string) syscall.Errno {
	input := append([]byte(rule), 0)
	_, _, errno := syscall.Syscall6(
		number, uintptr(unsafe.Pointer(&input[0])), uintptr(len(input)), 0, 0, 0, 0)
	return errno
}

// dieWithParent has the kernel kill this process when the one that started it ends. The program that it becomes
// inherits that (kern_exec.c; a set-user-ID program would not).
func dieWithParent() syscall.Errno {
	signal := int32(syscall.SIGKILL)
	_, _, errno := syscall.Syscall6(sysProcctl, 0, 0, procPdeathsigCtl, uintptr(unsafe.Pointer(&signal)), 0, 0)
	return errno
}

// resetSignals undoes what the process that started us ignores; execve(2) resets the rest.
func resetSignals() {
	var byDefault struct {
		handler uintptr
		flags   int32
		mask    [4]uint32
	}
	for number := uintptr(1); number <= lastSignal; number++ {
		syscall.Syscall(sysSigaction, number, uintptr(unsafe.Pointer(&byDefault)), 0)
	}
}

func setLogin(name string) syscall.Errno {
	login := append([]byte(name), 0)
	_, _, errno := syscall.Syscall(syscall.SYS_SETLOGIN, uintptr(unsafe.Pointer(&login[0])), 0, 0)
	return errno
}
