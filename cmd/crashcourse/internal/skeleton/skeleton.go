// Package skeleton makes the files of a new pattern: a small one that is whole,
// to be replaced piece by piece.
package skeleton

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// files are templates. In their paths PATTERN and NUMBER stand for the pattern's
// name and its notebook's number, and in their texts «.Pattern» and so on, since
// braces mean something in SQL and Go.
//
//go:embed all:files
var files embed.FS

var name = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// ErrName is wrapped by the error for a name that cannot be a Go package's.
var ErrName = errors.New("a pattern's name is a Go package name: lower-case letters and digits, such as breaker")

// Make makes the files of a new pattern below root and returns their paths. It
// writes nothing if one of them is there already.
func Make(root, pattern string) (made []string, err error) {
	if !name.MatchString(pattern) {
		return nil, fmt.Errorf("%q: %w", pattern, ErrName)
	}
	for _, dir := range []string{"pkg", "exercises", "solutions"} {
		if _, err := os.Stat(filepath.Join(root, dir, pattern)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already", filepath.Join(dir, pattern))
		}
	}
	number, err := nextNumber(root)
	if err != nil {
		return nil, err
	}
	data := struct{ Pattern, Title, Number string }{pattern, strings.ToUpper(pattern[:1]) + pattern[1:], number}
	texts := map[string][]byte{}
	err = fs.WalkDir(files, "files", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		t, err := template.New(path).Delims("«", "»").Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, data); err != nil {
			return err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(path, "files/"), ".tmpl")
		to = strings.NewReplacer("PATTERN", pattern, "NUMBER", number).Replace(to)
		if texts[to] = b.Bytes(); strings.HasSuffix(to, ".go") { // the order of imports depends on the name
			if texts[to], err = format.Source(b.Bytes()); err != nil {
				return err
			}
		}
		made = append(made, to)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fill in the templates: %w", err)
	}
	for _, path := range made {
		to := filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, texts[path], 0o644); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// nextNumber is that of the notebook after the last one, in two digits.
func nextNumber(root string) (string, error) {
	list, err := filepath.Glob(filepath.Join(root, "notebooks", "[0-9][0-9]_*.ipynb"))
	if err != nil {
		return "", err
	}
	last := 0
	for _, path := range list {
		if n, err := strconv.Atoi(filepath.Base(path)[:2]); err == nil {
			last = max(last, n)
		}
	}
	return fmt.Sprintf("%02d", last+1), nil
}
