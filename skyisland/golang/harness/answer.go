package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"time"
)

// maxMessage bounds an error's text. A judgement: what is longer is data.
const maxMessage = 16 << 10

var (
	errorType = reflect.TypeOf((*error)(nil)).Elem()
	// output is the jail's standard output, whatever the function makes of os.Stdout.
	output   = os.NewFile(1, "/dev/stdout")
	original = os.Stdout
)

// Answer waits for a frame, calls the function with the frame's arguments, and answers with its results. If the
// arguments do not fit, that is the caller's mistake: Answer does not call the function, and writes one line to
// standard error: the frame's nonce, a space, and JSON.
//
// `parameters` are the names of the function's parameters, or none where they are not known.
func Answer(function interface{}, parameters ...string) {
	if !Begin() {
		return
	}
	f := reflect.ValueOf(function)
	if f.Kind() != reflect.Func {
		reject(asked.nonce, -1, "this is a value, not a function: leave args out, and its value is the answer")
	}
	if asked.data != nil {
		answerData(f, parameters)
		return
	}
	end(call(f, fit(f.Type(), asked.args, asked.nonce)))
}

// call returns what a function returns, and whether the last of it is its word that it failed.
func call(f reflect.Value, in []reflect.Value) (results []interface{}, failing bool) {
	var out []reflect.Value
	if f.Type().IsVariadic() {
		out = f.CallSlice(in)
	} else {
		out = f.Call(in)
	}
	results = make([]interface{}, len(out))
	for i, result := range out {
		results[i] = result.Interface()
	}
	last := len(out) - 1
	return results, last >= 0 && isError(f.Type().Out(last))
}

// Show answers with the values of an expression, of which there is one at least: Show(F()).
//
// The type parameter tells a first nil error from another nil, which have no type in an interface{}. Of
// further values the last one counts as an error where it is one, or is a nil without a type: who returns
// something and a nil interface hardly ever means another one.
func Show[First any](first First, more ...interface{}) {
	values := append([]interface{}{first}, more...)
	if len(more) == 0 {
		end(values, isError(reflect.TypeOf((*First)(nil)).Elem()))
		return
	}
	last := values[len(values)-1]
	_, failed := last.(error)
	end(values, failed || last == nil)
}

// Done answers for a statement, which has no value.
func Done() {
	end(nil, false)
}

// Fail ends the process with an error in place of results: of a part of the call, which `at` names.
func Fail(err error, at string) {
	write(nil, nil, appendError([]byte(`{`), err, at))
	os.Exit(0)
}

// isError tells whether a result of this type is a function's word that it failed.
func isError(result reflect.Type) bool {
	return result.Kind() == reflect.Interface && result.Implements(errorType)
}

// end prints what fmt.Print(values...) prints, and answers. `failing`: the last value is an error, or nil.
func end(values []interface{}, failing bool) {
	endAfter(nil, values, failing)
}

// endAfter does what end does. What was written into the function's writers counts as printed before, and is
// among the results behind all others.
func endAfter(written [][]byte, values []interface{}, failing bool) {
	var text []byte
	switch {
	case len(values) == 0:
	case os.Stdout != original:
		fmt.Print(values...)
	default:
		text = fmt.Append(nil, values...)
	}
	var err error
	if failing {
		last := len(values) - 1
		err, _ = values[last].(error)
		values = values[:last]
	}
	for _, one := range written {
		values = append(values, one)
	}
	record := []byte(`{`)
	if !asked.text {
		record = append(record, `"results":`...)
		record = appendResults(record, values)
	}
	if err != nil {
		if len(record) > 1 {
			record = append(record, ',')
		}
		record = appendError(record, err, "")
	}
	write(bytes.Join(written, nil), text, record)
}

// write ends standard output, in one write: what counts as printed; the text of the results; the frame's nonce;
// the lengths of text and record, each in eight hexadecimal digits; and the record, a JSON object that lacks its
// closing brace.
func write(printed, text, record []byte) {
	record = append(record, '}')
	trailer := append(append(printed, text...), asked.nonce...)
	trailer = appendLength(trailer, len(text))
	trailer = appendLength(trailer, len(record))
	output.Write(append(trailer, record...))
}

func appendLength(to []byte, length int) []byte {
	digits := strconv.AppendUint(nil, 1<<32|uint64(length), 16)
	return append(to, digits[1:]...)
}

// appendError writes the member "error" of a record.
func appendError(record []byte, err error, at string) []byte {
	record = append(record, `"error":{"message":`...)
	record = appendText(record, message(err))
	record = append(record, `,"type":`...)
	record = appendText(record, reflect.TypeOf(err).String())
	if at != "" {
		record = append(record, `,"at":`...)
		record = appendText(record, at)
	}
	if wish, ok := retryAfter(err); ok {
		record = append(record, `,"retry_after_s":`...)
		record = strconv.AppendFloat(record, wish, 'f', 3, 64)
	}
	return append(record, '}')
}

// retryAfter is what an error, or one that it wraps, says by its method RetryAfter: for how many seconds to wait
// before the call is tried again; below 0 not to.
func retryAfter(err error) (seconds float64, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	var wish interface{ RetryAfter() time.Duration }
	if !errors.As(err, &wish) {
		return 0, false
	}
	return wish.RetryAfter().Seconds(), true
}

// message is the error's text, or why it has none: its method may panic, which that of a nil pointer is apt to.
func message(err error) (text string) {
	defer func() {
		if reason := recover(); reason != nil {
			text = "its method Error panicked: " + fmt.Sprint(reason)
			if isNil(reflect.ValueOf(err)) {
				text = "it is a nil pointer, and " + text
			}
		}
		if len(text) > maxMessage {
			text = text[:maxMessage]
		}
	}()
	return err.Error()
}
