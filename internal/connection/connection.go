// Package connection keeps the far sides that sources of events talk to: for each a name
// in a namespace, a kind, settings, and where its credentials are.
//
// It is a mechanism: it imports leaves, and node hands it the store and what knows the
// kinds. A Connections may be used from many goroutines. Writes are by compare-and-set.
//
// A credential is never stored here. What is stored is the path of a file that only its
// owner can read; it is read each time it is needed, so changing the file rotates the
// credential.
package connection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds.
const (
	MaxSettings = 32 << 10 // bytes
	MaxSecrets  = 16       // of one connection
	MaxSecret   = 64 << 10 // bytes of one credential
	maxPath     = 1024
)

// Store is what the package keeps connections in.
type Store interface {
	Get(ctx context.Context, key string) (state.Entry, error)
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, revision uint64) error
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Kinds checks what a connection's kind asks for. It fails with an error that says which
// field and what to do.
type Kinds interface {
	CheckConnection(kind string, settings json.RawMessage, secrets []string) error
}

// Connection is one far side.
type Connection struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	Settings  json.RawMessage   `json:"settings"`
	Files     map[string]string `json:"files,omitempty"` // of credentials, by their names: absolute paths on the node's machine
	Created   time.Time         `json:"created"`
	Creator   string            `json:"creator"`
}

// FieldError names what is wrong with a connection.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Field + " " + e.Reason }

// Connections is the set of them.
type Connections struct {
	store Store
	kinds Kinds
	clock func() time.Time
}

// New returns the connections in a store.
func New(store Store, kinds Kinds, clock func() time.Time) *Connections {
	return &Connections{store: store, kinds: kinds, clock: clock}
}

var secretName = regexp.MustCompile(`^[a-z][A-Za-z0-9-]{0,31}$`)

func key(namespace, name string) string { return "connection." + namespace + "." + name }

// Put makes a connection, or replaces it. It fails with a *FieldError when something is
// wrong with c, with an error matching state.ErrConflict when somebody else changed it
// at the same time.
func (c *Connections) Put(ctx context.Context, n Connection) error {
	if err := c.check(&n); err != nil {
		return err
	}
	n.Created = c.clock().UTC()
	b, err := json.Marshal(&n)
	if err != nil {
		return fmt.Errorf("encoding connection: %v", err)
	}
	k := key(n.Namespace, n.Name)
	old, err := c.store.Get(ctx, k)
	if errors.Is(err, state.ErrNotFound) {
		_, err = c.store.Create(ctx, k, b)
	} else if err == nil {
		_, err = c.store.Update(ctx, k, b, old.Revision)
	}
	if err != nil {
		return fmt.Errorf("storing connection %s/%s: %w", n.Namespace, n.Name, err)
	}
	return nil
}

func (c *Connections) check(n *Connection) error {
	switch {
	case !function.ValidName(n.Namespace):
		return &FieldError{"namespace", "must be a name of lower-case letters, digits and hyphens"}
	case !function.ValidName(n.Name):
		return &FieldError{"name", "must be a name of lower-case letters, digits and hyphens"}
	case len(n.Settings) > MaxSettings:
		return &FieldError{"settings", fmt.Sprintf("has %d bytes, more than %d", len(n.Settings), MaxSettings)}
	case len(n.Files) > MaxSecrets:
		return &FieldError{"secrets", fmt.Sprintf("has %d entries, more than %d", len(n.Files), MaxSecrets)}
	}
	names := make([]string, 0, len(n.Files))
	for name, file := range n.Files {
		at := "secrets." + name
		switch {
		case !secretName.MatchString(name):
			return &FieldError{"secrets", "are named by letters, digits and hyphens, a lower-case letter first"}
		case !filepath.IsAbs(file) || filepath.Clean(file) != file || len(file) > maxPath:
			return &FieldError{at, "must be the absolute path of a file on the node's machine"}
		}
		if _, err := readSecret(file); err != nil {
			return &FieldError{at, "cannot be read: " + err.Error()}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return c.kinds.CheckConnection(n.Kind, n.Settings, names)
}

// Get gives one, or an error matching state.ErrNotFound.
func (c *Connections) Get(ctx context.Context, namespace, name string) (Connection, error) {
	if !function.ValidName(namespace) || !function.ValidName(name) {
		return Connection{}, fmt.Errorf("reading connection: %w", state.ErrNotFound)
	}
	e, err := c.store.Get(ctx, key(namespace, name))
	if err != nil {
		return Connection{}, fmt.Errorf("reading connection %s/%s: %w", namespace, name, err)
	}
	return decode(e)
}

// List gives those of a namespace by name.
func (c *Connections) List(ctx context.Context, namespace string) ([]Connection, error) {
	es, err := c.store.List(ctx, "connection."+namespace+".")
	if err != nil {
		return nil, fmt.Errorf("listing connections: %w", err)
	}
	var all []Connection
	for _, e := range es {
		n, err := decode(e)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Connection) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Delete takes one away, or fails with an error matching state.ErrNotFound.
func (c *Connections) Delete(ctx context.Context, namespace, name string) error {
	if !function.ValidName(namespace) || !function.ValidName(name) {
		return fmt.Errorf("deleting connection: %w", state.ErrNotFound)
	}
	k := key(namespace, name)
	e, err := c.store.Get(ctx, k)
	if err == nil {
		err = c.store.Delete(ctx, k, e.Revision)
	}
	if err != nil {
		return fmt.Errorf("deleting connection %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Secret reads one of the connection's credentials as it is now, without the line's end
// at its end. No error holds it.
func (n *Connection) Secret(name string) ([]byte, error) {
	file, ok := n.Files[name]
	if !ok {
		return nil, fmt.Errorf("connection %s/%s has no secret %q", n.Namespace, n.Name, name)
	}
	b, err := readSecret(file)
	if err != nil {
		return nil, fmt.Errorf("reading secret %q of connection %s/%s: %w", name, n.Namespace, n.Name, err)
	}
	return b, nil
}

func decode(e state.Entry) (Connection, error) {
	d := json.NewDecoder(bytes.NewReader(e.Value))
	d.DisallowUnknownFields()
	var n Connection
	err := d.Decode(&n)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is more than one value")
		}
	}
	if err != nil || key(n.Namespace, n.Name) != e.Key {
		return Connection{}, fmt.Errorf("decoding connection %s: malformed", e.Key)
	}
	return n, nil
}
