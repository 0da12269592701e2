package harness

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
)

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

func reject(nonce string, index int, reason string) {
	os.Stderr.WriteString(nonce + ` {"argument":` + strconv.Itoa(index) + `,"reason":` + strconv.Quote(reason) + "}\n")
	os.Exit(exitRejected)
}
