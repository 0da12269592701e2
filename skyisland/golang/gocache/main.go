// Command gocache serves the go command's build cache in a build jail. The go command starts it as its
// GOCACHEPROG (https://pkg.go.dev/cmd/go/internal/cacheprog).
//
//	gocache SHARED OWN
//
// SHARED is a cache that go itself wrote: the compiled standard library. gocache only reads it. OWN has the
// same layout and belongs to one repository: gocache writes every new entry there. It deletes nothing; the
// island removes an OWN as a whole.
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
	BodySize int64 // if it is not 0, the body follows as a JSON string in base64
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

// An entry has fixed columns: action, output, size, time in nanoseconds. get reads output and size by them.
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

// filePath is where go puts an action ("a") or an output ("d"): below a folder named by the id's first byte.
func filePath(folder string, id []byte, kind string) string {
	name := hex.EncodeToString(id)
	return folder + "/" + name[:2] + "/" + name + "-" + kind
}

// get fills the answer with the action's output, and reports whether the folder has it in full size.
func get(folder string, action []byte, answer *response) bool {
	entry, err := os.ReadFile(filePath(folder, action, "a"))
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
	path := filePath(folder, output, "d")
	if info, err := os.Stat(path); err != nil || info.Size() != size {
		return false
	}
	answer.OutputID, answer.Size, answer.DiskPath = output, size, path
	return true
}

// put stores the body as the action's output. What is there stays as it is: by the times of the files, the island
// sees whether a build that ran out of time got any further.
func put(folder string, ask request, body []byte, answer *response) error {
	path := filePath(folder, ask.OutputID, "d")
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(body)) {
		if err := write(path, body); err != nil {
			return err
		}
	}
	entry := fmt.Sprintf(entryFormat, ask.ActionID, ask.OutputID, len(body), 0)
	action := filePath(folder, ask.ActionID, "a")
	if known, err := os.ReadFile(action); err != nil || string(known) != entry {
		if err := write(action, []byte(entry)); err != nil {
			return err
		}
	}
	answer.Size, answer.DiskPath = int64(len(body)), path
	return nil
}

// write renames a finished file to its path: other builds of the repository must never see half of it.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "sky-")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}
