// Command catalogue tells what a package offers: its functions with their parameters, documentation and examples.
//
//	catalogue BYTES GO ARGUMENT…
//
// It runs `go list` with these arguments in the working directory, which compiles the package and tells its
// files. Names, types and methods come from the compiler's export data, comments and examples from the source.
// It prints one JSON object of at most BYTES bytes. If go fails, so does it, with go's own words.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/doc"
	"go/importer"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// listed is what go tells of a package.
type listed struct {
	Dir, ImportPath, Name, Export      string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

// catalogue is what is printed; its shape is that of Catalogue in __init__.py.
type catalogue struct {
	Name       string         `json:"name"`
	ImportPath string         `json:"import_path"`
	Synopsis   string         `json:"synopsis"`
	Doc        string         `json:"doc"`
	Functions  []*entry       `json:"functions"`
	Examples   []example      `json:"examples"`
	Schemas    map[string]any `json:"schemas"`
	Omitted    int            `json:"omitted"`
}

func main() {
	most, err := strconv.Atoi(os.Args[1])
	fail(err)
	command := exec.Command(os.Args[2], os.Args[3:]...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(exit.ExitCode())
	}
	fail(err)
	var about listed
	fail(json.Unmarshal(output, &about))
	os.Stdout.Write(read(about).fit(most))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "catalogue:", err)
		os.Exit(1)
	}
}

func read(about listed) *catalogue {
	fset := token.NewFileSet()
	sources := map[string][]byte{}
	var files []*ast.File
	for _, names := range [][]string{about.GoFiles, about.TestGoFiles, about.XTestGoFiles} {
		for _, name := range names {
			path := filepath.Join(about.Dir, name)
			text, err := os.ReadFile(path)
			fail(err)
			file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
			sources[path] = text
			if err == nil && named(file, about.Name) { // a test that does not compile keeps nobody from calling
				files = append(files, file)
			}
		}
	}
	documentation, err := doc.NewFromFiles(fset, files, about.ImportPath)
	fail(err)
	lookup := func(path string) (io.ReadCloser, error) {
		if path != about.ImportPath {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(about.Export)
	}
	pkg, err := importer.ForCompiler(fset, "gc", lookup).Import(about.ImportPath)
	fail(err)
	made := &reader{fset: fset, pkg: pkg, doc: documentation, schemas: newSchemas(pkg), ways: map[way]string{}, files: sources}
	return made.read(about)
}

func named(file *ast.File, name string) bool {
	return file.Name.Name == name || file.Name.Name == name+"_test"
}

// fit writes the catalogue in at most so many bytes. First go the texts that are long, then functions.
func (c *catalogue) fit(most int) []byte {
	text := c.write()
	if len(text) <= most {
		return text
	}
	c.Doc = ""
	for _, one := range c.Functions {
		one.Doc, one.Examples = "", one.Examples[:0]
	}
	c.Examples = c.Examples[:0]
	all, omitted := c.Functions, c.Omitted
	if len(c.write()) > most { // schemas are shared, so they go as a whole
		for _, one := range c.Functions {
			one.forgetSchemas()
		}
		c.Schemas = map[string]any{}
	}
	low, high := 0, len(all) // the first `low` fit, all of `high` may not
	for low < high {
		middle := (low + high + 1) / 2
		c.Functions, c.Omitted = all[:middle], omitted+len(all)-middle
		if len(c.write()) <= most {
			low = middle
		} else {
			high = middle - 1
		}
	}
	c.Functions, c.Omitted = all[:low], omitted+len(all)-low
	return c.write()
}

func (c *catalogue) write() []byte {
	text, err := json.Marshal(c)
	fail(err)
	return text
}
