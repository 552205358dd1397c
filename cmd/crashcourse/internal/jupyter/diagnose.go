package jupyter

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
)

// Finding is the state of one part of the set-up.
type Finding struct {
	Name    string
	Found   string // what there is
	Problem error  // what is wrong; nil: nothing
	Fix     string // what to do about it
}

// Diagnose looks at Go, Python, JupyterLab and the kernel without changing
// anything.
func Diagnose(ctx context.Context, opt Options) []Finding {
	return []Finding{diagnoseGo(ctx, opt), diagnosePython(ctx, opt), diagnoseLab(ctx, opt), diagnoseKernel(ctx, opt)}
}

func diagnoseGo(ctx context.Context, opt Options) Finding {
	f := Finding{Name: "Go"}
	goroot, version, err := findGo(ctx, opt)
	if err != nil {
		f.Problem, f.Fix = err, "install Go 1.26 or newer and put its bin folder on the PATH"
		return f
	}
	f.Found = fmt.Sprintf("%s in %s", version, goroot)
	return f
}

func diagnosePython(ctx context.Context, opt Options) Finding {
	f := Finding{Name: "Python"}
	if out, err := run(ctx, opt.State, nil, nil, opt.Python(), "--version"); err == nil {
		f.Found = strings.TrimSpace(out) + " in " + opt.path("venv")
		return f
	}
	if uv, err := exec.LookPath("uv"); err == nil {
		f.Found = "not set up yet; uv is at " + uv
		return f
	}
	python, err := lookPython(ctx, os.Environ())
	if _, noApt := exec.LookPath("apt-get"); (errors.Is(err, errNoPython) || errors.Is(err, errNoVenv)) && noApt == nil && os.Geteuid() == 0 {
		f.Found = "not installed; `crashcourse lab` will install it"
		return f
	}
	if err != nil {
		f.Problem, f.Fix = err, "Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python"
		return f
	}
	f.Found = "not set up yet; there is " + python
	return f
}

func diagnoseLab(ctx context.Context, opt Options) Finding {
	f := Finding{Name: "JupyterLab", Found: "not set up yet: `crashcourse lab` does"}
	if _, err := os.Stat(opt.Python()); err != nil {
		return f
	}
	out, err := run(ctx, opt.State, nil, nil, opt.Python(), "-c",
		"from importlib.metadata import version as v; print(v('jupyterlab'), v('jupyter-server-proxy'), v('nbclient'))")
	if err != nil {
		f.Found = ""
		f.Problem, f.Fix = errors.New("the Python environment is damaged"), "remove "+opt.path("stamps", "python")+" and run `crashcourse lab`"
		return f
	}
	v := strings.Fields(out)
	if len(v) == 3 {
		f.Found = fmt.Sprintf("%s, jupyter-server-proxy %s, nbclient %s", v[0], v[1], v[2])
	}
	if !opt.fresh("python", fingerprint("1", requirements)) {
		f.Found += "; the locked list has changed, `crashcourse lab` will follow it"
	}
	return f
}

func diagnoseKernel(ctx context.Context, opt Options) Finding {
	f := Finding{Name: "kernel"}
	const fix = "run `crashcourse lab`, or `crashcourse lab --prepare`"
	bin := opt.path("bin")
	b, err := os.ReadFile(filepath.Join(opt.kernelDir(), "kernel.json"))
	if errors.Is(err, os.ErrNotExist) {
		f.Found = "not set up yet: `crashcourse lab` does"
		return f
	}
	var have spec
	switch {
	case err != nil:
		f.Problem, f.Fix = err, fix
	case json.Unmarshal(b, &have) != nil:
		f.Problem, f.Fix = errors.New("the kernelspec is damaged"), fix
	case !reflect.DeepEqual(have.Argv, kernelSpec(opt).Argv):
		f.Problem, f.Fix = errors.New("the kernelspec is that of another checkout or version"), fix
	case !haveTools(bin):
		f.Problem, f.Fix = fmt.Errorf("gonb, gopls or goimports is missing in %s", bin), fix
	}
	if f.Problem != nil {
		return f
	}
	if _, err := run(ctx, opt.Root, os.Environ(), nil, filepath.Join(bin, "gonb"), "-V"); err != nil {
		f.Problem, f.Fix = fmt.Errorf("gonb does not run: %w", err), "remove "+opt.path("stamps", "tools")+" and run `crashcourse lab`"
		return f
	}
	f.Found = fmt.Sprintf("%q: GoNB %s", have.DisplayName, builtVersion(filepath.Join(bin, "gonb"), tools[0].path))
	return f
}

// builtVersion returns the version of the module that a program was built from.
func builtVersion(path, module string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "of unknown version"
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return "of unknown version"
}
