package jupyter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"crashcourse/pkg/state"
)

// spec is a kernel.json.
type spec struct {
	Argv          []string          `json:"argv"`
	DisplayName   string            `json:"display_name"`
	Language      string            `json:"language"`
	InterruptMode string            `json:"interrupt_mode"`
	Env           map[string]string `json:"env"`
	Metadata      map[string]any    `json:"metadata"`
}

// kernelDir is the folder of the kernelspec.
func (o Options) kernelDir() string { return o.path("jupyter", "data", "kernels", KernelName) }

func kernelSpec(opt Options) spec {
	return spec{
		Argv:          []string{opt.path("bin", "crashcourse"), "kernel", "{connection_file}"},
		DisplayName:   "Go (Crash Course)",
		Language:      "go",
		InterruptMode: "signal",
		Env:           map[string]string{state.RootEnv: opt.Root, state.DirEnv: opt.State},
		Metadata:      map[string]any{"debugger": false},
	}
}

// Exec turns this process into the GoNB kernel for one notebook. It returns
// only when that fails. The kernel's temporary folder carries the process id,
// so that one which a killed kernel left behind is known and swept.
func Exec(ctx context.Context, opt Options, connectionFile string) error {
	goroot, _, err := findGo(ctx, opt)
	if err != nil {
		return err
	}
	gonb := opt.path("bin", "gonb")
	if _, err := os.Stat(gonb); err != nil {
		return fmt.Errorf("jupyter: the Go kernel is not built: run `crashcourse lab` (%w)", err)
	}
	sweep(opt)
	tmp := filepath.Join(opt.kernelTemp(), strconv.Itoa(os.Getpid()))
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700)); err != nil {
		return fmt.Errorf("jupyter: %w", err)
	}
	env := cellEnv(setEnv(os.Environ(), map[string]string{
		"PATH":              strings.Join([]string{opt.path("bin"), filepath.Join(goroot, "bin"), os.Getenv("PATH")}, string(os.PathListSeparator)),
		"TMPDIR":            tmp,
		state.RootEnv:       opt.Root,
		state.DirEnv:        opt.State,
		state.PostgresEnv:   "",
		state.AMQPEnv:       "",
		state.ManagementEnv: "",
	}))
	// -raw_error: a compile error as text too, for readers without HTML. The
	// kernel's own log goes to a file: it is long, and nothing in it is news.
	argv := []string{gonb, "-kernel", connectionFile, "-go_work=" + opt.Root, "-raw_error",
		"-logtostderr=false", "-stderrthreshold=FATAL", "-log_file=" + filepath.Join(tmp, "log")}
	return fmt.Errorf("jupyter: start %s: %w", gonb, syscall.Exec(gonb, argv, env))
}

// kernelTemp is where the kernels' temporary folders are. Each holds a socket,
// and the path of a socket may have no more than some hundred bytes: below a
// long path, it is a folder in the system's place for such.
func (o Options) kernelTemp() string {
	dir := o.path("tmp")
	if len(dir)+len("/4194304/gonb_01234567/gopls_socket") < 104 {
		return dir
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("crashcourse-%d-%s", os.Getuid(), fingerprint(o.State)[:8]))
}

// sweep removes the temporary folders of kernels that are gone. What cannot
// be removed is left for the next time.
func sweep(opt Options) {
	dirs, err := os.ReadDir(opt.kernelTemp())
	if err != nil {
		return
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		_ = os.RemoveAll(filepath.Join(opt.kernelTemp(), d.Name()))
	}
}

// writeSettings writes the kernelspec and Jupyter's configuration.
func writeSettings(opt Options) error {
	for path, v := range map[string]any{
		filepath.Join(opt.kernelDir(), "kernel.json"):               kernelSpec(opt),
		opt.path("venv/share/jupyter/lab/settings/overrides.json"):  overrides,
		opt.path("jupyter", "config", "jupyter_server_config.json"): serverConfig(opt),
	} {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("jupyter: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("jupyter: %w", err)
		}
		if err := state.WriteFile(path, append(b, '\n'), 0o600); err != nil { // one holds the lab server's token
			return err
		}
	}
	return nil
}

// overrides are JupyterLab's defaults in the course: no call to anybody, and
// the time that each cell took.
var overrides = map[string]any{
	"@jupyterlab/apputils-extension:notification": map[string]any{
		"fetchNews": "false", "checkForUpdates": false,
	},
	"@jupyterlab/notebook-extension:tracker": map[string]any{"recordTiming": true},
}

func serverConfig(opt Options) map[string]any {
	url := "/lab"
	start := filepath.Join("notebooks", "00_start_here.ipynb")
	if _, err := os.Stat(filepath.Join(opt.Root, start)); err == nil {
		url = "/lab/tree/" + filepath.ToSlash(start)
	}
	config := map[string]any{
		"ServerApp": map[string]any{
			"ip": "127.0.0.1", "port_retries": 0, "open_browser": false, "allow_root": true,
			"root_dir": opt.Root, "base_url": opt.base() + "/", "default_url": opt.base() + url,
		},
		"LabApp": map[string]any{
			"extension_manager": "readonly", "news_url": nil,
			"check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
		},
		"MultiKernelManager": map[string]any{"default_kernel_name": KernelName},
	}
	if opt.LabPort != 0 {
		// JupyterLab has let the reader in; the token stays out of the notebook.
		config["ServerProxy"] = map[string]any{"servers": map[string]any{
			strings.TrimSuffix(LabPath, "/"): map[string]any{
				"port": opt.LabPort, "absolute_url": false, "launcher_entry": map[string]any{"enabled": false},
				"request_headers_override": map[string]any{"Authorization": "Bearer " + opt.LabToken},
			},
		}}
	}
	return config
}

// base is BaseURL without the slash at its end.
func (o Options) base() string { return strings.TrimSuffix(o.BaseURL, "/") }

// LabPath is where JupyterLab passes requests on to the lab server, below its
// base URL.
const LabPath = "crashcourse/"
