package harness

import (
	"reflect"
	"strconv"
)

// wants says in words what JSON a parameter of this type takes.
func wants(t reflect.Type) string {
	if words := described(t); words != "" {
		return "wants " + words + " (" + t.String() + ")"
	}
	return "wants " + t.String() + ", which no JSON can be: write the whole call in `call`, without args"
}

// described is the JSON that a type takes, "" if there is none.

func described(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == durationType {
		return `a duration such as "1m30s", or its nanoseconds`
	}
	if isTime(t) {
		return `a time such as "2006-01-02T15:04:05Z"`
	}
	if t.Kind() == reflect.Interface {
		return describedInterface(t)
	}
	if reflect.PointerTo(t).Implements(jsonReaderType) {
		return "JSON that it reads itself"
	}
	if reflect.PointerTo(t).Implements(textReaderType) {
		return "a text"
	}
	switch kind := t.Kind(); {
	case kind == reflect.Bool:
		return "true or false"
	case kind == reflect.String:
		return "a text"
	case isInt(kind):
		return "a whole number of " + strconv.Itoa(t.Bits()) + " bits"
	case isUint(kind):
		return "a whole number of " + strconv.Itoa(t.Bits()) + " bits, not negative"
	case isFloat(kind):
		return "a number"
	case kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return `a text, {"base64": …} or an array of bytes`
	case kind == reflect.Slice, kind == reflect.Array:
		return "an array"
	case kind == reflect.Map, kind == reflect.Struct:
		return "an object"
	}
	return ""
}

func describedInterface(t reflect.Type) string {
	switch {
	case t.NumMethod() == 0:
		return "any JSON"
	case t == errorType:
		return "a text"
	case reads(t) && stdinType.Implements(t):
		return `a text, {"base64": …} or {"stdin": true}`
	case reads(t):
		return `a text or {"base64": …}`
	}
	return ""
}
