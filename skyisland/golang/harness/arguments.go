package harness

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
)

// Answer waits for a frame, calls the function with the frame's arguments, and prints the results as
// fmt.Print(function(arguments...)) does. If the arguments do not fit, that is the caller's mistake: Answer
// does not call the function, and writes one line to standard error: the frame's nonce, a space, and JSON.
func Answer(function interface{}) {
	header, ok := ReadFrame()
	if !ok {
		return
	}
	arguments, nonce := parseHeader(header)
	f := reflect.ValueOf(function)
	if f.Kind() != reflect.Func {
		reject(nonce, -1, "this is a value, not a function")
	}
	in := fit(f.Type(), arguments, nonce)
	var out []reflect.Value
	if f.Type().IsVariadic() {
		out = f.CallSlice(in)
	} else {
		out = f.Call(in)
	}
	results := make([]interface{}, len(out))
	for i, result := range out {
		results[i] = result.Interface()
	}
	if len(results) > 0 {
		fmt.Print(results...)
	}
}

// fit turns literals into values of the parameters' types. The last ones of a variadic function become one
// slice, nil if there are none, as the compiler passes them.
func fit(function reflect.Type, literals []string, nonce string) []reflect.Value {
	fixed := function.NumIn()
	if function.IsVariadic() {
		fixed--
	}
	if len(literals) < fixed || len(literals) > fixed && !function.IsVariadic() {
		index, problem := fixed, "too many"
		if len(literals) < fixed {
			index, problem = len(literals), "not enough"
		}
		reject(nonce, index, fmt.Sprintf("%s arguments: have %d, want %d", problem, len(literals), fixed))
	}
	in := make([]reflect.Value, 0, fixed+1)
	for i, literal := range literals[:fixed] {
		in = append(in, convert(literal, function.In(i), nonce, i))
	}
	if function.IsVariadic() {
		rest := reflect.Zero(function.In(fixed))
		if extra := len(literals) - fixed; extra > 0 {
			rest = reflect.MakeSlice(function.In(fixed), extra, extra)
		}
		for i, literal := range literals[fixed:] {
			rest.Index(i).Set(convert(literal, function.In(fixed).Elem(), nonce, fixed+i))
		}
		in = append(in, rest)
	}
	return in
}

func convert(literal string, to reflect.Type, nonce string, index int) reflect.Value {
	value, problem := assign(literal, to)
	if problem != "" {
		reject(nonce, index, problem)
	}
	return value
}

// parseHeader reads {"args":[...],"nonce":...} in exactly the form that the island writes. The escapes that
// the island uses mean the same in JSON and in Go. encoding/json would add a megabyte to every binary and
// half a millisecond to its start.
func parseHeader(header string) (arguments []string, nonce string) {
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
	if !expect(`{"args":[`) {
		torn()
	}
	for !expect(`]`) {
		arguments = append(arguments, text())
		expect(`,`)
	}
	if !expect(`,"nonce":`) {
		torn()
	}
	nonce = text()
	if rest != `}` {
		torn()
	}
	return arguments, nonce
}

func reject(nonce string, index int, reason string) {
	os.Stderr.WriteString(nonce + ` {"argument":` + strconv.Itoa(index) + `,"reason":` + strconv.Quote(reason) + "}\n")
	os.Exit(exitRejected)
}
