package connection

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// memory is a Store in memory.
type memory struct {
	mu   sync.Mutex
	rev  uint64
	data map[string]state.Entry
}

func (m *memory) Get(_ context.Context, key string) (state.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.data[key]; ok {
		return e, nil
	}
	return state.Entry{}, state.ErrNotFound
}

func (m *memory) put(key string, value []byte, was uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data[key].Revision != was {
		return 0, state.ErrConflict
	}
	m.rev++
	m.data[key] = state.Entry{Key: key, Value: value, Revision: m.rev}
	return m.rev, nil
}

func (m *memory) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return m.put(key, value, 0)
}

func (m *memory) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return m.put(key, value, revision)
}

func (m *memory) Delete(_ context.Context, key string, _ uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, key)
	return nil
}

func (m *memory) List(_ context.Context, prefix string) ([]state.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var es []state.Entry
	for k, e := range m.data {
		if strings.HasPrefix(k, prefix) {
			es = append(es, e)
		}
	}
	return es, nil
}

// kinds knows amqp, which has no settings.
type kinds struct{}

func (kinds) CheckConnection(kind string, settings json.RawMessage, _ []string) error {
	switch {
	case kind != "amqp":
		return &FieldError{"kind", "is not known"}
	case string(settings) != "{}":
		return &FieldError{"settings", "are none"}
	}
	return nil
}

func newConnections(t *testing.T) (*Connections, *memory) {
	t.Helper()
	m := &memory{data: map[string]state.Entry{}}
	return New(m, kinds{}, func() time.Time { return time.Unix(1000, 0) }), m
}

const planted = "canary-4711"

func secretFile(t *testing.T, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(planted+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func valid(file string) Connection {
	return Connection{
		Namespace: "shop", Name: "rabbit", Kind: "amqp", Settings: json.RawMessage("{}"),
		Files: map[string]string{"password": file}, Creator: "key:a",
	}
}

func TestCredentialIsReadWhenItIsNeededAndNeverStored(t *testing.T) {
	t.Parallel()
	c, m := newConnections(t)
	file := secretFile(t, 0o600)
	if err := c.Put(t.Context(), valid(file)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Get(t.Context(), "shop", "rabbit")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := n.Secret("password"); err != nil || string(b) != planted {
		t.Errorf("the secret is %q, %v", b, err)
	}
	for _, e := range m.data {
		if strings.Contains(string(e.Value), planted) {
			t.Error("the credential is stored")
		}
	}
	if err := os.WriteFile(file, []byte("next"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := n.Secret("password"); err != nil || string(b) != "next" {
		t.Errorf("after a rotation the secret is %q, %v", b, err)
	}
	if _, err := n.Secret("token"); err == nil {
		t.Error("a secret that is not there was read")
	}
}

func TestFilesThatOthersCanReadAreRefused(t *testing.T) {
	t.Parallel()
	open, sealed := secretFile(t, 0o644), secretFile(t, 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(sealed, link); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"open to others": open, "a link": link, "a folder": t.TempDir(), "missing": sealed + "x",
		"relative": "password", "with dots": filepath.Dir(sealed) + "/../password", "a device": "/dev/zero", "empty": empty,
	} {
		c, m := newConnections(t)
		var field *FieldError
		err := c.Put(t.Context(), valid(file))
		if !errors.As(err, &field) || field.Field != "secrets.password" {
			t.Errorf("%s: it gave %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), planted) {
			t.Errorf("%s: the error holds the secret", name)
		}
		if len(m.data) != 0 {
			t.Errorf("%s: it was stored", name)
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	t.Parallel()
	file := secretFile(t, 0o600)
	for want, change := range map[string]func(*Connection){
		"namespace": func(n *Connection) { n.Namespace = "shop.x" },
		"name":      func(n *Connection) { n.Name = "../other" },
		"kind":      func(n *Connection) { n.Kind = "smtp" },
		"settings":  func(n *Connection) { n.Settings = json.RawMessage(`{"password":"x"}`) },
		"secrets":   func(n *Connection) { n.Files = map[string]string{"A/B": file} },
	} {
		c, _ := newConnections(t)
		n := valid(file)
		change(&n)
		var field *FieldError
		if err := c.Put(t.Context(), n); !errors.As(err, &field) || field.Field != want {
			t.Errorf("%s: it gave %v", want, err)
		}
	}
}

func TestNamespacesDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	c, _ := newConnections(t)
	file := secretFile(t, 0o600)
	for _, ns := range []string{"shop", "shop-2"} {
		n := valid(file)
		n.Namespace = ns
		if err := c.Put(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.List(t.Context(), "shop")
	if err != nil || len(all) != 1 || all[0].Namespace != "shop" {
		t.Errorf("shop has %v, %v", all, err)
	}
	for _, name := range []string{"shop-2.rabbit", "*", "", "../shop-2/rabbit"} {
		if _, err := c.Get(t.Context(), "shop", name); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%q gave %v", name, err)
		}
	}
	if err := c.Delete(t.Context(), "shop", "rabbit"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), "shop", "rabbit"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the second time it gave %v", err)
	}
	if all, _ := c.List(t.Context(), "shop-2"); len(all) != 1 {
		t.Error("the other namespace's went too")
	}
}

// TestCredentialsAreNamedAsTheirKindsNameThem takes names as Amazon writes them, too.
func TestCredentialsAreNamedAsTheirKindsNameThem(t *testing.T) {
	t.Parallel()
	file := secretFile(t, 0o600)
	for name, want := range map[string]bool{"key": true, "key-previous": true, "accessKeyId": true, "Key": false, "a.b": false, "": false} {
		c, _ := newConnections(t)
		n := valid("")
		n.Files = map[string]string{name: file}
		if err := c.Put(t.Context(), n); (err == nil) != want {
			t.Errorf("%q gave %v", name, err)
		}
	}
}

func TestPutReplaces(t *testing.T) {
	t.Parallel()
	c, _ := newConnections(t)
	n := valid(secretFile(t, 0o600))
	if err := c.Put(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	n.Files = nil
	if err := c.Put(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(t.Context(), "shop", "rabbit")
	if err != nil || len(got.Files) != 0 || !slices.Equal(got.Settings, n.Settings) {
		t.Errorf("it is %+v, %v", got, err)
	}
}
