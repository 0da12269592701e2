package main

import (
	"go/types"
	"strconv"
	"strings"
)

// wordsWritten counts what was written of a type: written out, a type may be longer than all memory.
type wordsWritten int

func (r *reader) text(kind types.Type) string {
	return cut(typeText(kind, r.pkg, new(wordsWritten)), mostSignature)
}

// typeText is a type as the caller would write it: names of other packages with the package's name in front.
func typeText(kind types.Type, pkg *types.Package, words *wordsWritten) string {
	if *words++; *words > mostWords {
		return "…"
	}
	inner := func(kind types.Type) string { return typeText(kind, pkg, words) }
	switch kind := kind.(type) {
	case *types.Alias:
		return nameText(kind.Obj(), pkg) + argumentsText(kind.TypeArgs(), inner)
	case *types.Named:
		return nameText(kind.Obj(), pkg) + argumentsText(kind.TypeArgs(), inner)
	case *types.TypeParam:
		return kind.Obj().Name()
	case *types.Pointer:
		return "*" + inner(kind.Elem())
	case *types.Slice:
		return "[]" + inner(kind.Elem())
	case *types.Array:
		return "[" + strconv.FormatInt(kind.Len(), 10) + "]" + inner(kind.Elem())
	case *types.Map:
		return "map[" + inner(kind.Key()) + "]" + inner(kind.Elem())
	case *types.Chan:
		return [...]string{"chan ", "chan<- ", "<-chan "}[kind.Dir()] + inner(kind.Elem())
	case *types.Signature:
		return "func" + tupleText(kind.Params(), kind.Variadic(), inner) + resultsText(kind.Results(), inner)
	case *types.Interface:
		if kind.NumMethods() == 0 && kind.IsMethodSet() {
			return "any"
		}
		if kind.IsImplicit() && kind.NumEmbeddeds() == 1 {
			return inner(kind.EmbeddedType(0))
		}
		return "interface{…}"
	case *types.Union:
		var terms []string
		for i := range kind.Len() {
			term := inner(kind.Term(i).Type())
			if kind.Term(i).Tilde() {
				term = "~" + term
			}
			if terms = append(terms, term); *words > mostWords {
				break
			}
		}
		return strings.Join(terms, " | ")
	case *types.Struct:
		if kind.NumFields() > 0 {
			return "struct{…}"
		}
	}
	return types.TypeString(kind, nil)
}

func nameText(object *types.TypeName, pkg *types.Package) string {
	if object.Pkg() == nil || object.Pkg() == pkg {
		return object.Name()
	}
	return object.Pkg().Name() + "." + object.Name()
}

func argumentsText(list *types.TypeList, inner func(types.Type) string) string {
	if list.Len() == 0 {
		return ""
	}
	var texts []string
	for i := range list.Len() {
		texts = append(texts, inner(list.At(i)))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func tupleText(tuple *types.Tuple, variadic bool, inner func(types.Type) string) string {
	var texts []string
	for i := range tuple.Len() {
		text := inner(tuple.At(i).Type())
		if variadic && i == tuple.Len()-1 {
			text = "..." + strings.TrimPrefix(text, "[]")
		}
		if name := tuple.At(i).Name(); name != "" {
			text = name + " " + text
		}
		texts = append(texts, text)
	}
	return "(" + strings.Join(texts, ", ") + ")"
}

func resultsText(tuple *types.Tuple, inner func(types.Type) string) string {
	switch {
	case tuple.Len() == 0:
		return ""
	case tuple.Len() == 1 && tuple.At(0).Name() == "":
		return " " + inner(tuple.At(0).Type())
	}
	return " " + tupleText(tuple, false, inner)
}
