// Package scaffold writes the files that a new function starts from.
//
// Each runtime has a folder of templates, compiled in. Only the function's name
// is filled in, and only where a template or its path says {{name}}. Nothing that exists is
// ever overwritten.
//
// It belongs to the command line and imports nothing of the platform.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The suffix keeps a template out of the Go tool's sight: a go.mod in the tree
// would split our module, and a main.go would be compiled with it.
const suffix = ".tmpl"

//go:embed templates
var templates embed.FS

// Runtimes lists the runtimes that have templates, in the order in which to show
// them.
func Runtimes() []string {
	return []string{"go", "rust", "c", "assemblyscript", "js", "ts", "nodejs", "python", "provided", "http", "azure"}
}

var nameForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Error says why no files were written, and what to do instead.
type Error struct {
	Message string
	Remedy  string
}

// Error gives both.
func (e *Error) Error() string { return "creating a function: " + e.Message + ": " + e.Remedy }

// Write writes the files of a new function into dir, which is made when it does
// not exist, and returns their names relative to dir, in order. It fails with an
// *Error when the name, the runtime or a file that exists already forbids it;
// then nothing was written. Other errors are the file system's; what was written
// before one is taken back.
func Write(dir, name, runtime string) ([]string, error) {
	if !nameForm.MatchString(name) {
		return nil, &Error{
			Message: fmt.Sprintf("%.80q cannot name a function", name),
			Remedy:  "use 1 to 63 lower-case letters, digits and hyphens; start with a letter and do not end with a hyphen",
		}
	}
	if !slices.Contains(Runtimes(), runtime) {
		return nil, &Error{
			Message: fmt.Sprintf("%.80q is not a runtime", runtime),
			Remedy:  "use one of " + strings.Join(Runtimes(), ", "),
		}
	}
	files, err := render(name, runtime)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return nil, &Error{
				Message: filepath.Join(dir, f.name) + " exists already",
				Remedy:  "choose another folder, or move the file away",
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("looking for files in the way: %v", err)
		}
	}
	return writeAll(dir, files)
}

type file struct {
	name    string // relative, with the system's separators
	content []byte
}

func render(name, runtime string) ([]file, error) {
	root := path.Join("templates", runtime)
	fill := func(s string) string { return strings.ReplaceAll(s, "{{name}}", name) }
	var files []file
	err := fs.WalkDir(templates, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := templates.ReadFile(p)
		if err != nil {
			return err
		}
		target := strings.TrimSuffix(strings.TrimPrefix(p, root+"/"), suffix)
		if target == "gitignore" { // a dot file would not be embedded
			target = ".gitignore"
		}
		files = append(files, file{
			name:    filepath.FromSlash(fill(target)),
			content: []byte(fill(string(b))),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the templates: %v", err)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

func writeAll(dir string, files []file) (written []string, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, name := range written {
			_ = os.Remove(filepath.Join(dir, name))
		}
		written = nil
	}()
	for _, f := range files {
		target := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return written, fmt.Errorf("making the folder: %v", err)
		}
		if err := create(target, f.content); err != nil {
			return written, err
		}
		written = append(written, f.name)
	}
	return written, nil
}

// create writes a file that must not exist, nor be a link to somewhere else.
func create(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("writing %s: %v", path, err)
	}
	_, err = f.Write(content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("writing %s: %v", path, err)
	}
	return nil
}
