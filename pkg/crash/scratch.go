package crash

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const scratchPrefix = "crashcourse-judge-"

// makeScratch makes a folder for the program and its processes. It has to be
// one that the users whom processes run as can reach, which the temporary folder
// of somebody's session need not be.
func makeScratch() (string, error) {
	candidates := []string{os.TempDir(), "/tmp", "/var/tmp"}
	for _, parent := range candidates {
		if os.Geteuid() == 0 && !openToAll(parent) {
			continue
		}
		dir, err := os.MkdirTemp(parent, scratchPrefix)
		if err != nil {
			return "", fmt.Errorf("crash: make a scratch folder: %w", err)
		}
		removeOld(parent)
		if err := os.Chmod(dir, 0o711); err != nil {
			return "", fmt.Errorf("crash: open the scratch folder to the program: %w", err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("crash: no place for the program: none of %q can be entered by every user; set TMPDIR to a folder that can", candidates)
}

// openToAll says whether every user can enter a folder.
func openToAll(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

// removeOld removes what judges that were killed have left behind.
func removeOld(parent string) {
	old, _ := filepath.Glob(filepath.Join(parent, scratchPrefix+"*"))
	for _, dir := range old {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(dir)
		}
	}
}

// copyProgram copies the program to where whoever runs it may read it, and
// nobody may change it.
func copyProgram(p Program, dir string) (Program, error) {
	in, err := os.Open(p.Path)
	if err != nil {
		return p, err
	}
	defer in.Close()
	p.Path = filepath.Join(dir, "answer")
	out, err := os.OpenFile(p.Path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return p, err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return p, err
	}
	return p, out.Close()
}
