package answers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/ast/astutil"
	"golang.org/x/tools/imports"

	"crashcourse/pkg/exercise"
	"crashcourse/pkg/state"
)

// FromNotebook returns the source of the graded cell of exercise id in a
// notebook: the cell whose nbgrader grade_id is the id with - for /.
func FromNotebook(notebook []byte, id string) ([]byte, error) {
	var nb struct {
		Cells []struct {
			Type     string          `json:"cell_type"`
			Source   json.RawMessage `json:"source"`
			Metadata struct {
				Grader struct {
					ID string `json:"grade_id"`
				} `json:"nbgrader"`
			} `json:"metadata"`
		} `json:"cells"`
	}
	if err := json.Unmarshal(notebook, &nb); err != nil {
		return nil, fmt.Errorf("answers: the notebook is no valid JSON: %w", err)
	}
	want := strings.ReplaceAll(id, "/", "-")
	imported := map[string]string{} // the kernel remembers imports from cell to cell
	for _, c := range nb.Cells {
		if c.Type != "code" {
			continue
		}
		var lines []string
		if err := json.Unmarshal(c.Source, &lines); err != nil {
			var whole string
			if err := json.Unmarshal(c.Source, &whole); err != nil {
				return nil, fmt.Errorf("answers: the cell %s has no readable source: %w", want, err)
			}
			lines = []string{whole}
		}
		src := fromCell(strings.Join(lines, ""), id)
		if c.Metadata.Grader.ID != want {
			remember(imported, src)
			continue
		}
		return withImports(src, imported)
	}
	return nil, fmt.Errorf("answers: the notebook has no graded cell %s", want)
}

// fromCell makes a file of a cell: without the kernel's special lines, and
// without the test that only the cell needs.
func fromCell(cell, id string) []byte {
	var b strings.Builder
	b.WriteString("package answer\n")
	for _, line := range strings.Split(cell, "\n") {
		trimmed := strings.TrimSpace(line)
		test := strings.HasPrefix(trimmed, "func Test"+exercise.FuncName(id)+"(") && strings.HasSuffix(trimmed, "}")
		if test || strings.HasPrefix(line, "%") || strings.HasPrefix(line, "!") {
			line = ""
		}
		b.WriteString(line + "\n")
	}
	return []byte(b.String())
}

// remember adds the imports of a cell to those known, by path.
func remember(imported map[string]string, src []byte) {
	f, err := parser.ParseFile(token.NewFileSet(), "cell.go", src, parser.ImportsOnly)
	if err != nil {
		return // the kernel would not have run this cell
	}
	for _, i := range f.Imports {
		name := ""
		if i.Name != nil {
			name = i.Name.Name
		}
		imported[strings.Trim(i.Path.Value, `"`)] = name
	}
}

// withImports does what the kernel does before it compiles a cell: it adds what
// earlier cells imported and what is missing beside, and removes what is unused.
// Source that does not parse is left to the compiler.
func withImports(src []byte, imported map[string]string) ([]byte, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "answer.go", src, parser.ParseComments)
	if err != nil {
		return src, nil
	}
	for path, name := range imported {
		astutil.AddNamedImport(files, f, name, path)
	}
	var b bytes.Buffer
	if err := format.Node(&b, files, f); err != nil {
		return nil, fmt.Errorf("answers: add the notebook's imports: %w", err)
	}
	root, err := state.Root()
	if err != nil {
		return nil, err
	}
	out, err := imports.Process(filepath.Join(root, virtual, "answer.go"), b.Bytes(), nil)
	if err != nil {
		return nil, fmt.Errorf("answers: find the imports of the cell: %w", err)
	}
	return out, nil
}
