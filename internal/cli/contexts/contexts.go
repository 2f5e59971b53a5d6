// Package contexts keeps the client's configuration: the nodes a user talks to,
// with the authority and the key of each, and which one is meant by default.
//
// Only package cli and its neighbours import it. The file holds keys, so it is
// never readable by anybody else: it is written whole and atomically with mode
// 0600, and a file that others can read is refused. Changes from several
// processes are put in order by a lock file beside it.
package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// Form is the version of the file's format.
const Form = 1

// Modes of the file and of the folder made for it.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// Context is one node as a client knows it.
type Context struct {
	Name       string `json:"name"`
	ControlURL string `json:"controlUrl"`
	GatewayURL string `json:"gatewayUrl,omitempty"`
	CA         string `json:"ca,omitempty"`      // PEM of the node's own authority
	Key        string `json:"key,omitempty"`     // secret
	DataDir    string `json:"dataDir,omitempty"` // of a node that runs on this machine
}

// String leaves the key out, so that a printed context shows no secret.
func (c Context) String() string { return c.Name + " (" + c.ControlURL + ")" }

// GoString leaves the key out too.
func (c Context) GoString() string { return c.String() }

// File is the whole configuration.
type File struct {
	Form     int       `json:"form"`
	Current  string    `json:"current,omitempty"`
	Contexts []Context `json:"contexts"`
}

// ErrUnknown means that no context has the name.
var ErrUnknown = errors.New("no such context")

// PermissionError means that somebody else could read or replace the file.
type PermissionError struct {
	Path string
	Mode fs.FileMode
	Fix  string // the command that mends it
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("reading %s: others may get at it (mode %04o), and it holds keys", e.Path, e.Mode.Perm())
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// ValidName reports whether s can name a context.
func ValidName(s string) bool { return nameForm.MatchString(s) }

// Path says where the configuration lies: $CASEMATE_CONFIG, or
// casemate/config.json under $XDG_CONFIG_HOME or ~/.config.
func Path(getenv func(string) string) (string, error) {
	if p := getenv("CASEMATE_CONFIG"); p != "" {
		return filepath.Abs(p)
	}
	if d := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(d) { // the XDG specification: a relative path is to be ignored
		return filepath.Join(d, "casemate", "config.json"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "casemate", "config.json"), nil
	}
	return "", errors.New("finding the configuration: neither CASEMATE_CONFIG, XDG_CONFIG_HOME nor HOME is set; set CASEMATE_CONFIG to a file")
}

// Load reads the file. One that does not exist is empty.
func Load(path string) (*File, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{Form: Form}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %v", err)
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %v", err)
	}
	f := new(File)
	if err := json.Unmarshal(b, f); err != nil {
		// The cause may quote what stands there, which may be a key.
		return nil, fmt.Errorf("reading %s: it is not the JSON this command writes; mend it, or move it away and start over", path)
	}
	if f.Form > Form {
		return nil, fmt.Errorf("reading %s: a newer casemate wrote it (form %d, this one knows %d); upgrade this one", path, f.Form, Form)
	}
	return f, nil
}

// private refuses a file that others can read, or replace through its folder.
func private(path string, info fs.FileInfo) error {
	if runtime.GOOS == "windows" { // has no such modes
		return nil
	}
	if info.Mode().Perm()&0o077 != 0 {
		return &PermissionError{path, info.Mode(), "chmod 600 " + quote(path)}
	}
	dir := filepath.Dir(path)
	d, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("reading configuration: %v", err)
	}
	if d.Mode().Perm()&0o022 != 0 && d.Mode()&fs.ModeSticky == 0 {
		return &PermissionError{dir, d.Mode(), "chmod go-w " + quote(dir)}
	}
	return nil
}

func quote(s string) string {
	if strings.ContainsAny(s, " '\"$\\") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// Get returns the context of that name; "" means the current one.
func (f *File) Get(name string) (Context, error) {
	if name == "" {
		name = f.Current
	}
	for _, c := range f.Contexts {
		if c.Name == name {
			return c, nil
		}
	}
	return Context{}, fmt.Errorf("%w: %q", ErrUnknown, name)
}

// Put adds c, or replaces the context of that name. The first one becomes the
// current one.
func (f *File) Put(c Context) error {
	if !ValidName(c.Name) {
		return fmt.Errorf("naming context %.70q: want up to 63 lower-case letters, digits, dots, dashes and underscores", c.Name)
	}
	i := slices.IndexFunc(f.Contexts, func(o Context) bool { return o.Name == c.Name })
	if i < 0 {
		f.Contexts = append(f.Contexts, c)
		slices.SortFunc(f.Contexts, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	} else {
		f.Contexts[i] = c
	}
	if f.Current == "" {
		f.Current = c.Name
	}
	return nil
}

// Use makes a context the current one.
func (f *File) Use(name string) error {
	if _, err := f.Get(name); err != nil || name == "" {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	f.Current = name
	return nil
}

// Remove forgets a context.
func (f *File) Remove(name string) error {
	n := len(f.Contexts)
	f.Contexts = slices.DeleteFunc(f.Contexts, func(c Context) bool { return c.Name == name })
	if len(f.Contexts) == n {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	if f.Current == name {
		f.Current = ""
	}
	return nil
}

// Update changes the file under its lock: it is read, given to change, and
// written when change returns nil.
func Update(path string, change func(*File) error) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("making configuration folder: %v", err)
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return fmt.Errorf("locking configuration: %v", err)
	}
	defer unlock()
	f, err := Load(path)
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	f.Form = Form
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding configuration: %v", err)
	}
	return write(path, append(b, '\n'))
}

// write replaces the file by rename, so that a reader or a crash sees the old
// one or the new one, never a part.
func write(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".config-*") // mode 0600 from the start
	if err != nil {
		return fmt.Errorf("writing configuration: %v", err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()           // the first error is the one to report
			_ = os.Remove(tmp.Name()) // likewise
			err = fmt.Errorf("writing configuration: %v", err)
		}
	}()
	if _, err := tmp.Write(b); err != nil {
		return err
	}
	if err := tmp.Chmod(fileMode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
