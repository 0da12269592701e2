package main

import (
	"bytes"
	"go/ast"
	"go/constant"
	"go/doc"
	"go/printer"
	"go/token"
	"go/types"
	"math"
	"strconv"
	"strings"
)

// Longest texts, in bytes. Whoever wants more reads the source.
const (
	mostName      = 300
	mostDoc       = 4000
	mostSynopsis  = 200
	mostSignature = 1000
	mostExamples  = 5
)

// entry is one exported name, or a method of one.
type entry struct {
	Kind           string          `json:"kind"`
	Name           string          `json:"name"`
	Signature      string          `json:"signature"`
	Synopsis       string          `json:"synopsis"`
	Doc            string          `json:"doc"`
	Call           string          `json:"call"`
	TypeParameters []typeParameter `json:"type_parameters"`
	Parameters     []parameter     `json:"parameters"`
	Results        []result        `json:"results"`
	Fails          bool            `json:"fails"`
	Callable       bool            `json:"callable"`
	Why            string          `json:"why"`
	Examples       []example       `json:"examples"`
}

type typeParameter struct {
	Name       string `json:"name"`
	Constraint string `json:"constraint"`
}

type parameter struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Schema   any    `json:"schema"`
	Variadic bool   `json:"variadic"`
	Given    bool   `json:"given"`
}

type result struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Schema any    `json:"schema"`
}

// plain tells whether names and calls are such as people write.
func (e *entry) plain() bool {
	plain := len(e.Name) <= mostName && len(e.Call) <= mostDoc && len(e.Why) <= mostDoc
	for _, one := range e.Parameters {
		plain = plain && len(one.Name) <= mostName
	}
	for _, one := range e.Results {
		plain = plain && len(one.Name) <= mostName
	}
	for _, one := range e.TypeParameters {
		plain = plain && len(one.Name) <= mostName
	}
	for _, one := range e.Examples {
		plain = plain && len(one.Name) <= mostName
	}
	return plain
}

func (e *entry) forgetSchemas() {
	for i := range e.Parameters {
		if e.Parameters[i].Schema != nil {
			e.Parameters[i].Schema = map[string]any{}
		}
	}
	for i := range e.Results {
		if e.Results[i].Schema != nil {
			e.Results[i].Schema = map[string]any{}
		}
	}
}

type reader struct {
	fset    *token.FileSet
	pkg     *types.Package
	doc     *doc.Package
	schemas *schemas
	ways    map[way]string
	files   map[string][]byte
}

// way is a question: how does a call come to a value of this type, or a pointer to one?
type way struct {
	name    string
	pointer bool
}

func (r *reader) read(about listed) *catalogue {
	c := &catalogue{
		Name:       about.Name,
		ImportPath: about.ImportPath,
		Synopsis:   cut(r.doc.Synopsis(r.doc.Doc), mostSynopsis),
		Doc:        cut(r.doc.Doc, mostDoc),
		Functions:  []*entry{},
		Examples:   r.examples(r.doc.Examples),
	}
	add := func(one *entry) {
		if one != nil && one.plain() {
			c.Functions = append(c.Functions, one)
		} else if one != nil {
			c.Omitted++
		}
	}
	for _, function := range r.doc.Funcs {
		add(r.function(function))
	}
	for _, kind := range r.doc.Types {
		for _, function := range kind.Funcs {
			add(r.function(function))
		}
	}
	for _, kind := range r.doc.Types {
		for _, method := range kind.Methods {
			add(r.method(kind, method))
		}
	}
	values := append(append([]*doc.Value{}, r.doc.Vars...), r.doc.Consts...)
	for _, kind := range r.doc.Types {
		values = append(append(values, kind.Vars...), kind.Consts...)
	}
	for _, value := range values {
		for _, name := range value.Names {
			add(r.value(name, value))
		}
	}
	for _, kind := range r.doc.Types {
		add(r.kind(kind))
	}
	c.Schemas = r.schemas.made()
	return c
}

func (r *reader) function(function *doc.Func) *entry {
	object, ok := r.pkg.Scope().Lookup(function.Name).(*types.Func)
	if !ok {
		return nil
	}
	one := r.entry("function", function.Name, function.Doc, function.Examples)
	one.Signature = r.declaration(function.Decl)
	r.describe(one, object.Signature())
	one.Call = function.Name + placeholders(one.Parameters)
	return one
}

func (r *reader) method(kind *doc.Type, method *doc.Func) *entry {
	named, ok := r.pkg.Scope().Lookup(kind.Name).(*types.TypeName)
	if !ok {
		return nil
	}
	found, _, _ := types.LookupFieldOrMethod(types.NewPointer(named.Type()), false, r.pkg, method.Name)
	object, ok := found.(*types.Func)
	if !ok {
		return nil
	}
	one := r.entry("method", kind.Name+"."+method.Name, method.Doc, method.Examples)
	one.Signature = r.declaration(method.Decl)
	r.describe(one, object.Signature())
	_, pointer := object.Signature().Recv().Type().(*types.Pointer)
	if receiver := r.receiver(kind, named.Type(), pointer); receiver != "" {
		one.Call = receiver + "." + method.Name + placeholders(one.Parameters)
	} else if typeParametersOf(named.Type()).Len() > 0 {
		one.Why = "the type is generic: write a value with its type arguments in `call`, such as " + kind.Name + "[…]{}"
	} else if one.Callable {
		one.Callable, one.Why = false, "nothing exported gives a value of type "+kind.Name
	}
	return one
}

func (r *reader) value(name string, value *doc.Value) *entry {
	object := r.pkg.Scope().Lookup(name)
	if object == nil || !object.Exported() {
		return nil
	}
	one := r.entry("variable", name, value.Doc, nil)
	one.Call = name
	one.Signature = "var " + name + " " + r.text(object.Type())
	kind := types.Default(object.Type())
	if constant_, ok := object.(*types.Const); ok {
		one.Kind = "constant"
		one.Signature = "const " + name + " = " + cut(constant_.Val().String(), mostSynopsis)
		if tooLarge(constant_.Val(), kind) {
			one.Call, one.Why = "", "is too large for "+r.text(kind)+", which it would become"
			return one
		}
	} else if signature, ok := object.Type().Underlying().(*types.Signature); ok {
		r.describe(one, signature)
		one.Call += placeholders(one.Parameters)
		return one
	}
	if isError(object.Type()) {
		return nil // a value to compare with, as io.EOF
	}
	one.Results = append(one.Results, result{Type: r.text(kind), Schema: r.schemas.of(kind)})
	one.Callable = true
	return one
}

// tooLarge tells whether an untyped constant has no value of the type that it takes by default. One with a
// type has.
func tooLarge(value constant.Value, kind types.Type) bool {
	basic, ok := kind.(*types.Basic)
	switch {
	case !ok:
		return false
	case basic.Kind() == types.Float64:
		number, _ := constant.Float64Val(constant.ToFloat(value))
		return math.IsInf(number, 0)
	case basic.Kind() == types.Int || basic.Kind() == types.Int32:
		number, exact := constant.Int64Val(constant.ToInt(value))
		return !exact || basic.Kind() == types.Int32 && int64(int32(number)) != number
	}
	return false
}

func (r *reader) kind(kind *doc.Type) *entry {
	one := r.entry("type", kind.Name, kind.Doc, kind.Examples)
	one.Signature = r.declaration(kind.Decl)
	if object, ok := r.pkg.Scope().Lookup(kind.Name).(*types.TypeName); ok {
		one.TypeParameters = r.typeParameters(typeParametersOf(object.Type()))
		one.Callable = len(one.TypeParameters) > 0 || r.receiver(kind, object.Type(), false) != ""
	}
	return one
}

func (r *reader) entry(kind, name, text string, examples []*doc.Example) *entry {
	return &entry{
		Kind:           kind,
		Name:           name,
		Synopsis:       cut(r.doc.Synopsis(text), mostSynopsis),
		Doc:            cut(strings.TrimSpace(text), mostDoc),
		TypeParameters: []typeParameter{},
		Parameters:     []parameter{},
		Results:        []result{},
		Examples:       r.examples(examples),
	}
}

// describe fills in what the signature tells.
func (r *reader) describe(one *entry, signature *types.Signature) {
	one.Callable = true
	one.TypeParameters = r.typeParameters(signature.TypeParams())
	if signature.TypeParams().Len() == 0 {
		one.TypeParameters = r.typeParameters(signature.RecvTypeParams())
	}
	taken := map[string]bool{}
	for i := range signature.Params().Len() {
		variable := signature.Params().At(i)
		variadic := signature.Variadic() && i == signature.Params().Len()-1
		kind := variable.Type()
		if variadic {
			if slice, ok := kind.Underlying().(*types.Slice); ok {
				kind = slice.Elem()
			}
		}
		name := variable.Name()
		if name == "" || name == "_" || taken[name] {
			name = "arg" + strconv.Itoa(i+1)
		}
		taken[name] = true
		described := parameter{Name: name, Type: r.text(kind), Variadic: variadic, Given: isGiven(kind)}
		if !described.Given {
			described.Schema = r.schemas.of(kind)
		}
		one.Parameters = append(one.Parameters, described)
		if described.Schema == nil && !described.Given && !variadic && one.Callable {
			why, never := obstacle(kind)
			if never || one.Why == "" {
				one.Callable, one.Why = !never, "parameter "+name+" "+why
			}
		}
	}
	if one.Callable && one.Why == "" && signature.TypeParams().Len() > 0 {
		var names []string
		for _, parameter := range one.TypeParameters {
			names = append(names, parameter.Name)
		}
		one.Why = "is generic: with `args`, name in `types` what " + strings.Join(names, ", ") + " shall be"
	}
	results := signature.Results()
	for i := range results.Len() {
		kind := results.At(i).Type()
		if i == results.Len()-1 && isError(kind) {
			one.Fails = true
			break
		}
		named := result{Name: results.At(i).Name(), Type: r.text(kind), Schema: r.schemas.of(kind)}
		one.Results = append(one.Results, named)
	}
}

// obstacle is why JSON cannot give a parameter of this type, and whether no expression can either.
func obstacle(kind types.Type) (why string, never bool) {
	switch under := kind.Underlying().(type) {
	case *types.Chan:
		return "is a channel, which a call cannot give", true
	case *types.Signature:
		return "is a function: write a function literal in `call`, not in `args`", false
	case *types.Interface:
		return "is an interface: give a value that has its methods in `call`, not in `args`", false
	case *types.Pointer:
		return obstacle(under.Elem())
	case *types.Basic:
		if under.Kind() == types.UnsafePointer {
			return "is an unsafe pointer, which a call cannot give", true
		}
	}
	return "has a type that JSON does not have: give it in `call`, not in `args`", false
}

func (r *reader) typeParameters(list *types.TypeParamList) []typeParameter {
	all := []typeParameter{}
	for i := range list.Len() {
		one := list.At(i)
		all = append(all, typeParameter{one.Obj().Name(), r.text(one.Constraint())})
	}
	return all
}

func typeParametersOf(kind types.Type) *types.TypeParamList {
	switch kind := kind.(type) {
	case *types.Named:
		return kind.TypeParams()
	case *types.Alias:
		return kind.TypeParams()
	}
	return nil
}

// receiver is an expression for a value of the type, on which its methods can be called, those of a pointer
// too where `pointer`; empty if there is none.
func (r *reader) receiver(kind *doc.Type, named types.Type, pointer bool) string {
	asked := way{kind.Name, pointer}
	found, ok := r.ways[asked]
	if !ok {
		found = r.findReceiver(kind, named, pointer)
		r.ways[asked] = found
	}
	return found
}

func (r *reader) findReceiver(kind *doc.Type, named types.Type, pointer bool) string {
	best, fewest := "", -1
	for _, function := range kind.Funcs {
		object, ok := r.pkg.Scope().Lookup(function.Name).(*types.Func)
		if !ok || !gives(object.Signature(), named, pointer) {
			continue
		}
		one := &entry{}
		r.describe(one, object.Signature())
		wanted := len(one.Parameters) + object.Signature().TypeParams().Len()
		if one.Callable && (fewest < 0 || wanted < fewest) {
			best, fewest = function.Name+placeholders(one.Parameters), wanted
		}
	}
	if best != "" {
		return best
	}
	for _, value := range kind.Vars {
		for _, name := range value.Names {
			if object, ok := r.pkg.Scope().Lookup(name).(*types.Var); ok && object.Exported() {
				return name
			}
		}
	}
	if typeParametersOf(named).Len() > 0 {
		return ""
	}
	literal := ""
	switch named.Underlying().(type) {
	case *types.Struct, *types.Slice, *types.Map, *types.Array:
		literal = kind.Name + "{}"
	case *types.Basic:
		if !pointer {
			literal = kind.Name + "(value)"
		}
	}
	if pointer && literal != "" {
		return "(&" + literal + ")"
	}
	return literal
}

// gives tells whether the first result is of the type, or a pointer to it, and only an error or a bool follows.
func gives(signature *types.Signature, named types.Type, pointer bool) bool {
	results := signature.Results()
	if results.Len() < 1 || results.Len() > 2 {
		return false
	}
	kind := types.Unalias(results.At(0).Type())
	if to, is := kind.(*types.Pointer); is {
		kind, pointer = types.Unalias(to.Elem()), false
	}
	have, isNamed := kind.(*types.Named)
	want, wantNamed := types.Unalias(named).(*types.Named)
	if pointer || !isNamed || !wantNamed || have.Obj() != want.Obj() {
		return false
	}
	return results.Len() == 1 || isError(results.At(1).Type()) || types.Identical(results.At(1).Type(), types.Typ[types.Bool])
}

func isError(kind types.Type) bool {
	return types.Identical(kind, types.Universe.Lookup("error").Type())
}

func placeholders(parameters []parameter) string {
	var names []string
	for _, one := range parameters {
		if !one.Variadic && !one.Given {
			names = append(names, one.Name)
		}
	}
	return "(" + strings.Join(names, ", ") + ")"
}

// declaration is how the source declares it, without body and comments.
func (r *reader) declaration(node ast.Decl) string {
	switch node := node.(type) {
	case *ast.FuncDecl:
		bare := *node
		bare.Body, bare.Doc = nil, nil
		return r.print(&bare)
	case *ast.GenDecl:
		bare := *node
		bare.Doc = nil
		return r.print(&bare)
	}
	return ""
}

func (r *reader) print(node any) string {
	var text bytes.Buffer
	if printer.Fprint(&text, r.fset, node) != nil {
		return ""
	}
	return cut(text.String(), mostSignature)
}

// cut shortens a text to so many bytes, at the end of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
