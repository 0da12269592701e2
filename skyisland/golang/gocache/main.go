// Command gocache is the go command's build cache in the build jail, spoken to as GOCACHEPROG
// (https://pkg.go.dev/cmd/go/internal/cacheprog).
//
//	gocache SHARED OWN
//
// SHARED is a cache that go itself wrote, with the compiled standard library; it is only read. OWN has
// the same layout, belongs to one repository, and takes everything that is put. Nothing is ever deleted
// here: the island removes an OWN as a whole.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

type request struct {
	ID       int64
	Command  string
	ActionID []byte
	OutputID []byte
	BodySize int64 // when it is not 0, the body follows as a JSON string in base64
}

type response struct {
	ID            int64
	Err           string   `json:",omitempty"`
	KnownCommands []string `json:",omitempty"`
	Miss          bool     `json:",omitempty"`
	OutputID      []byte   `json:",omitempty"`
	Size          int64    `json:",omitempty"`
	DiskPath      string   `json:",omitempty"`
}

// An entry has fixed columns: action, output, size, time in nanoseconds.
const (
	entryFormat = "v1 %x %x %20d %20d\n"
	entrySize   = 3 + 64 + 1 + 64 + 1 + 20 + 1 + 20 + 1
)

func main() {
	shared, own := os.Args[1], os.Args[2]
	in := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<16))
	out := json.NewEncoder(os.Stdout)
	out.Encode(response{KnownCommands: []string{"get", "put", "close"}})
	for {
		var ask request
		if in.Decode(&ask) != nil {
			return
		}
		answer := response{ID: ask.ID}
		switch ask.Command {
		case "get":
			answer.Miss = !get(shared, ask.ActionID, &answer) && !get(own, ask.ActionID, &answer)
		case "put":
			var body []byte
			if ask.BodySize > 0 && in.Decode(&body) != nil {
				return
			}
			if err := put(own, ask, body, &answer); err != nil {
				answer.Err = err.Error()
			}
		case "close":
			out.Encode(answer)
			return
		}
		out.Encode(answer)
	}
}

func place(folder string, id []byte, kind string) string {
	name := hex.EncodeToString(id)
	return folder + "/" + name[:2] + "/" + name + "-" + kind
}

// get reports whether the folder has the action's output, whole.
func get(folder string, action []byte, answer *response) bool {
	entry, err := os.ReadFile(place(folder, action, "a"))
	if err != nil || len(entry) != entrySize {
		return false
	}
	output, err := hex.DecodeString(string(entry[68:132]))
	if err != nil {
		return false
	}
	size, err := strconv.ParseInt(string(bytes.TrimLeft(entry[133:153], " ")), 10, 64)
	if err != nil {
		return false
	}
	path := place(folder, output, "d")
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		return false
	}
	answer.OutputID, answer.Size, answer.DiskPath = output, size, path
	return true
}

func put(folder string, ask request, body []byte, answer *response) error {
	path := place(folder, ask.OutputID, "d")
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(body)) {
		if err := write(path, body); err != nil {
			return err
		}
	}
	entry := fmt.Sprintf(entryFormat, ask.ActionID, ask.OutputID, len(body), 0)
	if err := write(place(folder, ask.ActionID, "a"), []byte(entry)); err != nil {
		return err
	}
	answer.Size, answer.DiskPath = int64(len(body)), path
	return nil
}

// write makes the file appear whole: other builds of the repository may be looking for it.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "sky-")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
