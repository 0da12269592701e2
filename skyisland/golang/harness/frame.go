// Package harness is the library of every main program of Sky Island: it reads the frame and calls the
// function. It is compiled once for all of them, as a part of the standard library.
package harness

import (
	"io"
	"os"
)

// Exit codes of the harness itself. A function may exit with the same codes, but it does not know the nonce.
const (
	exitRejected = 64 // the arguments do not fit the function, which was not called
	exitTorn     = 65 // standard input ended inside the frame
)

// A call has 64 KiB at most, and JSON writes a byte with six at most: 384 KiB.
const maxHeader = 1 << 20

// ReadFrame waits for the frame and returns its JSON header. It reads without a buffer, not one byte past the
// frame: what follows belongs to the function. It returns false if standard input ends before a frame begins:
// so the island discards a warm jail.
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
