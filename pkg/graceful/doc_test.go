package graceful_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestExamplesEndWell reads the programs that people copy: Run returns nil after a clean drain, and log.Fatal of that
// would end the process with status 1.
func TestExamplesEndWell(t *testing.T) {
	doc, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var body strings.Builder
	for line := range strings.Lines(doc.Doc.Text()) {
		if code, ok := strings.CutPrefix(line, "\t"); ok {
			body.WriteString(code)
		}
	}
	sources := map[string]string{"doc.go": "package p\nfunc main() {\n" + body.String() + "}\n"}
	for _, path := range []string{"example_test.go", "../../examples/http/main.go", "../../examples/raw/main.go"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sources[path] = string(text)
	}
	for path, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), path, source, 0)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		runs := 0
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if name(call) == "Run" {
				runs++
			}
			for _, arg := range call.Args {
				if inner, ok := arg.(*ast.CallExpr); ok && name(call) == "Fatal" && name(inner) == "Run" {
					t.Errorf("%s ends with status 1 after a clean drain: log.Fatal of what Run returns", path)
				}
			}
			return true
		})
		if runs == 0 {
			t.Errorf("%s does not call Run", path)
		}
	}
}

// name is that of the method or function that is called.
func name(call *ast.CallExpr) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}
