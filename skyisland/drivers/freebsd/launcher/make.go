package main

import "syscall"

// become makes the jail and becomes its program. It returns only if it cannot, and then why.
//
// The rules come before the jail, whose name they have: so nothing runs in it without limits. What needs the rights
// of the host's root comes before it enters; there it gives up those of the jail's, and no other process is there.
func become(o *order, socket int) string {
	if o.blamed != 0 && peakBytes() >= o.blamed {
		return "?"
	}
	if errno := dieWithParent(); errno != 0 {
		return failed("die with the island", errno)
	}
	if syscall.Getppid() != o.island {
		return "!the island is gone"
	}
	for _, one := range o.rules {
		if errno := rule(syscall.SYS_RCTL_ADD_RULE, "jail:"+o.name+":"+one); errno != 0 {
			return failed("add the rule "+one, errno)
		}
	}
	if why := mountAll(o); why != "" {
		return why
	}
	for _, one := range o.limits {
		both := syscall.Rlimit{Cur: int64(one.maximum), Max: int64(one.maximum)}
		if err := syscall.Setrlimit(one.resource, &both); err != nil {
			return failed("set the limit "+digits(one.resource), err)
		}
	}
	syscall.Umask(0o022)
	if errno := setLogin(o.login); errno != 0 {
		return failed("be "+o.login, errno)
	}
	parameters := append(o.parameters, text("name", o.name), text("path", o.clone), flag("persist"))
	jid, errno, why := call(syscall.SYS_JAIL_SET, parameters, jailCreate|jailAttach)
	if errno != 0 {
		return "!" + why
	}
	// In the jail. Its working directory is its root.
	if err := syscall.Setgroups(nil); err != nil {
		return failed("leave all groups", err)
	}
	if err := syscall.Setgid(o.uid); err != nil {
		return failed("change the gid", err)
	}
	if err := syscall.Setuid(o.uid); err != nil {
		return failed("change the uid", err)
	}
	if err := syscall.Chdir(o.cwd); err != nil {
		return failed("enter "+o.cwd, err)
	}
	resetSignals()
	answer(socket, "+"+digits(jid))
	return failed("execute "+o.argv[0], syscall.Exec(o.argv[0], o.argv, o.env))
}

// peakBytes is the most memory that this process has had. A copy of the process that started it, which it was at
// first, counts if the clock ticked then (kern_clock.c): execve(2) forgets nothing.
func peakBytes() int {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return int(used.Maxrss) << 10
}

// mountAll mounts the folders, and a /dev that shows nothing but what the order lists; else why not.
func mountAll(o *order) string {
	for _, one := range o.folders {
		access := "ro"
		if one.writable {
			access = "rw"
		}
		_, errno, why := call(syscall.SYS_NMOUNT, []parameter{
			text("fstype", "nullfs"), text("fspath", o.clone+one.target), text("from", one.source),
			flag(access), flag("nosuid"),
		}, 0)
		if errno != 0 {
			return "!mount " + one.source + ": " + why
		}
	}
	dev := o.clone + "/dev"
	_, errno, why := call(syscall.SYS_NMOUNT, []parameter{
		text("fstype", "devfs"), text("fspath", dev), text("from", "devfs"), text("ruleset", digits(o.devfs)),
	}, 0)
	if errno != 0 {
		return "!mount " + dev + ": " + why
	}
	return hidden(dev, o.visible)
}

// hidden checks that a folder shows only these names: a ruleset that somebody emptied hides nothing.
func hidden(dev string, visible []string) string {
	fd, err := syscall.Open(dev, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return failed("open "+dev, err)
	}
	defer syscall.Close(fd)
	allowed := map[string]bool{}
	for _, name := range visible {
		allowed[name] = true
	}
	chunk := make([]byte, 1<<14)
	for {
		n, err := syscall.ReadDirent(fd, chunk)
		if err != nil {
			return failed("read "+dev, err)
		}
		if n <= 0 {
			return ""
		}
		_, _, names := syscall.ParseDirent(chunk[:n], -1, nil)
		for _, name := range names {
			if !allowed[name] {
				return "!hide " + name + " in /dev: the devfs ruleset does not"
			}
		}
	}
}

func failed(action string, err error) string { return "!" + action + ": " + err.Error() }
