package exercise

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"crashcourse/pkg/crash"
	"crashcourse/pkg/state"
)

// Judge has the judge of the request's exercise give a verdict, in a process of
// its own, and calls progress on the way. An error means that there is no
// verdict at all.
func Judge(ctx context.Context, r crash.Request, progress func(crash.Progress)) (crash.Verdict, error) {
	pattern, _, _ := strings.Cut(r.Exercise, "/")
	if progress == nil {
		progress = func(crash.Progress) {}
	}
	binary, hash, err := JudgeBinary(ctx, pattern, progress)
	if err != nil {
		return crash.Verdict{}, err
	}
	in, err := json.Marshal(r)
	if err != nil {
		return crash.Verdict{}, fmt.Errorf("exercise: encode the request: %w", err)
	}
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$")
	cmd.Dir = filepath.Dir(binary)
	cmd.Env = append(os.Environ(), crash.JudgeEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we then close its input
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return crash.Verdict{}, fmt.Errorf("exercise: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return crash.Verdict{}, fmt.Errorf("exercise: %w", err)
	}
	cmd.Cancel = stdin.Close // it stops what it runs, cleans up, and ends
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return crash.Verdict{}, fmt.Errorf("exercise: start the judge: %w", err)
	}
	if _, err := stdin.Write(append(in, '\n')); err != nil {
		err = fmt.Errorf("exercise: ask the judge: %w", err)
		return crash.Verdict{}, errors.Join(err, cmd.Wait())
	}
	var verdict *crash.Verdict
	var failure error
	lines := bufio.NewScanner(stdout)
	lines.Buffer(make([]byte, 64<<10), 64<<20)
	for lines.Scan() {
		var l crash.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			continue // the go tool's own lines
		}
		switch {
		case l.Progress != nil:
			progress(*l.Progress)
		case l.Verdict != nil:
			verdict = l.Verdict
		case l.Error != "":
			failure = errors.New(l.Error)
		}
	}
	_ = stdin.Close()
	werr := cmd.Wait()
	switch {
	case verdict != nil:
		verdict.Judge = hash
		return *verdict, nil
	case ctx.Err() != nil:
		return crash.Verdict{}, fmt.Errorf("exercise: judge %s: %w", r.Exercise, ctx.Err())
	case failure != nil:
		return crash.Verdict{}, failure
	}
	return crash.Verdict{}, fmt.Errorf("exercise: the judge of %s ended without a verdict (%w): %s", r.Exercise, werr, strings.TrimSpace(stderr.String()))
}

// JudgeBinary returns the judge of a pattern and its hash, building it if its
// sources have changed since it was last built.
func JudgeBinary(ctx context.Context, pattern string, progress func(crash.Progress)) (path, hash string, err error) {
	root, err := state.Root()
	if err != nil {
		return "", "", err
	}
	source := filepath.Join(root, "solutions", pattern)
	if info, err := os.Stat(source); err != nil || !info.IsDir() {
		return "", "", fmt.Errorf("exercise: there is no pattern %q: %s does not exist", pattern, filepath.Join("solutions", pattern))
	}
	if hash, err = judgeHash(root, source); err != nil {
		return "", "", err
	}
	dir, err := state.Dir()
	if err != nil {
		return "", "", err
	}
	dir = filepath.Join(dir, "judges")
	path = filepath.Join(dir, pattern+"-"+hash+".test")
	if _, err := os.Stat(path); err == nil {
		return path, hash, nil
	}
	if progress != nil {
		progress(crash.Progress{Doing: "building the judge, once"})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("exercise: %w", err)
	}
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(part)
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", part, "./solutions/"+pattern)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("exercise: the judge of %s does not build (%w):\n%s", pattern, err, out)
	}
	old, _ := filepath.Glob(filepath.Join(dir, pattern+"-*.test"))
	if err := os.Rename(part, path); err != nil {
		return "", "", fmt.Errorf("exercise: keep the judge: %w", err)
	}
	for _, o := range old {
		if info, err := os.Stat(o); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(o) // a running judge keeps its file
		}
	}
	return path, hash, nil
}

// judgeHash identifies a judge by all that goes into it.
func judgeHash(root, source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	add := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("exercise: read the judge's source: %w", err)
		}
		rel, _ := filepath.Rel(root, path)
		fmt.Fprintln(h, filepath.ToSlash(rel), len(b))
		h.Write(b)
		return nil
	}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(filepath.Join(root, "pkg"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" || d.Name() == "view" || d.Name() == "lab" {
				return fs.SkipDir // shown, not judged by
			}
			return nil
		}
		if ext := filepath.Ext(path); (ext == ".go" || ext == ".sql") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("exercise: %w", err)
	}
	for _, f := range append(files, filepath.Join(root, "go.sum")) {
		if err := add(f); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}
