package notebooks

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A notebook is committed as a learner is to find it: without outputs, for the
// course's kernel, with cells that keep their ids.
func TestForm(t *testing.T) {
	for _, nb := range all(t) {
		t.Run(filepath.Base(nb.path), func(t *testing.T) {
			if nb.Format != 4 || nb.Minor != 5 || nb.Metadata.Kernel.Name != "crashcourse-go" {
				t.Errorf("format %d.%d for kernel %q, want 4.5 for crashcourse-go", nb.Format, nb.Minor, nb.Metadata.Kernel.Name)
			}
			ids := map[string]bool{}
			for _, c := range nb.Cells {
				if c.ID == "" || ids[c.ID] {
					t.Errorf("the id %q is empty or used twice", c.ID)
				}
				ids[c.ID] = true
				if len(c.Outputs) > 0 || c.Count != nil {
					t.Errorf("cell %s has been committed with its output", c.ID)
				}
				if n := lines(c); c.Type == "code" && c.exercise() == "" && n > 26 {
					t.Errorf("cell %s has %d lines of code; shorten or divide it", c.ID, n)
				}
				checkGrader(t, c)
			}
		})
	}
}

func lines(c *cell) int {
	n := 0
	for _, l := range c.Lines {
		if s := strings.TrimSpace(l); s != "" && !strings.HasPrefix(s, "//") {
			n++
		}
	}
	return n
}

// checkGrader compares a graded cell's metadata with nbgrader's schema 3, and
// its contract with the exercise's.
func checkGrader(t *testing.T, c *cell) {
	t.Helper()
	g := c.Metadata.Grader
	if g == nil {
		return
	}
	var keys []string
	for k := range g {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if got, want := strings.Join(keys, " "), "cell_type grade grade_id locked points schema_version solution"; got != want {
		t.Errorf("cell %s: nbgrader's metadata has the keys %s, want %s", c.ID, got, want)
	}
	if g["schema_version"] != 3.0 || g["grade"] != true || g["solution"] != true || g["locked"] != false || g["cell_type"] != "code" {
		t.Errorf("cell %s: nbgrader's metadata is %v", c.ID, g)
	}
	if !c.mayFail() {
		t.Errorf("cell %s stops Run All until it is filled in: tag it raises-exception", c.ID)
	}
	want := starter(t, c.exercise())
	if got := strings.TrimSpace(strings.TrimPrefix(c.source(), "%test\n")); got != want {
		t.Errorf("cell %s is not the starter of %s. It is\n%s\nwant\n%s", c.ID, c.exercise(), got, want)
	}
}

// unnamed is a parameter's type of the exercise's own package.
var unnamed = regexp.MustCompile(`(?m)^(func .*, \w+ )([A-Z]\w*\))`)

// starter is how a graded cell looks: the exercise's contract and starter answer
// in the words of its package, and the test.
func starter(t *testing.T, id string) string {
	t.Helper()
	pattern, name, _ := strings.Cut(id, "/")
	fn := strings.ToUpper(name[:1]) + name[1:]
	paths, err := filepath.Glob(filepath.Join(root(t), "exercises", pattern, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || d.Name.Name != fn || d.Doc == nil {
				continue
			}
			text := string(src[files.Position(d.Doc.Pos()).Offset:files.Position(d.End()).Offset])
			_, text, ok = strings.Cut(text, "is the starter answer of "+id+".\n//\n")
			if !ok {
				t.Fatalf("%s: %s does not begin by saying that it is the starter answer", path, fn)
			}
			// In the cell the package has a name.
			text = unnamed.ReplaceAllString(text, "${1}"+pattern+".${2}")
			return text + "\n\nfunc Test" + fn + "(t *testing.T) { " + pattern + ".Check" + fn + "(t, " + fn + ") }"
		}
	}
	t.Fatalf("exercises/%s has no %s", pattern, fn)
	return ""
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^(#+) (.*)$`)
	image   = regexp.MustCompile(`!\[\s*\]`)
)

// Links lead somewhere, headings follow each other in order, and pictures have
// words.
func TestReading(t *testing.T) {
	for _, nb := range all(t) {
		t.Run(filepath.Base(nb.path), func(t *testing.T) {
			anchors := map[string]bool{}
			depth := 0
			var text strings.Builder
			for _, c := range nb.Cells {
				if c.Type != "markdown" {
					continue
				}
				text.WriteString(c.source() + "\n")
				for _, m := range heading.FindAllStringSubmatch(c.source(), -1) {
					if len(m[1]) > depth+1 {
						t.Errorf("heading %q skips a level", m[2])
					}
					depth = len(m[1])
					anchors["#"+strings.ReplaceAll(m[2], " ", "-")] = true
				}
				if image.MatchString(c.source()) {
					t.Errorf("cell %s has a picture without words", c.ID)
				}
			}
			for _, m := range link.FindAllStringSubmatch(text.String(), -1) {
				to, err := url.Parse(m[1])
				switch {
				case err != nil:
					t.Errorf("link %q: %v", m[1], err)
				case strings.HasPrefix(m[1], "#"):
					if !anchors[m[1]] {
						t.Errorf("no heading is named %s", m[1])
					}
				case to.Scheme == "":
					if _, err := os.Stat(filepath.Join(filepath.Dir(nb.path), to.Path)); err != nil {
						t.Errorf("link %q leads nowhere", m[1])
					}
				case to.Scheme != "https":
					t.Errorf("link %q is not https", m[1])
				}
			}
		})
	}
}
