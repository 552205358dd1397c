package jupyter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tool is a Go program that the kernel consists of.
type tool struct {
	module string // folder of the go.mod that pins it, below the repository
	path   string
}

var tools = []tool{
	{".", "github.com/janpfeifer/gonb"},
	{".", "golang.org/x/tools/cmd/goimports"},
	{"cmd/crashcourse/internal/jupyter/gopls", "golang.org/x/tools/gopls"},
}

// cellFlags are the flags that cells are compiled with: no debugging tables,
// which take a third of a warm cell's time, and no look at the repository.
const cellFlags = `"-ldflags=-s -w" -buildvcs=false`

// cellEnv is the environment that cells are compiled in. The compiler's cache
// only serves what was compiled with the same settings.
func cellEnv(base []string) []string {
	return setEnv(base, map[string]string{
		"GOPROXY": "off", // everything is there; a typo in an import fails at once
		"GOFLAGS": cellFlags, "CGO_ENABLED": "0", "GOWORK": "", "GO111MODULE": "", "GOTOOLCHAIN": "local",
	})
}

// prepareTools builds the Go tools and this command into <state>/bin.
func prepareTools(ctx context.Context, opt Options) error {
	goroot, version, err := findGo(ctx, opt)
	if err != nil {
		return err
	}
	sums := []string{"1", version}
	for _, t := range tools {
		b, err := os.ReadFile(filepath.Join(opt.Root, t.module, "go.sum"))
		if err != nil {
			return fmt.Errorf("jupyter: %w", err)
		}
		sums = append(sums, string(b))
	}
	mark := fingerprint(sums...)
	bin := opt.path("bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("jupyter: %w", err)
	}
	env := setEnv(os.Environ(), map[string]string{
		"PATH":    filepath.Join(goroot, "bin") + string(os.PathListSeparator) + os.Getenv("PATH"),
		"GOFLAGS": "-buildvcs=false", "GOWORK": "off", "CGO_ENABLED": "0",
	})
	// The kernel is started by this very command, which may be a throw-away
	// binary of `go run`.
	if self, err := os.Executable(); err != nil || filepath.Dir(self) != bin {
		if _, err := run(ctx, opt.Root, env, nil, "go", "build", "-o", filepath.Join(bin, "crashcourse"), "./cmd/crashcourse"); err != nil {
			return fmt.Errorf("jupyter: build crashcourse: %w", err)
		}
	}
	if opt.fresh("tools", mark) && haveTools(bin) {
		return nil
	}
	step := opt.Log.Begin("go", "building the Go kernel (gonb, gopls, goimports) into %s", bin)
	for i, t := range tools {
		step.Now("building %s, %d of %d", filepath.Base(t.path), i+1, len(tools))
		_, err := run(ctx, filepath.Join(opt.Root, t.module), env, func(line string) {
			if strings.HasPrefix(line, "go: downloading") {
				step.Now("%s", strings.TrimPrefix(line, "go: "))
			}
		}, "go", "build", "-ldflags=-s -w", "-o", filepath.Join(bin, filepath.Base(t.path)), t.path)
		if err == nil {
			continue
		}
		step.Fail()
		if offline(err) {
			return fmt.Errorf("jupyter: the first set-up needs a network, to fetch the Go modules of go.mod: connect, then try again (%s)", brief(err))
		}
		return fmt.Errorf("jupyter: build %s: %w", t.path, err)
	}
	// The cells will not reach the network, so whatever they may import must
	// be here by then.
	step.Now("fetching the Go modules that cells may import")
	if _, err := run(ctx, opt.Root, env, nil, "go", "mod", "download"); err != nil && ctx.Err() != nil {
		step.Fail()
		return err
	}
	step.Done("the Go kernel is built")
	return opt.stamp("tools", mark)
}

func haveTools(bin string) bool {
	for _, t := range tools {
		if _, err := os.Stat(filepath.Join(bin, filepath.Base(t.path))); err != nil {
			return false
		}
	}
	return true
}

// findGo returns the root and version of the Go that go.mod asks for.
func findGo(ctx context.Context, opt Options) (goroot, version string, err error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", "", errors.New("jupyter: there is no go command on the PATH: install Go 1.26 or newer, or add its bin folder to PATH")
	}
	env := setEnv(os.Environ(), map[string]string{"GOWORK": "off"})
	out, err := run(ctx, opt.Root, env, nil, "go", "env", "GOROOT", "GOVERSION")
	if err != nil {
		return "", "", fmt.Errorf("jupyter: Go cannot be used here: %w", err)
	}
	said := strings.Split(strings.TrimSpace(out), "\n")
	if len(said) < 2 {
		return "", "", fmt.Errorf("jupyter: `go env` says %q", out)
	}
	return said[len(said)-2], said[len(said)-1], nil
}

// Warm compiles what cells link, so that the first one does not wait for it. What does not compile is not reported: a learner's answer may
// be half written.
func Warm(ctx context.Context, opt Options) {
	goroot, _, err := findGo(ctx, opt)
	if err != nil {
		return
	}
	env := cellEnv(setEnv(os.Environ(), map[string]string{
		"PATH": filepath.Join(goroot, "bin") + string(os.PathListSeparator) + os.Getenv("PATH"),
	}))
	step := opt.Log.Begin("go", "compiling what cells link, so that the first one is quick")
	build := func(args ...string) {
		_, _ = run(ctx, opt.Root, env, nil, append([]string{"go"}, args...)...) // see above
	}
	build("build", "./pkg/...", "./exercises/...", "github.com/janpfeifer/gonb/gonbui/...")
	build("test", "-run=^$", "-vet=off", "-c", "-o", os.DevNull, "./exercises/...")
	if ctx.Err() != nil {
		step.Fail()
		return
	}
	step.Done("compiled")
}
