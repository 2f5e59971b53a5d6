// Package folder makes events of files that appear in a folder of the node's machine.
//
// Only node imports it. Which folders there are, the operator says when he makes the
// Kind: a trigger names one of them and a path below it, and can never leave it.
// Symbolic links are not followed, neither to files nor to folders, and whatever is no
// regular file is passed over. The kernel decides that, at the open itself (openat2(2),
// RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), so that nothing can be exchanged in between.
//
// Only complete files: one that somebody closed after writing, or that was moved into the
// folder, or linked. Of a linked one and of one that lay there when the watch began, both
// of which may be being written, it is taken as a sign that it has not changed for as long
// as Settle says; a writer that pauses longer is taken for done. Who writes several times or
// wants to be sure writes elsewhere on the same file system, or under a name that the
// trigger leaves out, and renames.
//
// An event's id is made of path, inode, time and size, so a file is told of once, also
// after a restart; what was told is kept in the Store, up to some million files. A
// removal is told of if it happens while the folder is watched. Files of one watch are
// told of one after another, those of one scan in the order of their names. Lag in
// Health is the number of files of the scan under way that are left.
package folder

import (
	"fmt"
	"mime"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Types of events.
const (
	TypeCreated = "casemate.file.created"
	TypeChanged = "casemate.file.changed"
	TypeRemoved = "casemate.file.removed"
)

// Defaults and bounds.
const (
	DefaultSettle = 2 * time.Second
	MaxSettle     = 10 * time.Minute
	maxPatterns   = 32
	maxDepth      = 16   // folders below the watched one
	maxFolders    = 4096 // watched at once
	maxNames      = 200_000
)

// Root is a folder that triggers may watch.
type Root struct {
	Path       string   // absolute
	Namespaces []string // that may; "*" for all
}

// Kind is the folder source.
type Kind struct{ roots map[string]Root }

// New makes the kind, with the roots that there are by name.
func New(roots map[string]Root) (*Kind, error) {
	for name, r := range roots {
		if !function.ValidName(name) || !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path || r.Path == "/" {
			return nil, fmt.Errorf("making the folder source: root %.40q must have a plain name and an absolute, clean path", name)
		}
	}
	return &Kind{roots}, nil
}

// Settings are those of a trigger.
type Settings struct {
	Root       string   `json:"root"`
	Path       string   `json:"path,omitempty"` // below the root; it must be there
	Recursive  bool     `json:"recursive,omitempty"`
	Include    []string `json:"include,omitempty"` // patterns of names (path.Match); none means all
	Exclude    []string `json:"exclude,omitempty"` // of names; those that begin with a dot always are
	MinSize    int64    `json:"minSize,omitempty"` // bytes
	MaxSize    int64    `json:"maxSize,omitempty"` // bytes; 0 means no bound
	Types      []string `json:"types,omitempty"`   // content types by the name's ending: text/csv, image/*
	Removed    bool     `json:"removed,omitempty"` // tell of removals too
	Content    bool     `json:"content,omitempty"` // the data is the file's content, up to event.MaxData
	Archive    string   `json:"archive,omitempty"` // folder below the root that a file is moved to when it was accepted
	SettleTime int64    `json:"settleNanos,omitempty"`
}

// Reference is the data of an event that does not carry the content.
type Reference struct {
	Root        string    `json:"root"`
	Path        string    `json:"path"` // below the root
	Size        int64     `json:"size"`
	Modified    time.Time `json:"modified"`
	ContentType string    `json:"contentType"`
	Operation   string    `json:"operation"`          // created, changed or removed
	Archived    string    `json:"archived,omitempty"` // where the file will be moved to
}

// Check validates a trigger.
func (k *Kind) Check(t *function.Trigger) error {
	if t.Connection != "" {
		return &source.FieldError{Field: "connection", Reason: "must not be set: a folder is named by settings.root"}
	}
	_, err := k.settings(t)
	return err
}

func (k *Kind) settings(t *function.Trigger) (*Settings, error) {
	s := &Settings{}
	if err := source.Settings(t.Settings, s); err != nil {
		return nil, err
	}
	if _, ok := k.roots[s.Root]; !ok {
		return nil, &source.FieldError{Field: "root", Reason: "is not a folder that this node offers; its operator names them"}
	}
	for name, p := range map[string]*string{"path": &s.Path, "archive": &s.Archive} {
		if *p != "" && (!filepath.IsLocal(*p) || path.Clean(*p) != *p || strings.ContainsRune(*p, 0)) {
			return nil, &source.FieldError{Field: name, Reason: "must be a clean path below the root, without .. and without a slash in front"}
		}
	}
	if s.Path == "." {
		s.Path = ""
	}
	below := s.Archive == s.Path || s.Path == "" || strings.HasPrefix(s.Archive, s.Path+"/")
	if s.Archive == "." || s.Archive != "" && below && (s.Recursive || s.Archive == s.Path) {
		return nil, &source.FieldError{Field: "archive", Reason: "must not be watched itself"}
	}
	for name, list := range map[string][]string{"include": s.Include, "exclude": s.Exclude, "types": s.Types} {
		if len(list) > maxPatterns {
			return nil, &source.FieldError{Field: name, Reason: fmt.Sprintf("must have at most %d entries", maxPatterns)}
		}
		for _, p := range list {
			if _, err := path.Match(p, ""); err != nil || p == "" || name != "types" && strings.Contains(p, "/") {
				return nil, &source.FieldError{Field: name, Reason: "must hold patterns such as *.csv or image/*"}
			}
		}
	}
	if s.MinSize < 0 || s.MaxSize < 0 || s.MaxSize > 0 && s.MaxSize < s.MinSize {
		return nil, &source.FieldError{Field: "maxSize", Reason: "must not be below minSize, and neither below 0"}
	}
	if s.SettleTime < 0 || s.SettleTime > int64(MaxSettle) {
		return nil, &source.FieldError{Field: "settleNanos", Reason: "must be at most " + MaxSettle.String()}
	}
	if s.SettleTime == 0 {
		s.SettleTime = int64(DefaultSettle)
	}
	return s, nil
}

// mayWatch reports whether a namespace may watch the root.
func (r *Root) mayWatch(namespace string) bool {
	for _, n := range r.Namespaces {
		if n == "*" || n == namespace {
			return true
		}
	}
	return false
}

// wantsName reports whether files of a name are told of, whatever their size.
func (s *Settings) wantsName(name string) bool {
	if strings.HasPrefix(name, ".") || !matchesAny(s.Include, name, true) || matchesAny(s.Exclude, name, false) {
		return false
	}
	return matchesAny(s.Types, contentType(name), true)
}

func (s *Settings) wantsSize(size int64) bool {
	return size >= s.MinSize && (s.MaxSize == 0 || size <= s.MaxSize)
}

func matchesAny(patterns []string, s string, none bool) bool {
	if len(patterns) == 0 {
		return none
	}
	for _, p := range patterns {
		if ok, err := path.Match(p, s); err == nil && ok {
			return true
		}
	}
	return false
}

func contentType(name string) string {
	t, _, _ := strings.Cut(mime.TypeByExtension(path.Ext(name)), ";")
	if t == "" {
		return "application/octet-stream"
	}
	return t
}

// subject is a path as an event can have it.
func subject(root, p string) string {
	s := root + "/" + p
	if len(s) > event.MaxAttribute || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0xfffd }) {
		return root
	}
	return s
}
