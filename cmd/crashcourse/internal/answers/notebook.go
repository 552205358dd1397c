package answers

import (
	"encoding/json"
	"fmt"
	"strings"

	"crashcourse/pkg/exercise"
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
	for _, c := range nb.Cells {
		if c.Type != "code" || c.Metadata.Grader.ID != want {
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
		return fromCell(strings.Join(lines, ""), id), nil
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
