package jupyter

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

//go:embed requirements.txt
var requirements string

// minPython is the oldest Python that the locked list is made for.
const minPython = "3.10"

// preparePython makes the Python environment of the locked list, with uv when
// it is on the PATH, or else with venv and pip. Every download is checked
// against its hash, and nothing is built from source.
func preparePython(ctx context.Context, opt Options) error {
	mark := fingerprint("1", requirements)
	if opt.fresh("python", mark) && exec.CommandContext(ctx, opt.Python(), "-c", "").Run() == nil {
		return nil
	}
	count := strings.Count("\n"+requirements, "==")
	step := opt.Log.Begin("python", "installing JupyterLab (about %d packages, 250 MB) into %s", count, opt.path("venv"))
	err := installPython(ctx, opt, step.Now)
	if err != nil {
		step.Fail()
		if offline(err) {
			return fmt.Errorf("jupyter: the first set-up needs a network, to fetch JupyterLab: connect, then try again (%s)", brief(err))
		}
		return fmt.Errorf("jupyter: install JupyterLab: %w", err)
	}
	step.Done("JupyterLab is installed")
	return opt.stamp("python", mark)
}

func installPython(ctx context.Context, opt Options, now func(string, ...any)) error {
	// A half-made environment of a killed run is of no use.
	if err := os.RemoveAll(opt.path("venv")); err != nil {
		return err
	}
	list := opt.path("requirements.txt")
	if err := os.WriteFile(list, []byte(requirements), 0o644); err != nil {
		return err
	}
	env := setEnv(os.Environ(), map[string]string{
		"PYTHONPATH": "", "PYTHONHOME": "", "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIREMENT": "",
		"VIRTUAL_ENV": "",
	})
	follow := func(line string) {
		if len(line) < 200 {
			now("%s", line)
		}
	}
	if uv, err := exec.LookPath("uv"); err == nil {
		_, err := run(ctx, opt.State, env, follow, uv, "venv", "--no-project", "--python", ">="+minPython, opt.path("venv"))
		if err == nil {
			_, err = run(ctx, opt.State, env, follow, uv, "pip", "sync", "--require-hashes", "--only-binary", ":all:", "--python", opt.Python(), list)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		opt.Log.Say("python", "uv did not manage (%v): trying pip", err)
		if err := os.RemoveAll(opt.path("venv")); err != nil {
			return err
		}
	}
	python, err := findPython(ctx, opt, env)
	if err != nil {
		return err
	}
	if _, err := run(ctx, opt.State, env, follow, python, "-m", "venv", opt.path("venv")); err != nil {
		return err
	}
	got := 0
	_, err = run(ctx, opt.State, env, func(line string) {
		switch {
		case strings.HasPrefix(line, "Collecting "):
			got++
			now("fetching package %d: %s", got, strings.Fields(line)[1])
		case strings.HasPrefix(line, "Installing "):
			now("unpacking %d packages", got)
		}
	}, opt.Python(), "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--requirement", list)
	return err
}

// findPython returns a Python that is new enough and can make environments.
func findPython(ctx context.Context, opt Options, env []string) (string, error) {
	python, err := lookPython(ctx, env)
	if err == nil || opt.Install == nil || !(errors.Is(err, errNoPython) || errors.Is(err, errNoVenv)) {
		return python, err
	}
	if err := opt.Install(ctx, "python3", "python3-venv"); err != nil {
		return "", err
	}
	return lookPython(ctx, env)
}

var (
	errNoPython = errors.New("there is no Python: install version " + minPython + " or newer (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), or uv")
	errNoVenv   = errors.New("Python comes without its venv module: install it (Debian, Ubuntu: apt install python3-venv), or install uv")
)

func lookPython(ctx context.Context, env []string) (string, error) {
	verdict := errNoPython
	for _, name := range []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := run(ctx, opt0, env, nil, path, "-c", `
import importlib.util as u, sys
print(sys.version.split()[0], sys.version_info >= (3, 10), bool(u.find_spec("venv") and u.find_spec("ensurepip")))`)
		if ctx.Err() != nil {
			return "", err
		}
		said := strings.Fields(out)
		if err != nil || len(said) != 3 {
			continue
		}
		switch {
		case said[1] != "True":
			if verdict == errNoPython {
				verdict = fmt.Errorf("Python %s (%s) is too old: install %s or newer, or uv", said[0], path, minPython)
			}
		case said[2] != "True":
			verdict = errNoVenv
		default:
			return path, nil
		}
	}
	return "", verdict
}

// opt0 is the folder for programs that need none.
const opt0 = "/"
