package main

import (
	"syscall"
	"unsafe"
)

// remove kills what runs in a jail and takes away the jail, all mounts below its clone and its rules, as far as
// they are there. It goes on after a failure and tells the first.
func remove(o *order) string {
	told := "+"
	note := func(action string, errno syscall.Errno, gone ...syscall.Errno) {
		for _, one := range gone {
			if errno == one {
				return
			}
		}
		if errno != 0 && told == "+" {
			told = failed(action, errno)
		}
	}
	jid, errno, _ := call(syscall.SYS_JAIL_GET, []parameter{text("name", o.name)}, 0)
	note("find the jail", errno, syscall.ENOENT)
	if errno == 0 {
		_, _, errno = syscall.Syscall(syscall.SYS_JAIL_REMOVE, uintptr(jid), 0, 0)
		note("remove the jail", errno, syscall.EINVAL)
	}
	mounts, err := mountsBelow(o.clone)
	if err != nil {
		note("list the mounts", err.(syscall.Errno))
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		// By number, so that no link in the clone leads elsewhere.
		_, _, errno := syscall.Syscall(syscall.SYS_UNMOUNT,
			uintptr(unsafe.Pointer(&append([]byte(mounts[i]), 0)[0])), mntForce|mntByFsid, 0)
		note("unmount "+mounts[i], errno, syscall.ENOENT, syscall.EINVAL)
	}
	errno = rule(syscall.SYS_RCTL_REMOVE_RULE, "jail:"+o.name)
	note("remove the rules", errno, syscall.ESRCH, syscall.ENOSYS)
	return told
}

// mountsBelow lists the mounts below a folder by their numbers, as unmount(2) takes them, in the order of mounting.
func mountsBelow(folder string) (found []string, err error) {
	count, err := syscall.Getfsstat(nil, mntNowait)
	if err != nil {
		return nil, err
	}
	mounts := make([]syscall.Statfs_t, count+16)
	if count, err = syscall.Getfsstat(mounts, mntNowait); err != nil {
		return nil, err
	}
	for i := range mounts[:count] {
		point := word((*[1024]byte)(unsafe.Pointer(&mounts[i].Mntonname))[:])
		if len(point) > len(folder) && point[:len(folder)+1] == folder+"/" {
			id := mounts[i].Fsid.Val
			found = append(found, "FSID:"+digits(int(id[0]))+":"+digits(int(id[1])))
		}
	}
	return found, nil
}
