package servers

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"crashcourse/pkg/state"
)

// record is <state>/run.json: what was started, as against servers.json,
// which says where it answers.
type record struct {
	Kind      string   `json:"kind,omitempty"`      // docker or private; empty when nothing runs
	Why       []string `json:"why,omitempty"`       // how the choice fell
	Temporary bool     `json:"temporary,omitempty"` // goes with the last lease
	Runtime   string   `json:"runtime,omitempty"`   // where the private servers live, if not in the state folder
	Docker    string   `json:"docker,omitempty"`    // compose project
}

func loadRecord(dir string) (record, error) {
	var rec record
	return rec, loadJSON(filepath.Join(dir, "run.json"), &rec)
}

func saveRecord(dir string, rec record) error {
	return saveJSON(filepath.Join(dir, "run.json"), rec)
}

// loadJSON reads path into v. A missing file leaves v as it is; a damaged one
// is set aside, never overwritten, and then counts as missing.
func loadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	if json.Unmarshal(b, v) == nil {
		return nil
	}
	aside := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("servers: set a damaged file aside: %w", err)
	}
	return nil
}

func saveJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	return state.WriteFile(path, append(b, '\n'), 0o600)
}

// secret returns a password that needs no quoting anywhere.
func secret() string { return rand.Text() }
