package s3api_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/objectstest"
	"github.com/casemate-dev/casemate/internal/objects/s3api"
	"github.com/casemate-dev/casemate/internal/objects/sigv4"
)

// holder may do what its list says: "r:ns/bucket", "w:ns/*".
type holder struct {
	name   string
	scopes []string
}

func (h *holder) String() string { return "key:" + h.name }

func (h *holder) May(write bool, ns, bucket string) bool {
	action := "r:"
	if write {
		action = "w:"
	}
	return slices.ContainsFunc([]string{ns + "/" + bucket, ns + "/*", "*/*"}, func(s string) bool { return slices.Contains(h.scopes, action+s) })
}

type keyring map[string]struct {
	secret string
	*holder
}

func (k keyring) SigningKey(id, day, region, service string) ([]byte, s3api.Holder) {
	e, ok := k[id]
	if !ok {
		return sigv4.SigningKey("nobody's", day, region, service), nil
	}
	return sigv4.SigningKey(e.secret, day, region, service), e.holder
}

const (
	accessKey = "CASE0000000000000001"
	secretKey = "cm_awssigv4_0000000000000000000000000001"
	otherKey  = "CASE0000000000000002"
	otherPass = "cm_awssigv4_0000000000000000000000000002"
	readKey   = "CASE0000000000000003"
	readPass  = "cm_awssigv4_0000000000000000000000000003"
)

func keys() keyring {
	k := keyring{}
	for _, e := range []struct {
		id, secret string
		scopes     []string
	}{
		{accessKey, secretKey, []string{"r:default/*", "w:default/*", "r:shop/*", "w:shop/*"}},
		{otherKey, otherPass, []string{"r:other/*", "w:other/*"}},
		{readKey, readPass, []string{"r:default/*"}},
	} {
		k[e.id] = struct {
			secret string
			*holder
		}{e.secret, &holder{e.id, e.scopes}}
	}
	return k
}

// told collects changes.
type told struct {
	mu   sync.Mutex
	list []objects.Change
	err  error
}

func (n *told) Changed(_ context.Context, c objects.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return n.err
	}
	n.list = append(n.list, c)
	return nil
}

func (n *told) all() []objects.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

type world struct {
	*httptest.Server
	store *objects.Store
	told  *told
	dir   string
	ca    string // file
	kv    *objectstest.KV
}

func newWorld(t testing.TB, change ...func(*objects.Config, *s3api.Config)) *world {
	t.Helper()
	w := &world{told: &told{}, dir: t.TempDir(), kv: objectstest.NewKV()}
	log := slog.New(slog.DiscardHandler)
	c := objects.Config{
		Dir: filepath.Join(w.dir, "store"), KV: w.kv, Key: make([]byte, 32), Notifier: w.told, Clock: time.Now, Log: log,
		MaxObject: 1 << 30,
	}
	var n atomic.Int64
	d := s3api.Config{
		Keys: keys(), Clock: time.Now, Log: log, Domains: []string{"s3.test"},
		RequestID: func() string { return fmt.Sprintf("r%d", n.Add(1)) },
	}
	for _, f := range change {
		f(&c, &d)
	}
	var err error
	if w.store, err = objects.Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	d.Store = w.store
	door, err := s3api.New(d)
	if err != nil {
		t.Fatal(err)
	}
	w.Server = httptest.NewUnstartedServer(door)
	w.Server.Config = door.Server(nil)
	w.Server.StartTLS()
	t.Cleanup(w.Server.Close)
	w.ca = filepath.Join(w.dir, "ca.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
	if err := os.WriteFile(w.ca, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// host is 127.0.0.1:port.
func (w *world) host() string { return strings.TrimPrefix(w.URL, "https://") }

func (w *world) minio(t testing.TB, id, secret string) *minio.Client {
	t.Helper()
	transport, err := minio.DefaultTransport(true)
	if err != nil {
		t.Fatal(err)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: w.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}
	c, err := minio.New(w.host(), &minio.Options{Creds: credentials.NewStaticV4(id, secret, ""), Secure: true, Transport: transport, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return c
}

func readAll(t testing.TB, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
