// Command forkserver is a peer of the bench: it runs one program per HTTP request and isolates nothing.
//
// It works as the classic watchdog of OpenFaaS does: the request's body is the program's standard input, its
// headers are the environment, the program's output is the answer, and a program that takes too long is
// killed. It prints the port that it listens on.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

const execTimeout = 10 * time.Second

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, forked(os.Args[1])))
}

// forked answers every request with the output of a new process.
func forked(program string) http.HandlerFunc {
	inherited := os.Environ()
	return func(w http.ResponseWriter, r *http.Request) {
		input, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), execTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, program)
		cmd.Env = append(inherited[:len(inherited):len(inherited)], environment(r)...)
		cmd.Stdin = bytes.NewReader(input)
		output, err := cmd.CombinedOutput()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Write(output)
	}
}

// environment describes the request in variables, as CGI does.
func environment(r *http.Request) []string {
	variables := []string{"Http_Method=" + r.Method, "Http_Path=" + r.URL.Path}
	for name, values := range r.Header {
		variables = append(variables, "Http_"+strings.ReplaceAll(name, "-", "_")+"="+values[0])
	}
	return variables
}
