package notebooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crashcourse/cmd/crashcourse/internal/jupyter"
	"crashcourse/cmd/crashcourse/internal/steps"
	"crashcourse/pkg/broker"
	"crashcourse/pkg/exercise"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
)

const (
	hangs      = 10 * time.Minute // a notebook that takes so long hangs; two minutes are its goal on a quiet machine
	mostOutput = 300 << 10        // bytes of a cell's output
)

// lab is a set-up of Jupyter and the kernel for tests.
type lab struct {
	opt jupyter.Options
	tmp string
}

// prepare sets Jupyter up as `crashcourse lab` does, then makes a state folder
// for the tests that borrows it.
func prepare(t *testing.T) *lab {
	t.Helper()
	servers, err := state.LoadServers()
	if err != nil {
		t.Fatalf("This test needs the real servers: %v", err)
	}
	dir, err := state.Dir()
	if err != nil {
		t.Fatal(err)
	}
	log := steps.New(os.Stderr)
	if err := jupyter.Prepare(t.Context(), jupyter.Options{Root: root(t), State: dir, Log: log}); err != nil {
		t.Fatal(err)
	}
	l := &lab{tmp: t.TempDir()}
	// The judge runs answers as another user, who has to get to them.
	if err := os.Chmod(filepath.Dir(l.tmp), 0o711); err != nil {
		t.Fatal(err)
	}
	l.opt = jupyter.Options{Root: root(t), State: filepath.Join(l.tmp, "state"), Log: log}
	if err := os.Mkdir(l.opt.State, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"venv", "bin", "stamps", "judges", "arenas"} {
		from := filepath.Join(dir, name)
		if err := os.MkdirAll(from, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, filepath.Join(l.opt.State, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := state.SaveServers(l.opt.State, servers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.remove(t, servers) })
	if err := jupyter.Prepare(t.Context(), l.opt); err != nil {
		t.Fatal(err)
	}
	return l
}

// remove removes what the notebooks have made on the servers.
func (l *lab) remove(t *testing.T, servers state.Servers) {
	ctx := context.Background()
	db, err := postgres.Open(ctx, servers.Postgres)
	if err != nil {
		t.Error(err)
		return
	}
	defer db.Close()
	mq, err := broker.NewAdmin(servers.Management)
	if err != nil {
		t.Error(err)
		return
	}
	for _, c := range l.cards(t) {
		u, err := url.Parse(c["database_url"])
		if err != nil {
			t.Error(err)
			continue
		}
		name := u.User.Username() // of all four
		if err := errors.Join(postgres.DropDatabase(ctx, db, name), postgres.DropRole(ctx, db, name),
			mq.DeleteVhost(ctx, name), mq.DeleteUser(ctx, name)); err != nil {
			t.Error(err)
		}
	}
}

// cards are the addresses that the notebooks have made.
func (l *lab) cards(t *testing.T) []map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(l.opt.State, "lab", "[0-9]*.json"))
	if err != nil {
		t.Error(err)
	}
	var out []map[string]string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
			continue
		}
		var c map[string]string
		if err := json.Unmarshal(b, &c); err != nil {
			t.Error(err)
			continue
		}
		out = append(out, c)
	}
	return out
}

// ran is what came of a code cell.
type ran struct {
	ID      string   `json:"id"`
	Seconds float64  `json:"seconds"`
	Outputs []output `json:"outputs"`
}

type output struct {
	Type  string         `json:"output_type"` // stream, display_data, error
	Name  string         `json:"name"`        // of a stream
	Text  string         `json:"text"`
	Data  map[string]any `json:"data"`
	Value string         `json:"evalue"`
}

func (r ran) failed() bool {
	for _, o := range r.Outputs {
		if o.Type == "error" {
			return true
		}
	}
	return false
}

// text is all that the cell said, as text.
func (r ran) text() string {
	var b strings.Builder
	for _, o := range r.Outputs {
		fmt.Fprintln(&b, o.Text+o.Value)
		if s, ok := o.Data["text/plain"].(string); ok {
			fmt.Fprintln(&b, s)
		}
	}
	return b.String()
}

// run executes a notebook in a new kernel, rounds times over.
func (l *lab) run(t *testing.T, nb *notebook, rounds int, answers map[string]string) [][]ran {
	t.Helper()
	path := filepath.Join(l.tmp, "run.ipynb")
	if err := os.WriteFile(path, nb.answered(t, answers), 0o644); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(filepath.Join("testdata", "run.py"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(l.tmp, "out.json")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.opt.Python(), script, path, fmt.Sprint(rounds), out)
	cmd.Env = append(jupyter.Environ(l.opt, os.Environ()), "NOTEBOOK_FOLDER="+filepath.Dir(nb.path))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it takes its kernel along
	cmd.WaitDelay = 20 * time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run the notebook: %v\n%s", err, said)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var result [][]ran
	if err := json.Unmarshal(b, &result); err != nil {
		t.Fatal(err)
	}
	return result
}

// answered is the notebook's file with some cells replaced.
func (nb *notebook) answered(t *testing.T, answers map[string]string) []byte {
	t.Helper()
	b, err := os.ReadFile(nb.path)
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(b, &whole); err != nil {
		t.Fatal(err)
	}
	for _, c := range whole["cells"].([]any) {
		c := c.(map[string]any)
		if a, ok := answers[c["id"].(string)]; ok {
			c["source"] = a
		}
	}
	if b, err = json.Marshal(whole); err != nil {
		t.Fatal(err)
	}
	return b
}

// practice answers the cells that fail at first and are not graded.
var practice = map[string]string{
	"practice": `%test
func Survivors(outcomes []string) (n int) {
	for _, o := range outcomes {
		if o == "ok" {
			n++
		}
	}
	return n
}

func TestSurvivors(t *testing.T) {
	if n := Survivors([]string{"ok", "violated", "ok"}); n != 2 {
		t.Errorf("Survivors returns %d for two survivals", n)
	}
}
`,
}

// answers are right answers to all cells of the notebook that fail at first:
// the references, put into the cell's form.
func answers(t *testing.T, nb *notebook) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range nb.Cells {
		id := c.exercise()
		if id == "" {
			if a, ok := practice[c.ID]; ok {
				out[c.ID] = a
			}
			continue
		}
		pattern, name, _ := strings.Cut(id, "/")
		out[c.ID] = answer(t, id, filepath.Join("solutions", pattern, "reference", name, name+".go"))
	}
	return out
}

// answer makes a graded cell for exercise id of an answer in a Go file.
func answer(t *testing.T, id, file string) string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root(t), file))
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(src), "\npackage "+strings.TrimSuffix(filepath.Base(file), ".go")+"\n")
	if !ok {
		t.Fatalf("%s has another package clause than expected", file)
	}
	pattern, _, _ := strings.Cut(id, "/")
	fn := exercise.FuncName(id)
	return "%test\n" + strings.TrimSpace(body) + "\n\nfunc Test" + fn + "(t *testing.T) { " + pattern + ".Check" + fn + "(t, " + fn + ") }\n"
}

func TestStarters(t *testing.T) {
	l := prepare(t)
	for _, nb := range all(t) {
		t.Run(filepath.Base(nb.path), func(t *testing.T) {
			cells := byID(nb)
			for _, r := range l.run(t, nb, 1, nil)[0] {
				c := cells[r.ID]
				if !c.mayFail() {
					clean(t, r)
				} else if !r.failed() {
					t.Errorf("cell %s passes before it is filled in:\n%s", r.ID, r.text())
				}
				if c.exercise() != "" && !strings.Contains(strings.ToLower(r.text()), "not implemented") {
					t.Errorf("cell %s does not say that it is not implemented:\n%s", r.ID, r.text())
				}
			}
			l.keepsSecrets(t)
		})
	}
}

func TestAnswers(t *testing.T) {
	l := prepare(t)
	for _, nb := range all(t) {
		t.Run(filepath.Base(nb.path), func(t *testing.T) {
			cells := byID(nb)
			for round, cellsRan := range l.run(t, nb, 2, answers(t, nb)) {
				var total float64
				for _, r := range cellsRan {
					clean(t, r)
					total += r.Seconds
					if id := cells[r.ID].exercise(); id != "" && !strings.Contains(r.text(), id+": PASS") {
						t.Errorf("round %d: %s does not pass:\n%s", round+1, id, r.text())
					}
				}
				took := time.Duration(total * float64(time.Second))
				t.Logf("round %d took %v", round+1, took.Round(100*time.Millisecond))
				if took > hangs {
					t.Errorf("round %d took %v, more than %v: %s", round+1, took.Round(time.Second), hangs, slowest(cellsRan))
				}
			}
			l.keepsSecrets(t)
		})
	}
}

func byID(nb *notebook) map[string]*cell {
	out := map[string]*cell{}
	for _, c := range nb.Cells {
		out[c.ID] = c
	}
	return out
}

// trouble is what no cell says that does its work.
var trouble = regexp.MustCompile(`exit status|panic:|goroutine \d+ \[|never struck|did not stop|undefined:|could not be`)

func clean(t *testing.T, r ran) {
	t.Helper()
	if said := trouble.FindString(r.text()); r.failed() || said != "" {
		t.Errorf("cell %s fails, or says %q:\n%s", r.ID, said, r.text())
	}
	for _, o := range r.Outputs {
		if o.Type == "stream" && o.Name == "stderr" {
			t.Errorf("cell %s writes to standard error:\n%s", r.ID, o.Text)
		}
	}
	if b, err := json.Marshal(r.Outputs); err != nil || len(b) > mostOutput {
		t.Errorf("cell %s has %d bytes of output, more than %d (%v)", r.ID, len(b), mostOutput, err)
	}
}

// keepsSecrets looks for passwords in what the last run has left.
func (l *lab) keepsSecrets(t *testing.T) {
	t.Helper()
	out, err := os.ReadFile(filepath.Join(l.tmp, "out.json"))
	if err != nil {
		t.Fatal(err)
	}
	servers, err := state.LoadServersFile(l.opt.State)
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{servers.Postgres, servers.AMQP, servers.Management}
	for _, c := range l.cards(t) {
		for _, address := range c {
			addresses = append(addresses, address)
		}
	}
	for _, a := range addresses {
		if strings.Contains(string(out), a) {
			t.Error("a server's address is in the output, with its password")
		}
		u, err := url.Parse(a)
		if err != nil || u.User == nil {
			continue
		}
		// guest is a word; the others are random.
		if p, ok := u.User.Password(); ok && p != "guest" && strings.Contains(string(out), p) {
			t.Error("a password is in the output")
		}
	}
}

// slowest names the cells that took longest.
func slowest(cells []ran) string {
	var b strings.Builder
	for _, c := range cells {
		if c.Seconds > 3 {
			fmt.Fprintf(&b, "%s %.1f s, ", c.ID, c.Seconds)
		}
	}
	return strings.TrimSuffix(b.String(), ", ")
}
