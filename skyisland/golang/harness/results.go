package harness

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

const (
	maxResults = 1 << 20 // bytes of the results as JSON; a judgement: as much as a function may print
	maxDepth   = 200     // of values in values: Python's readers of JSON end at about a thousand
)

// appendResults writes the values as a JSON array by the rules of encoding/json, or null if that is longer than
// maxResults. It goes on where encoding/json gives up, and keeps every byte:
//
//   - what JSON cannot hold is its type's name: channels, functions, NaN, a cycle, what nests deeper than
//     maxDepth, a map whose keys are no text, a Marshaler that fails; a complex number is its text;
//   - bytes, and a string that is not UTF-8, are text where they can be, else {"base64":"..."}.
//
// The rules: https://pkg.go.dev/encoding/json#Marshal. tests/real/test_results.py holds the two together.
func appendResults(to []byte, values []interface{}) (results []byte) {
	e := encoder{out: append(to, '['), limit: len(to) + maxResults, plans: map[reflect.Type]*plan{}}
	defer func() {
		if recovered := recover(); recovered != nil {
			if _, ok := recovered.(tooLarge); !ok {
				panic(recovered)
			}
			results = append(to, "null"...)
		}
	}()
	for i, value := range values {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if value == nil {
			e.add("null")
		} else {
			e.value(reflect.ValueOf(value), false)
		}
	}
	e.add("]")
	return e.out
}

type tooLarge struct{}

// encoder writes values to `out`, which never gets longer than `limit`.
type encoder struct {
	out   []byte
	limit int
	depth int
	above []reference // pointers, maps and slices that hold the value at hand
	plans map[reflect.Type]*plan
}

type reference struct {
	to     unsafe.Pointer
	length int
	kind   reflect.Type // a struct and its first field have one address
}

type (
	marshaler     interface{ MarshalJSON() ([]byte, error) }
	textMarshaler interface{ MarshalText() ([]byte, error) }
)

var (
	marshalerType     = reflect.TypeOf((*marshaler)(nil)).Elem()
	textMarshalerType = reflect.TypeOf((*textMarshaler)(nil)).Elem()
)

// plan is what decides how a type is written.
type plan struct {
	json, jsonOfPointer bool // MarshalJSON is a method of it, of a pointer to it
	text, textOfPointer bool
	number              bool // json.Number
	fields              []field
}

func (e *encoder) planOf(t reflect.Type) *plan {
	p := e.plans[t]
	if p == nil {
		pointer := reflect.PtrTo(t)
		p = &plan{
			json:          t.Implements(marshalerType),
			text:          t.Implements(textMarshalerType),
			jsonOfPointer: t.Kind() != reflect.Ptr && pointer.Implements(marshalerType),
			textOfPointer: t.Kind() != reflect.Ptr && pointer.Implements(textMarshalerType),
			number:        t.Name() == "Number" && t.PkgPath() == "encoding/json",
		}
		if t.Kind() == reflect.Struct {
			p.fields = fieldsOf(t)
		}
		e.plans[t] = p
	}
	return p
}

func (e *encoder) add(text string) {
	if len(e.out)+len(text) > e.limit {
		panic(tooLarge{})
	}
	e.out = append(e.out, text...)
}

func (e *encoder) name(t reflect.Type) {
	e.text(t.String())
}

// value writes any value. `quoted`: in a string, as the option "string" of a field wants it.
func (e *encoder) value(v reflect.Value, quoted bool) {
	t := v.Type()
	p := e.planOf(t)
	switch {
	case p.jsonOfPointer && v.CanAddr():
		e.marshal(v.Addr(), t)
	case p.json:
		e.marshal(v, t)
	case p.textOfPointer && v.CanAddr():
		e.marshalText(v.Addr(), t)
	case p.text:
		e.marshalText(v, t)
	default:
		e.plain(v, p, quoted)
	}
}

// plain writes a value that does not write itself.
func (e *encoder) plain(v reflect.Value, p *plan, quoted bool) {
	switch v.Kind() {
	case reflect.Bool:
		e.scalar(strconv.FormatBool(v.Bool()), quoted)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.scalar(strconv.FormatInt(v.Int(), 10), quoted)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		e.scalar(strconv.FormatUint(v.Uint(), 10), quoted)
	case reflect.Float32, reflect.Float64:
		e.float(v, quoted)
	case reflect.Complex64, reflect.Complex128:
		e.text(fmt.Sprint(v.Complex()))
	case reflect.String:
		e.string(v, p, quoted)
	case reflect.Interface:
		if v.IsNil() {
			e.add("null")
			return
		}
		e.value(v.Elem(), quoted)
	case reflect.Ptr:
		if v.IsNil() {
			e.add("null")
		} else if e.enter(v, 0) {
			e.value(v.Elem(), quoted)
			e.leave(true)
		}
	case reflect.Struct:
		if e.enter(v, -1) {
			e.members(v, p)
			e.leave(false)
		}
	case reflect.Map:
		e.mapping(v)
	case reflect.Slice:
		e.slice(v)
	case reflect.Array:
		if e.enter(v, -1) {
			e.elements(v)
			e.leave(false)
		}
	default:
		e.name(v.Type())
	}
}

// enter goes into a value, unless that is too deep or holds itself: then its type's name is written. `length`
// is negative for what is no reference.
func (e *encoder) enter(v reflect.Value, length int) bool {
	if e.depth >= maxDepth {
		e.name(v.Type())
		return false
	}
	if length >= 0 {
		one := reference{v.UnsafePointer(), length, v.Type()}
		for _, other := range e.above {
			if one == other {
				e.name(v.Type())
				return false
			}
		}
		e.above = append(e.above, one)
	}
	e.depth++
	return true
}

func (e *encoder) leave(reference bool) {
	e.depth--
	if reference {
		e.above = e.above[:len(e.above)-1]
	}
}

func (e *encoder) scalar(text string, quoted bool) {
	if quoted {
		text = `"` + text + `"`
	}
	e.add(text)
}

// float writes numbers the way of JavaScript, as encoding/json does.
func (e *encoder) float(v reflect.Value, quoted bool) {
	f, bits := v.Float(), v.Type().Bits()
	if math.IsNaN(f) || math.IsInf(f, 0) {
		e.name(v.Type())
		return
	}
	form, size := byte('f'), math.Abs(f)
	if size != 0 && (bits == 64 && (size < 1e-6 || size >= 1e21) ||
		bits == 32 && (float32(size) < 1e-6 || float32(size) >= 1e21)) {
		form = 'e'
	}
	text := strconv.FormatFloat(f, form, -1, bits)
	if at := len(text) - 4; form == 'e' && text[at:at+3] == "e-0" {
		text = text[:at+2] + text[at+3:]
	}
	e.scalar(text, quoted)
}

func (e *encoder) string(v reflect.Value, p *plan, quoted bool) {
	text := v.String()
	switch {
	case p.number && text == "":
		e.scalar("0", quoted)
	case p.number:
		if _, rest, ok := compactNumber(nil, text); !ok || rest != "" {
			e.name(v.Type())
		} else {
			e.scalar(text, quoted)
		}
	case quoted:
		e.text(string(appendText(nil, text)))
	default:
		e.bytes(text)
	}
}

func (e *encoder) text(text string) {
	if len(text) > e.limit {
		panic(tooLarge{})
	}
	e.out = appendText(e.out, text)
	e.add("")
}

// bytes writes text as such, else in base64.
func (e *encoder) bytes(bytes string) {
	if utf8.ValidString(bytes) {
		e.text(bytes)
		return
	}
	if len(bytes) > e.limit {
		panic(tooLarge{})
	}
	e.add(`{"base64":"` + base64.StdEncoding.EncodeToString([]byte(bytes)) + `"}`)
}

func (e *encoder) slice(v reflect.Value) {
	element := v.Type().Elem()
	switch {
	case v.IsNil():
		e.add("null")
	case element.Kind() == reflect.Uint8 && !e.planOf(element).jsonOfPointer && !e.planOf(element).textOfPointer:
		e.bytes(string(v.Bytes()))
	case e.enter(v, v.Len()):
		e.elements(v)
		e.leave(true)
	}
}

func (e *encoder) elements(v reflect.Value) {
	e.add("[")
	for i := 0; i < v.Len(); i++ {
		if i > 0 {
			e.add(",")
		}
		e.value(v.Index(i), false)
	}
	e.add("]")
}

func (e *encoder) members(v reflect.Value, p *plan) {
	separator := "{"
fields:
	for i := range p.fields {
		f := &p.fields[i]
		at := v
		for _, index := range f.index {
			if at.Kind() == reflect.Ptr {
				if at.IsNil() {
					continue fields
				}
				at = at.Elem()
			}
			at = at.Field(index)
		}
		if f.omitEmpty && isEmpty(at) || f.omitZero && isZero(at) {
			continue
		}
		e.add(separator)
		separator = ","
		e.text(f.name)
		e.add(":")
		e.value(at, f.quoted)
	}
	if separator == "{" {
		e.add("{")
	}
	e.add("}")
}

func (e *encoder) mapping(v reflect.Value) {
	if v.IsNil() {
		e.add("null")
		return
	}
	if !isKey(v.Type().Key()) {
		e.name(v.Type())
		return
	}
	if v.Len() > e.limit {
		panic(tooLarge{})
	}
	type entry struct {
		key   string
		value reflect.Value
	}
	entries := make([]entry, 0, v.Len())
	for iterator := v.MapRange(); iterator.Next(); {
		key, ok := keyOf(iterator.Key())
		if !ok {
			e.name(v.Type())
			return
		}
		entries = append(entries, entry{key, iterator.Value()})
	}
	if !e.enter(v, 0) {
		return
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].key < entries[j].key })
	e.add("{")
	for i, entry := range entries {
		if i > 0 {
			e.add(",")
		}
		e.text(entry.key)
		e.add(":")
		e.value(entry.value, false)
	}
	e.add("}")
	e.leave(true)
}

// isKey tells whether encoding/json takes a map with keys of this type.
func isKey(key reflect.Type) bool {
	switch key.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return key.Implements(textMarshalerType)
}

func keyOf(key reflect.Value) (text string, ok bool) {
	if key.Kind() == reflect.String {
		return key.String(), true
	}
	if key.Type().Implements(textMarshalerType) {
		if key.Kind() == reflect.Ptr && key.IsNil() {
			return "", true
		}
		made, ok := called(func() ([]byte, error) { return key.Interface().(textMarshaler).MarshalText() })
		return string(made), ok
	}
	switch key.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(key.Int(), 10), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.FormatUint(key.Uint(), 10), true
	}
	return "", false
}

// marshal writes what a value says of itself in JSON, or the name of its type where it fails to.
func (e *encoder) marshal(v reflect.Value, named reflect.Type) {
	if isNil(v) {
		e.add("null")
		return
	}
	made, ok := called(v.Interface().(marshaler).MarshalJSON)
	if ok && len(made) > e.limit {
		panic(tooLarge{})
	}
	if ok {
		length := len(e.out)
		if e.out, ok = compact(e.out, string(made), maxDepth-e.depth); !ok {
			e.out = e.out[:length]
		}
	}
	if !ok {
		e.name(named)
	}
	e.add("")
}

// marshalText writes what a value says of itself in text.
func (e *encoder) marshalText(v reflect.Value, named reflect.Type) {
	if isNil(v) {
		e.add("null")
		return
	}
	if made, ok := called(v.Interface().(textMarshaler).MarshalText); ok {
		e.text(string(made))
	} else {
		e.name(named)
	}
}

func isNil(v reflect.Value) bool {
	return (v.Kind() == reflect.Ptr || v.Kind() == reflect.Interface) && v.IsNil()
}

// called calls a method of the function's own code; ok is false if it fails or panics.
func called(method func() ([]byte, error)) (made []byte, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	made, err := method()
	return made, err == nil
}
