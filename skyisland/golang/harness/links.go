package harness

import (
	"errors"
	"reflect"
)

// Must ends the call with the error of a part of it, which `at` names, if there is one.
func Must(err error, at string) {
	if err != nil {
		Fail(err, at)
	}
}

// MustBeTrue ends the call if a part of it gave false beside its value.
func MustBeTrue(ok bool, at string) {
	if !ok {
		Fail(errors.New("it gave false: there is no value"), at)
	}
}

// ShowValue answers with the value of a name that is not called. A function is no value to answer with: its
// caller means to call it.
func ShowValue[T any](value T) {
	if reflect.TypeOf((*T)(nil)).Elem().Kind() == reflect.Func {
		reject(asked.nonce, -1, "this is a function; write its arguments behind it, in parentheses")
	}
	Show(value)
}
