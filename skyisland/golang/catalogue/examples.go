package main

import (
	"bytes"
	"go/ast"
	"go/doc"
	"go/printer"
	"go/token"
	"strconv"
	"strings"
)

const (
	mostCode       = 2000
	mostCall       = 400
	mostOutput     = 1000
	mostStatements = 20
)

// example is one of the package's Example functions.
type example struct {
	Name      string `json:"name"`
	Doc       string `json:"doc"`
	Code      string `json:"code"`
	Output    string `json:"output"`
	Unordered bool   `json:"unordered"`
	Calls     []call `json:"calls"`
}

// call is what an example calls, ready to be sent, and what it prints of that.
type call struct {
	Call   string `json:"call"`
	Output string `json:"output"`
}

func (r *reader) examples(all []*doc.Example) []example {
	made := []example{}
	for _, one := range all {
		if len(made) == mostExamples {
			break
		}
		made = append(made, example{
			Name:      one.Suffix,
			Doc:       cut(strings.TrimSpace(one.Doc), mostOutput),
			Code:      cut(r.code(one), mostCode),
			Output:    cut(one.Output, mostOutput),
			Unordered: one.Unordered,
			Calls:     r.calls(one),
		})
	}
	return made
}

// code is an example's body without its braces, and without the comment that tells the output.
func (r *reader) code(one *doc.Example) string {
	var text bytes.Buffer
	node := &printer.CommentedNode{Node: one.Code, Comments: one.Comments}
	if (&printer.Config{Mode: printer.UseSpaces, Tabwidth: 4}).Fprint(&text, r.fset, node) != nil {
		return ""
	}
	code := text.String()
	if _, ok := one.Code.(*ast.BlockStmt); ok {
		code = strings.ReplaceAll(strings.Trim(code, "{}\n"), "\n    ", "\n")
		code = strings.TrimPrefix(code, "    ")
	}
	for _, mark := range []string{"// Output:", "// output:", "// Unordered output:"} {
		if at := strings.LastIndex(code, mark); at >= 0 {
			code = code[:at]
		}
	}
	return strings.TrimSpace(code)
}

// calls are the expressions that an example comes down to, if it is as simple as that: statements like
// `fmt.Println(pkg.F(x))`, each of which prints a line, with variables before them that are literals or are used
// once. The output of a single one may have any number of lines.
func (r *reader) calls(one *doc.Example) []call {
	block, ok := one.Code.(*ast.BlockStmt)
	if !ok || len(block.List) > mostStatements {
		return []call{}
	}
	variables := map[string]*variable{}
	var texts, labels []string
	for _, statement := range block.List {
		if printed, label := printedBy(statement); printed != nil {
			text, ok := r.inline(printed, variables, 0)
			if !ok || len(text) > mostCall {
				return []call{}
			}
			texts, labels = append(texts, text), append(labels, label)
		} else if !assign(statement, variables) {
			return []call{}
		}
	}
	for _, one := range variables {
		if !one.used {
			return []call{} // what it does may matter all the same
		}
	}
	outputs := []string{one.Output}
	if len(texts) != 1 {
		outputs = strings.SplitAfter(strings.TrimSuffix(one.Output, "\n"), "\n")
	}
	made := []call{}
	for i, text := range texts {
		if len(outputs) == len(texts) && (len(texts) == 1 || !one.Unordered) {
			if output, ok := strings.CutPrefix(outputs[i], labels[i]); ok {
				made = append(made, call{text, cut(output, mostOutput)})
			}
		}
	}
	return made
}

// assign notes the variable that a statement makes; it passes over `if err != nil { … }`. False for others.
func assign(statement ast.Stmt, variables map[string]*variable) bool {
	switch statement := statement.(type) {
	case *ast.AssignStmt:
		if statement.Tok != token.DEFINE || len(statement.Rhs) != 1 || len(statement.Lhs) > 2 {
			return false
		}
		name, ok := statement.Lhs[0].(*ast.Ident)
		if !ok || variables[name.Name] != nil {
			return false
		}
		if len(statement.Lhs) == 2 {
			second, ok := statement.Lhs[1].(*ast.Ident)
			if !ok || second.Name != "err" && second.Name != "_" {
				return false
			}
		}
		variables[name.Name] = &variable{value: statement.Rhs[0]}
		return true
	case *ast.IfStmt:
		condition, ok := statement.Cond.(*ast.BinaryExpr)
		if !ok || statement.Init != nil || statement.Else != nil || condition.Op != token.NEQ {
			return false
		}
		name, ok := condition.X.(*ast.Ident)
		return ok && name.Name == "err"
	}
	return false
}

// variable has a value, which is to stand in its place.
type variable struct {
	value ast.Expr
	used  bool
}

// printedBy is what the statement prints, if that is one value, as it is, and the texts in front of it.
func printedBy(statement ast.Stmt) (printed ast.Expr, label string) {
	expression, ok := statement.(*ast.ExprStmt)
	if !ok {
		return nil, ""
	}
	call, ok := expression.X.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 || call.Ellipsis.IsValid() {
		return nil, ""
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, ""
	}
	if qualifier, ok := selector.X.(*ast.Ident); !ok || qualifier.Name != "fmt" {
		return nil, ""
	}
	last := len(call.Args) - 1
	switch selector.Sel.Name {
	case "Print":
		if last > 0 {
			return nil, ""
		}
	case "Println":
		for _, one := range call.Args[:last] {
			text, ok := literal(one)
			if !ok {
				return nil, ""
			}
			label += text + " "
		}
	case "Printf":
		format, ok := literal(call.Args[0])
		format, verb := strings.CutSuffix(strings.TrimSuffix(format, "\n"), "%v")
		if !verb {
			format, verb = strings.CutSuffix(format, "%s")
		}
		if !ok || !verb || last != 1 || strings.Contains(format, "%") {
			return nil, ""
		}
		label = format
	default:
		return nil, ""
	}
	return call.Args[last], label
}

// literal is the text that a string literal stands for.
func literal(expression ast.Expr) (text string, ok bool) {
	one, ok := expression.(*ast.BasicLit)
	if !ok || one.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(one.Value)
	return text, err == nil
}

// inline writes an expression as the source has it, with the variables' values in their places. A value that is
// more than a literal is written once only: it must be computed once.
func (r *reader) inline(expression ast.Expr, variables map[string]*variable, depth int) (string, bool) {
	if depth > mostStatements {
		return "", false
	}
	ok := true
	fixed := map[*ast.Ident]bool{} // names of fields and methods
	text, start := r.source(expression)
	var made strings.Builder
	ast.Inspect(expression, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncLit: // has variables of its own
			ok = ok && len(variables) == 0
		case *ast.SelectorExpr:
			fixed[node.Sel] = true
		case *ast.KeyValueExpr:
			if key, is := node.Key.(*ast.Ident); is {
				ok = ok && variables[key.Name] == nil // a field, or a variable: the type decides
			}
		case *ast.Ident:
			one := variables[node.Name]
			if one == nil || fixed[node] || !ok {
				break
			}
			_, isLiteral := one.value.(*ast.BasicLit)
			var value string
			if ok = !one.used || isLiteral; !ok {
				break
			}
			one.used = true
			if value, ok = r.inline(one.value, variables, depth+1); !ok {
				break
			}
			switch one.value.(type) {
			case *ast.BinaryExpr, *ast.UnaryExpr, *ast.StarExpr:
				value = "(" + value + ")"
			}
			at := r.fset.Position(node.Pos()).Offset - start
			made.WriteString(text[:at] + value)
			text, start = text[at+len(node.Name):], start+at+len(node.Name)
			ok = made.Len() <= mostCode
		}
		return ok
	})
	return made.String() + text, ok
}

// source is a node as its file has it, and where in the file it begins.
func (r *reader) source(node ast.Node) (text string, start int) {
	from, to := r.fset.Position(node.Pos()), r.fset.Position(node.End())
	return string(r.files[from.Filename][from.Offset:to.Offset]), from.Offset
}
