package exercise

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"strings"
)

// FuncName returns the name of the function that answers an exercise: Relay for
// outbox/relay.
func FuncName(id string) string {
	_, name, _ := strings.Cut(id, "/")
	if name == "" {
		return ""
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// SourceHash identifies an answer by its source: the exercise's function and
// whatever else of the file it uses, directly or not. Comments, layout and
// declarations that have nothing to do with the answer do not count, so that a
// notebook cell, the file that the kernel made of it, and an answer file with
// the same code have the same hash. It fails if src is not Go, or does not
// declare the function.
func SourceHash(src []byte, id string) (string, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "answer.go", src, parser.SkipObjectResolution)
	if err != nil {
		return "", fmt.Errorf("exercise: read the answer: %w", err)
	}
	decls := map[string][]ast.Node{}
	add := func(name string, n ast.Node) { decls[name] = append(decls[name], n) }
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil && len(d.Recv.List) > 0 {
				name = receiver(d.Recv.List[0].Type) // a method goes with its type
			}
			add(name, d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(s.Name.Name, s)
				case *ast.ValueSpec:
					for _, n := range s.Names {
						add(n.Name, s)
					}
				}
			}
		}
	}
	root := FuncName(id)
	if decls[root] == nil {
		return "", fmt.Errorf("exercise: the answer does not declare func %s", root)
	}
	h := sha256.New()
	seen := map[string]bool{root: true}
	for todo := []string{root}; len(todo) > 0; todo = todo[1:] {
		for _, n := range decls[todo[0]] {
			var b bytes.Buffer
			if d, ok := n.(*ast.FuncDecl); ok {
				d.Doc = nil
			}
			if err := printer.Fprint(&b, files, n); err != nil {
				return "", fmt.Errorf("exercise: print the answer: %w", err)
			}
			h.Write(bytes.Join(bytes.Fields(b.Bytes()), []byte(" ")))
			h.Write([]byte{0})
			ast.Inspect(n, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok && decls[id.Name] != nil && !seen[id.Name] {
					seen[id.Name] = true
					todo = append(todo, id.Name)
				}
				return true
			})
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
