// Package handler answers one HTTP request in the jail of a call. Go's own server does, on a connection whose other
// end is standard input and output: so what it answers is what it would answer anywhere.
package handler

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	harness "skyisland_harness"
)

var (
	handlerType = reflect.TypeOf((*http.Handler)(nil)).Elem()
	errorType   = reflect.TypeOf((*error)(nil)).Elem()
)

// Serve waits for the frame and has the target answer the request behind it. A target is a http.Handler, a
// function as http.HandlerFunc takes it, or a function that returns either, and perhaps an error.
//
// Without a request behind the frame it only looks whether the target is one.
func Serve(target interface{}) {
	output := harness.KeepOutput()
	if !harness.Begin() {
		return
	}
	if !isTarget(target) {
		harness.Reject(fmt.Sprintf("%T is no handler; it takes a http.Handler, a func(http.ResponseWriter, "+
			"*http.Request), or a function without parameters that returns one", target))
	}
	var first [1]byte
	if _, err := io.ReadFull(os.Stdin, first[:]); err != nil {
		return
	}
	h := handlerOf(target)
	island, server := net.Pipe()
	go func() {
		island.Write(first[:])
		io.Copy(island, os.Stdin) // the end of the request is no end of the connection
	}()
	once := &http.Server{Handler: h}
	once.SetKeepAlivesEnabled(false) // one request, without a header that tells the handler so
	go once.Serve(&listener{conn{server, address(harness.Peer())}})
	io.Copy(output, island)
}

func isTarget(target interface{}) bool {
	switch target.(type) {
	case http.Handler, func(http.ResponseWriter, *http.Request):
		return true
	}
	t := reflect.TypeOf(target)
	if t == nil || t.Kind() != reflect.Func || t.NumIn() > 0 || t.NumOut() == 0 || t.NumOut() > 2 {
		return false
	}
	made := t.Out(0)
	return (made.Implements(handlerType) || made == reflect.TypeOf((func(http.ResponseWriter, *http.Request))(nil))) &&
		(t.NumOut() == 1 || t.Out(1) == errorType)
}

// handlerOf calls a target that returns a handler. If it returns an error, there is no answer: the process ends.
func handlerOf(target interface{}) http.Handler {
	switch target := target.(type) {
	case http.Handler:
		return target
	case func(http.ResponseWriter, *http.Request):
		return http.HandlerFunc(target)
	}
	made := reflect.ValueOf(target).Call(nil)
	if len(made) == 2 && !made[1].IsNil() {
		fmt.Fprintln(os.Stderr, "no handler was made:", made[1].Interface())
		os.Exit(1)
	}
	return handlerOf(made[0].Interface())
}

// address is the caller's.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

type conn struct {
	net.Conn
	peer address
}

func (c conn) RemoteAddr() net.Addr { return c.peer }

// listener has one connection, and then no other.
type listener struct{ conn conn }

func (l *listener) Accept() (net.Conn, error) {
	if l.conn.Conn == nil {
		select {}
	}
	defer func() { l.conn.Conn = nil }()
	return l.conn, nil
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return l.conn.peer }
