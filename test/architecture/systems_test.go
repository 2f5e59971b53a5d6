package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestOtherSystemsCompile checks the types of casemate and all it is made of as macOS's
// compiler would see them. Bodies of others' functions are left out: what they declare is
// what we could be wrong about.
func TestOtherSystemsCompile(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes some ten seconds of a processor")
	}
	dir := root(t)
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesSizes | packages.NeedModule,
		Dir:  dir,
		Env:  append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0"),
		ParseFile: func(set *token.FileSet, name string, source []byte) (*ast.File, error) {
			f, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
			if f != nil && !strings.HasPrefix(name, dir) {
				for _, d := range f.Decls {
					if fn, ok := d.(*ast.FuncDecl); ok {
						fn.Body = nil
					}
				}
			}
			return f, err
		},
	}, "./cmd/casemate")
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	packages.Visit(loaded, nil, func(p *packages.Package) {
		if p.Module == nil || !p.Module.Main {
			return
		}
		ours++
		for _, e := range p.Errors {
			t.Errorf("for macOS: %v", e)
		}
	})
	if ours < 20 {
		t.Fatalf("it looked at %d of our packages", ours)
	}
}
