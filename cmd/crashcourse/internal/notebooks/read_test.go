package notebooks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashcourse/pkg/state"
)

// notebook is what the tests read of an .ipynb file.
type notebook struct {
	path     string
	Cells    []*cell  `json:"cells"`
	Format   int      `json:"nbformat"`
	Minor    int      `json:"nbformat_minor"`
	Metadata metadata `json:"metadata"`
}

type metadata struct {
	Kernel struct {
		Name string `json:"name"`
	} `json:"kernelspec"`
}

type cell struct {
	ID       string   `json:"id"`
	Type     string   `json:"cell_type"`
	Lines    []string `json:"source"`
	Outputs  []any    `json:"outputs"`
	Count    *int     `json:"execution_count"`
	Metadata struct {
		Grader map[string]any `json:"nbgrader"`
		Tags   []string       `json:"tags"`
	} `json:"metadata"`
}

func (c *cell) source() string { return strings.Join(c.Lines, "") }

// exercise is the id of the exercise that the cell is graded for, or "".
func (c *cell) exercise() string {
	id, _ := c.Metadata.Grader["grade_id"].(string)
	return strings.Replace(id, "-", "/", 1)
}

// mayFail says whether the cell is one that fails until the learner has filled
// it in.
func (c *cell) mayFail() bool {
	for _, t := range c.Metadata.Tags {
		if t == "raises-exception" {
			return true
		}
	}
	return false
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := state.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// all reads every notebook of the course.
func all(t *testing.T) []*notebook {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root(t), "notebooks", "*.ipynb"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no notebooks: %v", err)
	}
	var out []*notebook
	for _, p := range paths {
		out = append(out, read(t, p))
	}
	return out
}

func read(t *testing.T, path string) *notebook {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	nb := &notebook{path: path}
	if err := json.Unmarshal(b, nb); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return nb
}
