// Command launcher makes a jail and becomes the program in it, or takes a jail away: one process of root does
// what would take jail(8), jexec(8), limits(1), mount(8), umount(8) and rctl(8).
//
//	SKY_ORDER=FD launcher
//
// FD is a stream socket whose other end the island holds. The island writes an order and ends its side; the
// launcher answers.
//
// # Protocol
//
// An order is words that end with a zero byte each. The first is `make` or `remove`; the first letter of every
// other one is its kind (order.take).
//
// The answer to `make` is `+` and the number of the jail, and the socket ends when the program begins. If it
// cannot begin, `!` and why follow: `!mount /a: no such file or directory`. `?` is for another process to do: the
// peak memory of this one would be taken for the program's. The answer to `remove` is `+`, or `!` and why.
//
// What `make` had made when it failed or was killed, `remove` takes away: all of it has the jail's name or lies
// below its clone.
//
// # Dependencies
//
// Package syscall alone: without package os there is no poller, and no descriptor that a jail could inherit. A
// change of credentials concerns the whole process here, other than on Linux, so Go's threads are no danger.
package main

import "syscall"

func main() {
	number, _ := syscall.Getenv("SKY_ORDER")
	socket, ok := decimal(number)
	if !ok {
		syscall.Exit(2)
	}
	syscall.CloseOnExec(socket)
	o, ok := read(socket)
	switch {
	case !ok:
		answer(socket, "!understand the order")
	case o.verb == "remove":
		answer(socket, remove(&o))
	default:
		answer(socket, become(&o, socket))
	}
	syscall.Exit(1)
}

// answer writes to the island. If it is gone, nobody is to know.
func answer(socket int, text string) {
	for rest := []byte(text); len(rest) > 0; {
		n, err := syscall.Write(socket, rest)
		if err != nil && err != syscall.EINTR {
			return
		}
		rest = rest[max(n, 0):]
	}
}
