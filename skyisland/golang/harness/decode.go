package harness

import (
	"reflect"
	"strconv"
	"strings"
)

// jsonReader and textReader are json.Unmarshaler and encoding.TextUnmarshaler, which a type may implement
// without our linking encoding/json.
type jsonReader interface{ UnmarshalJSON([]byte) error }
type textReader interface{ UnmarshalText([]byte) error }

var (
	jsonReaderType = reflect.TypeOf((*jsonReader)(nil)).Elem()
	textReaderType = reflect.TypeOf((*textReader)(nil)).Elem()
)

// decode reads the next value into `to`, which can be set, by the rules of encoding/json; three things differ:
// names that a struct does not have, and names that are there twice, are refused; a []byte is a text's bytes,
// not base64; and `give` knows some types that encoding/json does not.
func (s *source) decode(to reflect.Value) *fault {
	first := s.peek()
	if given, wrong := s.give(to, first); given {
		return wrong
	}
	own, to := allocate(to, first == 'n')
	switch reads := own.(type) {
	case jsonReader:
		raw, wrong := s.raw()
		if wrong == nil {
			wrong = accepted(to.Type(), reads.UnmarshalJSON([]byte(raw)))
		}
		return wrong
	case textReader:
		if first != '"' {
			return s.unwanted(to.Type())
		}
		text, wrong := s.quoted()
		if wrong == nil {
			wrong = accepted(to.Type(), reads.UnmarshalText([]byte(text)))
		}
		return wrong
	}
	if to.Kind() == reflect.Interface && to.NumMethod() == 0 && first != 'n' {
		value, wrong := s.value()
		if wrong == nil {
			to.Set(reflect.ValueOf(value))
		}
		return wrong
	}
	switch first {
	case '[':
		return s.decodeArray(to)
	case '{':
		return s.decodeObject(to)
	case '"':
		return s.decodeText(to)
	}
	return s.decodeWord(to)
}

// allocate follows pointers, and makes what they point to. It returns the value there; and the first on the way
// that reads JSON or text itself, if there is one, with the value that it reads into. For null it stops at a
// pointer, which becomes nil.
func allocate(v reflect.Value, null bool) (own any, to reflect.Value) {
	if v.Kind() != reflect.Pointer && v.Type().Name() != "" && v.CanAddr() {
		v = v.Addr()
	}
	for v.Kind() == reflect.Pointer {
		if null && v.CanSet() {
			return nil, v
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if v.Type().NumMethod() > 0 && v.CanInterface() {
			switch reads := v.Interface().(type) {
			case jsonReader:
				return reads, v.Elem()
			case textReader:
				if !null {
					return reads, v.Elem()
				}
			}
		}
		v = v.Elem()
	}
	return nil, v
}

// accepted turns the error of a type's own method into a fault.
func accepted(to reflect.Type, err error) *fault {
	if err == nil {
		return nil
	}
	return &fault{reason: wants(to) + ": " + message(err)}
}

// unwanted is the fault of a value of the wrong kind.
func (s *source) unwanted(to reflect.Type) *fault {
	kinds := map[byte]string{'n': "null", 't': "true", 'f': "false", '"': "a text", '[': "an array", '{': "an object"}
	kind, ok := kinds[s.peek()]
	if !ok {
		if _, wrong := s.word(); wrong != nil {
			return wrong
		}
		kind = "a number"
	}
	if described(to) == "" {
		return &fault{reason: wants(to)}
	}
	return &fault{reason: wants(to) + ", not " + kind}
}

func (s *source) decodeArray(to reflect.Value) *fault {
	switch to.Kind() {
	case reflect.Array:
		n := 0
		wrong := s.array(func(i int) *fault {
			if n++; i >= to.Len() {
				return s.skip()
			}
			return s.decode(to.Index(i))
		})
		for ; n < to.Len(); n++ {
			to.Index(n).SetZero()
		}
		return wrong
	case reflect.Slice:
		to.Set(reflect.MakeSlice(to.Type(), 0, 0))
		return s.array(func(i int) *fault {
			if i == to.Cap() {
				to.Grow(i + 4)
			}
			to.SetLen(i + 1)
			to.Index(i).SetZero()
			return s.decode(to.Index(i))
		})
	}
	return s.unwanted(to.Type())
}

func (s *source) decodeObject(to reflect.Value) *fault {
	switch to.Kind() {
	case reflect.Map:
		return s.decodeMap(to)
	case reflect.Struct:
		return s.decodeStruct(to)
	case reflect.Slice:
		if isBytes(to.Type()) {
			data, wrong := s.base64()
			to.SetBytes([]byte(data))
			return wrong
		}
	}
	return s.unwanted(to.Type())
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

func (s *source) decodeMap(to reflect.Value) *fault {
	key, element := to.Type().Key(), to.Type().Elem()
	if to.IsNil() {
		to.Set(reflect.MakeMap(to.Type()))
	}
	return s.object(func(name string) *fault {
		k := reflect.New(key).Elem()
		if wrong := decodeKey(name, k); wrong != nil {
			return wrong
		}
		if to.MapIndex(k).IsValid() {
			return &fault{reason: "is there twice"}
		}
		value := reflect.New(element).Elem()
		wrong := s.decode(value)
		to.SetMapIndex(k, value)
		return wrong
	})
}

// decodeKey makes a map's key of a name.
func decodeKey(name string, key reflect.Value) *fault {
	if reads, ok := key.Addr().Interface().(textReader); ok {
		return accepted(key.Type(), reads.UnmarshalText([]byte(name)))
	}
	switch kind := key.Kind(); {
	case kind == reflect.String:
		key.SetString(name)
		return nil
	case isInt(kind) || isUint(kind) || isFloat(kind):
		return setNumber(key, name)
	}
	return &fault{reason: "no name in JSON can be a key of type " + key.Type().String()}
}

func (s *source) decodeStruct(to reflect.Value) *fault {
	fields, ok := s.fields[to.Type()]
	if !ok {
		fields = fieldsOf(to.Type())
		if s.fields == nil {
			s.fields = map[reflect.Type][]field{}
		}
		s.fields[to.Type()] = fields
	}
	given := make([]bool, len(fields))
	return s.object(func(name string) *fault {
		n := named(fields, name)
		if n < 0 {
			return &fault{reason: "is no field of " + to.Type().String() + "; " + names(fields)}
		}
		if given[n] {
			return &fault{reason: "is there twice"}
		}
		given[n] = true
		v := to
		for _, i := range fields[n].index {
			if v.Kind() == reflect.Pointer {
				if v.IsNil() {
					if !v.CanSet() {
						return &fault{reason: "lies behind a pointer to " + v.Type().Elem().String() + ", which is not exported"}
					}
					v.Set(reflect.New(v.Type().Elem()))
				}
				v = v.Elem()
			}
			v = v.Field(i)
		}
		if fields[n].quoted && !readsItself(v.Type()) {
			return s.decodeQuoted(v)
		}
		return s.decode(v)
	})
}

func readsItself(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	t = reflect.PointerTo(t)
	return t.Implements(jsonReaderType) || t.Implements(textReaderType)
}

// named returns the number of the field with this name, else of the first that differs in nothing but case.
func named(fields []field, name string) int {
	folded := -1
	for n := range fields {
		if fields[n].name == name {
			return n
		}
		if folded < 0 && strings.EqualFold(fields[n].name, name) {
			folded = n
		}
	}
	return folded
}

func names(fields []field) string {
	if len(fields) == 0 {
		return "JSON can set none of its fields"
	}
	list := "it has "
	for n, f := range fields {
		if n == 20 {
			return list + ", …"
		}
		if n > 0 {
			list += ", "
		}
		list += f.name
	}
	return list
}

// decodeQuoted reads a value that stands in quotes, as a field's option `string` has it.
func (s *source) decodeQuoted(to reflect.Value) *fault {
	if s.peek() == 'n' {
		return s.decode(to)
	}
	text, wrong := s.quoted()
	if wrong != nil {
		return &fault{reason: "wants its value in quotes (option `string` of its tag)"}
	}
	inner := source{text: text}
	if inner.peek(); inner.at != 0 || isJSONNumber(to.Type()) && !isNumber(text) {
		return inner.malformed("a value")
	}
	if wrong := inner.decode(to); wrong != nil {
		return wrong
	}
	if inner.at != len(text) {
		return &fault{reason: "has more than one value in its quotes"}
	}
	return nil
}

func (s *source) decodeText(to reflect.Value) *fault {
	if to.Kind() != reflect.String && !isBytes(to.Type()) {
		return s.unwanted(to.Type())
	}
	text, wrong := s.quoted()
	switch {
	case wrong != nil:
		return wrong
	case isBytes(to.Type()):
		to.SetBytes([]byte(text))
	case isJSONNumber(to.Type()) && !isNumber(text):
		return &fault{reason: "wants a number"}
	default:
		to.SetString(text)
	}
	return nil
}

// isJSONNumber reports whether this is json.Number.
func isJSONNumber(t reflect.Type) bool {
	return t.Name() == "Number" && t.PkgPath() == "encoding/json"
}

func (s *source) decodeWord(to reflect.Value) *fault {
	start := s.at
	word, wrong := s.word()
	if wrong != nil {
		return wrong
	}
	switch kind := to.Kind(); {
	case word == "null":
		switch kind {
		case reflect.Interface, reflect.Pointer, reflect.Map, reflect.Slice:
			to.SetZero()
		}
		return nil
	case word == "true" || word == "false":
		if kind == reflect.Bool {
			to.SetBool(word == "true")
			return nil
		}
	case isInt(kind) || isUint(kind) || isFloat(kind):
		return setNumber(to, word)
	case isJSONNumber(to.Type()):
		to.SetString(word)
		return nil
	}
	s.at = start
	return s.unwanted(to.Type())
}

// setNumber sets a number as it is written, or says that it does not fit.
func setNumber(to reflect.Value, number string) *fault {
	bits := to.Type().Bits()
	var err error
	switch {
	case isInt(to.Kind()):
		var i int64
		i, err = strconv.ParseInt(number, 10, bits)
		to.SetInt(i)
	case isUint(to.Kind()):
		var u uint64
		u, err = strconv.ParseUint(number, 10, bits)
		to.SetUint(u)
	default:
		var f float64
		f, err = strconv.ParseFloat(number, bits)
		to.SetFloat(f)
	}
	if err != nil {
		return &fault{reason: wants(to.Type()) + ", not " + shown(number)}
	}
	return nil
}

// value reads what an interface{} becomes: bool, float64, string, []interface{}, map[string]interface{}, nil.
func (s *source) value() (any, *fault) {
	switch s.peek() {
	case '[':
		made := []any{}
		wrong := s.array(func(int) *fault {
			element, wrong := s.value()
			made = append(made, element)
			return wrong
		})
		return made, wrong
	case '{':
		made := map[string]any{}
		return made, s.object(func(name string) *fault {
			if _, ok := made[name]; ok {
				return &fault{reason: "is there twice"}
			}
			element, wrong := s.value()
			made[name] = element
			return wrong
		})
	case '"':
		text, wrong := s.quoted()
		return text, wrong
	}
	word, wrong := s.word()
	switch {
	case wrong != nil || word == "null":
		return nil, wrong
	case word == "true" || word == "false":
		return word == "true", nil
	}
	number, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return nil, &fault{reason: shown(word) + " is out of range for float64, which a number becomes where any type may stand"}
	}
	return number, nil
}
