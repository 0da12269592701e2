package main

import (
	"go/token"
	"go/types"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what types become: a repository can declare types that would be endless when written out.
const (
	mostNodes = 50_000
	mostDepth = 12
	mostWords = 200
)

// schemas makes JSON Schemas of types, by the rules of encoding/json. Each named type is described once.
type schemas struct {
	pkg      *types.Package
	defined  map[string]any
	referred map[string]bool
	named    map[string]*types.Named
	nodes    int
}

func newSchemas(pkg *types.Package) *schemas {
	return &schemas{pkg: pkg, defined: map[string]any{}, named: map[string]*types.Named{}, referred: map[string]bool{}}
}

// of is the schema of what JSON gives for the type, or nil if JSON cannot.
func (s *schemas) of(kind types.Type) any {
	return s.at(kind, 0)
}

func object(pairs ...any) map[string]any {
	made := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		made[pairs[i].(string)] = pairs[i+1]
	}
	return made
}

func (s *schemas) at(kind types.Type, depth int) any {
	s.nodes++
	if s.nodes > mostNodes || depth > mostDepth {
		return object()
	}
	kind = types.Unalias(kind)
	named, ok := kind.(*types.Named)
	if !ok {
		return s.unnamed(kind, depth)
	}
	path := pathOf(named)
	if known, ok := wellKnown[path]; ok {
		return known
	}
	switch {
	case types.IsInterface(named):
		return s.unnamed(named.Underlying(), depth)
	case hasMethod(named, "MarshalJSON", "UnmarshalJSON"):
		return object("description", "what "+path+" makes of JSON itself")
	case hasMethod(named, "MarshalText", "UnmarshalText"):
		return object("type", "string", "description", "what "+path+" reads itself")
	}
	if _, basic := named.Underlying().(*types.Basic); basic {
		return s.unnamed(named.Underlying(), depth)
	}
	key := s.key(named)
	if _, known := s.defined[key]; !known {
		s.defined[key] = nothing // for now: a recursive type refers to itself
		s.defined[key] = s.unnamed(named.Underlying(), 0)
	}
	if s.defined[key] == nil {
		return nil
	}
	s.referred[key] = true
	return object("$ref", "#/schemas/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
}

// made are the schemas of all types that have one. If one has none that others refer to, because they were made
// in its midst, nothing fits it.
func (s *schemas) made() map[string]any {
	made := map[string]any{}
	for key, schema := range s.defined {
		if schema != nil {
			made[key] = schema
		} else if s.referred[key] {
			made[key] = nothing
		}
	}
	return made
}

var nothing any = object("not", object())

// key is a type's name in `schemas`: as a caller would write it, with a number where two have the same name.
func (s *schemas) key(named *types.Named) string {
	name := cut(typeText(named, s.pkg, new(wordsWritten)), mostName)
	key := name
	for number := 2; s.named[key] != nil && !types.Identical(s.named[key], named) && s.nodes < mostNodes; number++ {
		key = name + " " + strconv.Itoa(number)
		s.nodes++
	}
	s.named[key] = named
	return key
}

// wellKnown are types that a call gives in a form of their own.
var wellKnown = map[string]any{
	"time.Duration":        object("type", []string{"string", "integer"}, "description", `as "1m30s", or nanoseconds`),
	"time.Time":            object("type", "string", "format", "date-time"),
	"math/big.Int":         object("type", "integer"),
	"encoding/json.Number": object("type", "number"),
	"error":                object("type", "string", "description", "its text"),
}

// What the harness makes of text, or gives itself, for a parameter (given.go of the harness).
var (
	readers = words("Read ReadAt ReadByte ReadRune Seek WriteTo UnreadByte UnreadRune Len Size Reset Close")
	writers = words(`AvailableBuffer Available Bytes Cap Grow Len Next Peek Read ReadByte ReadBytes ReadFrom
		ReadRune ReadString Reset String Truncate UnreadByte UnreadRune Write WriteByte WriteRune WriteString
		WriteTo Close`)
)

func words(text string) map[string]bool {
	made := map[string]bool{}
	for _, word := range strings.Fields(text) {
		made[word] = true
	}
	return made
}

// within tells whether the interface wants no other methods than these, and one of `some`.
func within(kind *types.Interface, these map[string]bool, some ...string) bool {
	found := false
	for i := range kind.NumMethods() {
		name := kind.Method(i).Name()
		if !these[name] {
			return false
		}
		found = found || slices.Contains(some, name)
	}
	return found
}

// isGiven tells whether the island gives the parameter: a context, or what the function writes to.
func isGiven(kind types.Type) bool {
	kind = types.Unalias(kind)
	if to, ok := kind.(*types.Pointer); ok {
		path := pathOf(to.Elem())
		return path == "bytes.Buffer" || path == "strings.Builder"
	}
	under, ok := kind.Underlying().(*types.Interface)
	return ok && (pathOf(kind) == "context.Context" || within(under, writers, "Write", "WriteByte", "WriteString"))
}

func pathOf(kind types.Type) string {
	named, ok := types.Unalias(kind).(*types.Named)
	switch {
	case !ok:
		return ""
	case named.Obj().Pkg() == nil:
		return named.Obj().Name()
	}
	return named.Obj().Pkg().Path() + "." + named.Obj().Name()
}

func (s *schemas) unnamed(kind types.Type, depth int) any {
	switch kind := kind.(type) {
	case *types.Basic:
		return basic(kind)
	case *types.Pointer:
		return s.at(kind.Elem(), depth+1)
	case *types.Slice:
		if isByte(kind.Elem()) {
			return object("type", []string{"string", "object"}, "description", `text, or {"base64": "…"}`)
		}
		return s.list(kind.Elem(), depth, -1)
	case *types.Array:
		return s.list(kind.Elem(), depth, kind.Len())
	case *types.Map:
		values := s.at(kind.Elem(), depth+1)
		if values == nil || !s.isKey(kind.Key()) {
			return nil
		}
		return object("type", "object", "additionalProperties", values)
	case *types.Struct:
		return object("type", "object", "properties", s.properties(kind, depth))
	case *types.Interface:
		switch {
		case kind.NumMethods() == 0 && kind.IsMethodSet():
			return object()
		case within(kind, readers, "Read", "ReadAt", "ReadByte", "ReadRune"):
			return object("type", []string{"string", "object"}, "description", `text, {"base64": "…"}, or {"stdin": true}`)
		}
	case *types.TypeParam:
		return object()
	}
	return nil
}

func (s *schemas) list(items types.Type, depth int, length int64) any {
	of := s.at(items, depth+1)
	if of == nil {
		return nil
	}
	made := object("type", "array", "items", of)
	if length >= 0 {
		made["maxItems"] = length
	}
	return made
}

func (s *schemas) isKey(kind types.Type) bool {
	if _, ok := kind.(*types.TypeParam); ok { // `types` says what
		return true
	}
	if named, ok := types.Unalias(kind).(*types.Named); ok && hasMethod(named, "MarshalText", "UnmarshalText") {
		return true
	}
	under, ok := kind.Underlying().(*types.Basic)
	return ok && under.Info()&(types.IsString|types.IsInteger) != 0
}

type field struct {
	schema any
	depth  int
	tagged bool
	twice  bool
}

// properties are a struct's fields, those of embedded structs among them, as encoding/json sees them.
func (s *schemas) properties(kind *types.Struct, depth int) map[string]any {
	fields := map[string]field{}
	s.collect(kind, depth, 0, fields, map[types.Type]bool{})
	made := map[string]any{}
	for name, one := range fields {
		if !one.twice && one.schema != nil {
			made[name] = one.schema
		}
	}
	return made
}

func (s *schemas) collect(kind *types.Struct, depth, level int, fields map[string]field, open map[types.Type]bool) {
	for i := range kind.NumFields() {
		if s.nodes++; s.nodes > mostNodes {
			return
		}
		variable := kind.Field(i)
		tag := reflect.StructTag(kind.Tag(i)).Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" {
			continue
		}
		inner := types.Unalias(variable.Type())
		if to, ok := inner.(*types.Pointer); ok && variable.Embedded() {
			inner = types.Unalias(to.Elem())
		}
		if under, ok := inner.Underlying().(*types.Struct); ok && variable.Embedded() && name == "" {
			if level < mostDepth && !open[inner] {
				open[inner] = true
				s.collect(under, depth, level+1, fields, open)
				delete(open, inner)
			}
			continue
		}
		if !token.IsExported(variable.Name()) {
			continue
		}
		tagged := name != ""
		if !tagged {
			name = variable.Name()
		}
		other, taken := fields[name]
		switch {
		case taken && (other.depth < level || other.depth == level && other.tagged && !tagged):
			continue
		case taken && other.depth == level && other.tagged == tagged:
			other.twice = true
			fields[name] = other
			continue
		}
		schema := s.at(variable.Type(), depth+1)
		if strings.Contains(","+options+",", ",string,") && schema != nil {
			schema = object("type", "string")
		}
		fields[name] = field{schema, level, tagged, false}
	}
}

func basic(kind *types.Basic) any {
	info := kind.Info()
	switch {
	case info&types.IsBoolean != 0:
		return object("type", "boolean")
	case info&types.IsString != 0:
		return object("type", "string")
	case info&types.IsInteger != 0:
		made := object("type", "integer")
		if bits, ok := sizes[kind.Kind()]; ok && info&types.IsUnsigned != 0 {
			made["minimum"], made["maximum"] = 0, uint64(1)<<bits-1
		} else if ok {
			made["minimum"], made["maximum"] = -(int64(1) << (bits - 1)), int64(1)<<(bits-1)-1
		} else if info&types.IsUnsigned != 0 {
			made["minimum"] = 0
		}
		return made
	case info&types.IsFloat != 0:
		return object("type", "number")
	}
	return nil
}

// sizes are those whose bounds a float of JavaScript can hold.
var sizes = map[types.BasicKind]uint{
	types.Int8: 8, types.Int16: 16, types.Int32: 32, types.Uint8: 8, types.Uint16: 16, types.Uint32: 32,
}

func isByte(kind types.Type) bool {
	under, ok := kind.Underlying().(*types.Basic)
	return ok && under.Kind() == types.Byte
}

// hasMethod tells whether the type or a pointer to it has one of these methods.
func hasMethod(named *types.Named, names ...string) bool {
	for _, name := range names {
		found, _, _ := types.LookupFieldOrMethod(types.NewPointer(named), false, nil, name)
		if _, ok := found.(*types.Func); ok {
			return true
		}
	}
	return false
}
