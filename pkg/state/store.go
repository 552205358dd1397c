package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// serversFile is the name of the file in the state folder that says where the
// servers are.
const serversFile = "servers.json"

// LoadServersFile returns the servers recorded in the state folder dir, or
// [ErrNoServers]. Unlike [LoadServers] it does not look at the environment.
func LoadServersFile(dir string) (Servers, error) {
	path := filepath.Join(dir, serversFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Servers{}, ErrNoServers
	}
	if err != nil {
		return Servers{}, fmt.Errorf("state: %w", err)
	}
	var s Servers
	if err := json.Unmarshal(b, &s); err != nil {
		return Servers{}, fmt.Errorf("state: %s is damaged (%w): run `crashcourse down`, then `crashcourse up`", path, err)
	}
	return s, nil
}

// SaveServers records the servers in the state folder dir. Only the file's
// owner may read it, for the addresses carry credentials.
func SaveServers(dir string, s Servers) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return WriteFile(filepath.Join(dir, serversFile), append(b, '\n'), 0o600)
}

// RemoveServers forgets the recorded servers of the state folder dir. It is no
// error when there are none.
func RemoveServers(dir string) error {
	if err := os.Remove(filepath.Join(dir, serversFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// WriteFile replaces the file at path in one step: a reader, or a crash, sees
// the old content or the new, never a part of it.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("state: write %s: %w", path, err)
	}
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("state: write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
