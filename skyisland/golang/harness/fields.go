package harness

import (
	"reflect"
	"sort"
	"strings"
	"unicode"
)

// field is a member of a struct's JSON object: a field of the struct, or of one that it embeds.
type field struct {
	name      string
	tagged    bool  // its tag names it
	index     []int // the way to it through embedded structs
	omitEmpty bool
	omitZero  bool
	quoted    bool
}

// fieldsOf returns the members of a struct's object, by Go's rules for embedded fields as encoding/json has
// them: of one name the field at the least depth counts; of several there, the one that its tag names, if it
// is the only one; else none.
func fieldsOf(t reflect.Type) []field {
	type embedded struct {
		kind  reflect.Type
		index []int
	}
	var found []field
	next := []embedded{{kind: t}}
	visited := map[reflect.Type]bool{}
	var times map[reflect.Type]int // how often each type is embedded at this depth
	for nextTimes := map[reflect.Type]int{}; len(next) > 0; {
		this := next
		next = nil
		times, nextTimes = nextTimes, map[reflect.Type]int{}
		for _, outer := range this {
			if visited[outer.kind] {
				continue
			}
			visited[outer.kind] = true
			for i := 0; i < outer.kind.NumField(); i++ {
				declared := outer.kind.Field(i)
				kind := declared.Type
				if declared.Anonymous {
					if kind.Kind() == reflect.Ptr {
						kind = kind.Elem()
					}
					if declared.PkgPath != "" && kind.Kind() != reflect.Struct {
						continue
					}
				} else if declared.PkgPath != "" {
					continue
				}
				tag := declared.Tag.Get("json")
				if tag == "-" {
					continue
				}
				name, options, _ := strings.Cut(tag, ",")
				if !isName(name) {
					name = ""
				}
				index := append(append([]int(nil), outer.index...), i)
				kind = declared.Type
				if kind.Name() == "" && kind.Kind() == reflect.Ptr {
					kind = kind.Elem()
				}
				if name == "" && declared.Anonymous && kind.Kind() == reflect.Struct {
					nextTimes[kind]++
					if nextTimes[kind] == 1 {
						next = append(next, embedded{kind, index})
					}
					continue
				}
				one := field{name: name, tagged: name != "", index: index}
				if name == "" {
					one.name = declared.Name
				}
				for _, option := range strings.Split(options, ",") {
					switch option {
					case "omitempty":
						one.omitEmpty = true
					case "omitzero":
						one.omitZero = true
					case "string":
						one.quoted = isScalar(kind)
					}
				}
				found = append(found, one)
				if times[outer.kind] > 1 {
					found = append(found, one) // it stands against itself, so that neither counts
				}
			}
		}
	}
	return dominant(found)
}

// dominant keeps of each name the field that counts, if one does, in the order of the declarations.
func dominant(found []field) []field {
	sort.SliceStable(found, func(i, j int) bool {
		a, b := found[i], found[j]
		switch {
		case a.name != b.name:
			return a.name < b.name
		case len(a.index) != len(b.index):
			return len(a.index) < len(b.index)
		case a.tagged != b.tagged:
			return a.tagged
		}
		return before(a.index, b.index)
	})
	kept := found[:0]
	for start := 0; start < len(found); {
		end := start + 1
		for end < len(found) && found[end].name == found[start].name {
			end++
		}
		first := found[start]
		rival := end-start > 1 && len(found[start+1].index) == len(first.index) && found[start+1].tagged == first.tagged
		if !rival {
			kept = append(kept, first)
		}
		start = end
	}
	sort.Slice(kept, func(i, j int) bool { return before(kept[i].index, kept[j].index) })
	return kept
}

func before(a, b []int) bool {
	for i, index := range a {
		if i >= len(b) {
			return false
		}
		if index != b[i] {
			return index < b[i]
		}
	}
	return len(a) < len(b)
}

// isName tells whether a tag names a member; encoding/json ignores other names.
func isName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

// isScalar tells whether the option "string" means anything for a type.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64, reflect.Uintptr,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// isEmpty is the meaning of "omitempty".
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Interface, reflect.Ptr:
		return v.IsNil()
	}
	return isScalar(v.Type()) && v.IsZero()
}

type zeroer interface{ IsZero() bool }

var zeroerType = reflect.TypeOf((*zeroer)(nil)).Elem()

// isZero is the meaning of "omitzero": what the value's own method says, if it has one.
func isZero(v reflect.Value) (zero bool) {
	t := v.Type()
	switch {
	case t.Implements(zeroerType):
		if isNil(v) || t.Kind() == reflect.Interface && isNil(v.Elem()) {
			return true
		}
	case reflect.PtrTo(t).Implements(zeroerType):
		if !v.CanAddr() {
			copied := reflect.New(t).Elem()
			copied.Set(v)
			v = copied
		}
		v = v.Addr()
	default:
		return v.IsZero()
	}
	defer func() { recover() }()
	return v.Interface().(zeroer).IsZero()
}
