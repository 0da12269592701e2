// Package harness is what every main program of Sky Island needs. It is compiled once for all of them, as a
// part of the standard library.
package harness

import (
	"io"
	"os"
)

// Exit codes of the harness itself; a function may use the same ones, but does not know the nonce.
const (
	exitRejected = 64 // the arguments do not fit the function, which was not called
	exitTorn     = 65 // standard input ended inside the frame
)

const maxHeader = 1 << 20

// ReadFrame waits for the frame and returns its JSON header. It reads from the file descriptor itself
// and not one byte more than the frame has: what follows belongs to the function. It reports false when
// standard input ends before a frame begins, which is how a jail that was made ahead is thrown away.
func ReadFrame() (header string, ok bool) {
	var length [4]byte
	switch _, err := io.ReadFull(os.Stdin, length[:]); err {
	case nil:
	case io.EOF:
		return "", false
	default:
		torn()
	}
	size := int(length[0])<<24 | int(length[1])<<16 | int(length[2])<<8 | int(length[3])
	if size > maxHeader {
		torn()
	}
	bytes := make([]byte, size)
	if _, err := io.ReadFull(os.Stdin, bytes); err != nil {
		torn()
	}
	return string(bytes), true
}

func torn() {
	os.Stderr.WriteString("the frame on standard input is torn\n")
	os.Exit(exitTorn)
}
