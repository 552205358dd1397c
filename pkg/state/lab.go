package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Lab says where the lab server listens, and how to be let in.
type Lab struct {
	URL   string `json:"url"`   // such as http://127.0.0.1:40123, without a slash at the end
	Token string `json:"token"` // as "Authorization: Bearer …"
	Path  string `json:"path"`  // where JupyterLab passes requests on to it, below its base URL
}

// ErrNoLab is returned by [LoadLab] when no lab server is known.
var ErrNoLab = errors.New("no lab server: start it with `crashcourse lab`")

func labServerFile(dir string) string { return filepath.Join(dir, "labserver.json") }

// LoadLab returns the lab server recorded in the state folder dir, or
// [ErrNoLab]. It does not dial: a lab that was killed leaves its address behind.
func LoadLab(dir string) (Lab, error) {
	b, err := os.ReadFile(labServerFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return Lab{}, ErrNoLab
	}
	var l Lab
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil || l.URL == "" {
		return Lab{}, fmt.Errorf("state: read where the lab server is: %w", errors.Join(err, ErrNoLab))
	}
	return l, nil
}

// SaveLab records the lab server in the state folder dir. Only the file's owner
// may read it.
func SaveLab(dir string, l Lab) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return WriteFile(labServerFile(dir), b, 0o600)
}

// RemoveLab forgets the recorded lab server. It is no error when there is none.
func RemoveLab(dir string) error {
	if err := os.Remove(labServerFile(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state: forget the lab server: %w", err)
	}
	return nil
}
