package harness

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// maxFrames bounds a trace, as outcome.py does.
const maxFrames = 8

// answerData calls a function with arguments that the frame has as JSON, once or with many inputs.
func answerData(f reflect.Value, names []string) {
	until := contextUntil(time.Duration(asked.data.timeoutMS) * time.Millisecond)
	s := source{text: asked.data.json}
	if asked.data.many {
		answerMany(f, names, &s, until)
		return
	}
	g, wrong := s.arguments(f.Type(), names, until)
	if wrong != nil {
		rejectData(wrong.under("args"))
	}
	results, failing := call(f, g.in)
	endAfter(g.written(), results, failing)
}

// answerMany calls the function with one input after another. Each has an answer of its own; one that does not
// fit, and one whose call panics, has an error, and the next one follows.
func answerMany(f reflect.Value, names []string, s *source, until context) {
	all := source{text: s.text}
	_, wrong := all.raw()
	if wrong == nil && !all.end() {
		wrong = all.malformed("the end")
	}
	if wrong != nil {
		rejectData(wrong.under("inputs"))
	}
	wrong = s.array(func(i int) *fault {
		input, wrong := s.raw()
		if wrong == nil {
			one := source{text: input, fields: s.fields}
			one.answer(f, names, "inputs["+strconv.Itoa(i)+"]", until)
			s.fields = one.fields
		}
		return wrong
	})
	if wrong != nil {
		rejectData(wrong.under("inputs"))
	}
}

func (s *source) answer(f reflect.Value, names []string, at string, until context) {
	defer func() {
		if panicked := recover(); panicked != nil {
			write(nil, nil, appendTrace(appendFault("panic", fmt.Sprint(panicked), "")))
		}
	}()
	g, wrong := s.arguments(f.Type(), names, until)
	if wrong != nil {
		wrong.under(at)
		write(nil, nil, appendFault("argument", wrong.reason, wrong.path))
		return
	}
	results, failing := call(f, g.in)
	endAfter(g.written(), results, failing)
}

// appendFault begins a record with an error that is no value of Go.
func appendFault(kind, reason, at string) []byte {
	record := appendText([]byte(`{"error":{"message":`), reason)
	record = appendText(append(record, `,"type":`...), kind)
	if at != "" {
		record = appendText(append(record, `,"at":`...), at)
	}
	return append(record, '}')
}

// appendTrace adds to the error of a record, in the deferred function that recovered from a panic, where that
// happened: as outcome.py reads it in the words of a runtime that ends a process.
func appendTrace(record []byte) []byte {
	record = append(record[:len(record)-1], `,"trace":[`...)
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	top, more := frames.Next()
	ours := strings.TrimSuffix(top.Function, "appendTrace")
	for top, more = frames.Next(); more && !strings.HasPrefix(top.Function, "runtime."); {
		top, more = frames.Next()
	}
	for n := 0; more && n < maxFrames && !strings.HasPrefix(top.Function, ours); top, more = frames.Next() {
		if strings.HasPrefix(top.Function, "runtime.") || strings.HasPrefix(top.Function, "reflect.Value.") {
			continue
		}
		if n++; n > 1 {
			record = append(record, ',')
		}
		record = appendText(record, top.Function+" ("+top.File+":"+strconv.Itoa(top.Line)+")")
	}
	return append(record, `]}`...)
}

// rejectData says that the arguments do not fit, as reject does of literals.
func rejectData(wrong *fault) {
	line := appendText([]byte(asked.nonce+` {"argument":-1,"reason":`), wrong.reason)
	line = appendText(append(line, `,"path":`...), wrong.path)
	os.Stderr.Write(append(line, "}\n"...))
	os.Exit(exitRejected)
}
