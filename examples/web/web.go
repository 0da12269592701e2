// Package web is for functions that have a name: it tells of its environment, and answers HTTP requests.
package web

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"time"
)

// Setting is the value of an environment variable.
func Setting(name string) string { return os.Getenv(name) }

// Wait tells the value of an environment variable after a while.
func Wait(name string, duration time.Duration) string {
	time.Sleep(duration)
	return os.Getenv(name)
}

// Greet answers with a greeting.
func Greet(w http.ResponseWriter, r *http.Request) {
	fmt.Println("greeting", r.RemoteAddr)
	fmt.Fprintf(w, "Hello, %s!\n", r.URL.Query().Get("name"))
}

// Site has a page for each kind of request and answer.
var Site = http.NewServeMux()

func init() {
	Site.HandleFunc("/echo", echo)
	Site.HandleFunc("/slow", slow)
	Site.HandleFunc("/after", after)
	Site.HandleFunc("POST /sum", sum)
	Site.HandleFunc("/status", status)
	Site.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("as asked") })
	Site.Handle("/moved", http.RedirectHandler("/echo?moved", http.StatusFound))
	Site.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	Site.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 300000)) })
	Site.HandleFunc("/items/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("id")) })
	Site.HandleFunc("/unread", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Context().Err()) })
}

// New makes a site that greets by a name of its environment.
func New() (http.Handler, error) {
	name := os.Getenv("GREETING")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, r.URL.Path) }), nil
}

// echo tells all of a request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Add("Set-Cookie", "a=1")
	w.Header().Add("Set-Cookie", "b=2")
	fmt.Fprintf(w, "%s %s %s\nhost %s\nlength %d %v\nbody %q %v\nform %v\n", r.Method, r.RequestURI, r.Proto, r.Host,
		r.ContentLength, r.TransferEncoding, body, err, r.URL.Query())
	var names []string
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s: %q\n", name, r.Header[name])
	}
}

// after works on for a while when its answer is whole.
func after(w http.ResponseWriter, r *http.Request) {
	pause, _ := time.ParseDuration(r.URL.Query().Get("pause"))
	w.Header().Set("Content-Length", "3")
	fmt.Fprint(w, "ok\n")
	w.(http.Flusher).Flush()
	time.Sleep(pause)
}

// slow answers piece by piece.
func slow(w http.ResponseWriter, r *http.Request) {
	pause, _ := time.ParseDuration(r.FormValue("pause"))
	for n := range 3 {
		fmt.Fprintf(w, "piece %d\n", n)
		w.(http.Flusher).Flush()
		time.Sleep(pause)
	}
}

// sum answers with the hash of a body.
func sum(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	io.Copy(hash, r.Body)
	w.Header()["X-Sum"] = []string{hex.EncodeToString(hash.Sum(nil))}
	w.Write([]byte{0, 1, 254, 255})
}

// status answers with a status and a header of its own.
func status(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Why", "because")
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "short and stout", http.StatusTeapot)
}
