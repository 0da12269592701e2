// Command parsing tells what Go's own parser makes of the arguments of calls.
//
// Texts come on standard input, a NUL behind each. For each, a line of JSON comes out: the tree of the one
// expression that it is, without positions, and the names in it that nothing in it declares; or Go's refusal.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"reflect"
	"strings"
)

type verdict struct {
	Tree    string   `json:"tree"`
	Names   []string `json:"names"`
	Refusal string   `json:"refusal"`
}

func main() {
	texts, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	output := json.NewEncoder(os.Stdout)
	for _, text := range strings.Split(strings.TrimSuffix(string(texts), "\x00"), "\x00") {
		output.Encode(judge(text))
	}
}

func judge(text string) (said verdict) {
	source := "package p\n\nfunc main() {\n\tshow(" + text + ")\n}\n"
	file, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
	if err != nil {
		return verdict{Refusal: err.Error()}
	}
	if len(file.Decls) != 1 || len(file.Imports) != 0 || len(file.Comments) != 0 {
		return verdict{Refusal: fmt.Sprint("it escapes: declarations ", len(file.Decls))}
	}
	body := file.Decls[0].(*ast.FuncDecl).Body.List
	if len(body) != 1 {
		return verdict{Refusal: fmt.Sprint("it escapes: statements ", len(body))}
	}
	call, ok := body[0].(*ast.ExprStmt).X.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return verdict{Refusal: fmt.Sprintf("it escapes: %T", body[0])}
	}
	var tree bytes.Buffer
	ast.Fprint(&tree, nil, call.Args[0], func(name string, value reflect.Value) bool {
		return name != "Obj" && value.Type() != reflect.TypeOf(token.NoPos) && ast.NotNilFilter(name, value)
	})
	said.Tree = tree.String()
	for _, name := range file.Unresolved {
		if name.Name != "show" {
			said.Names = append(said.Names, name.Name)
		}
	}
	return said
}
