// Package harness is the library of every main program of Sky Island: it reads the frame, calls the function,
// and writes its answer. It is compiled once for all of them, as a part of the standard library.
package harness

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// Exit codes of the harness itself. A function may exit with the same codes: what it says so is its own word.
const (
	exitRejected = 64 // the arguments do not fit the function, which was not called
	exitTorn     = 65 // standard input ended inside the frame
)

// A call has 64 KiB at most and so has an environment, and JSON writes a byte with six at most: 768 KiB.
const maxHeader = 1 << 20

// frame is what the island says of one call.
type frame struct {
	args  []string // Go literals
	nonce string   // marks what the harness says
	text  bool     // nobody wants the results as JSON
	data  *data    // arguments as JSON, in place of args
	peer  string   // the address of who sent a request to a handler
}

// data is what the frame says of arguments that are JSON.
type data struct {
	json      string // follows the header
	timeoutMS int    // the process is killed after this time
	many      bool   // json is an array of arguments, for one call after another
}

// asked is the frame of this process.
var asked frame

// Begin waits for the frame and reads it. It reads without a buffer, not one byte past the frame: what follows
// belongs to the function. It returns false if standard input ends before a frame begins: so the island
// discards a warm jail.
func Begin() bool {
	var length [4]byte
	switch _, err := io.ReadFull(os.Stdin, length[:]); err {
	case nil:
	case io.EOF:
		return false
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
	asked, size = parseHeader(string(bytes))
	if asked.data != nil {
		json := make([]byte, size)
		if _, err := io.ReadFull(os.Stdin, json); err != nil {
			torn()
		}
		asked.data.json = string(json)
	}
	return true
}

// parseHeader reads {"args":[...],"nonce":...} and the fields that may follow, in exactly the form and order in
// which the island writes them. The escapes that the island uses mean the same in JSON and in Go.
// encoding/json would add a megabyte to every binary and half a millisecond to its start.
func parseHeader(header string) (said frame, jsonBytes int) {
	rest := header
	expect := func(text string) bool {
		matches := strings.HasPrefix(rest, text)
		if matches {
			rest = rest[len(text):]
		}
		return matches
	}
	text := func() string {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil || quoted[0] != '"' {
			torn()
		}
		rest = rest[len(quoted):]
		unquoted, _ := strconv.Unquote(quoted)
		return unquoted
	}
	number := func() (n int) {
		for rest != "" && '0' <= rest[0] && rest[0] <= '9' && n < 1<<30 {
			n = 10*n + int(rest[0]-'0')
			rest = rest[1:]
		}
		return n
	}
	must := func(text string) {
		if !expect(text) {
			torn()
		}
	}
	must(`{"args":[`)
	for !expect(`]`) {
		said.args = append(said.args, text())
		expect(`,`)
	}
	must(`,"nonce":`)
	said.nonce = text()
	said.text = expect(`,"want":"text"`)
	if expect(`,"json":`) {
		said.data = new(data)
		jsonBytes = number()
		must(`,"timeout_ms":`)
		said.data.timeoutMS = number()
		said.data.many = expect(`,"many":true`)
	}
	if expect(`,"env":[`) {
		for !expect(`]`) {
			name := text()
			must(`,`)
			os.Setenv(name, text())
			expect(`,`)
		}
	}
	if expect(`,"peer":`) {
		said.peer = text()
	}
	if rest != `}` {
		torn()
	}
	return said, jsonBytes
}

func torn() {
	os.Stderr.WriteString("the frame on standard input is torn\n")
	os.Exit(exitTorn)
}
