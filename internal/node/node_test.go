package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// still is a Runner that starts nothing, for tests of everything around it.
type still struct{}

func (still) Prepare(context.Context, *function.Version) error { return nil }
func (still) Retire(string, function.Digest)                   {}
func (still) Close() error                                     { return nil }
func (still) Invoke(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
	return sandbox.Result{}, &sandbox.Error{Kind: sandbox.Unavailable}
}

// once starts a node on dir, stops it as soon as it is ready, and gives what it
// said of itself and how it ended.
func once(t *testing.T, o Options) (Ready, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var said Ready
	if o.Gateway == "" {
		o.Gateway = "127.0.0.1:0"
	}
	o.Control, o.Runner = "127.0.0.1:0", still{}
	if o.Ready == nil {
		o.Ready = func(r Ready) error {
			said = r
			cancel()
			return nil
		}
	}
	err := Run(ctx, o)
	return said, err
}

func TestAdministratorKeyIsIssuedWhenTheClientHasNone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := once(t, Options{DataDir: dir})
	if err != nil || !first.FirstBoot || first.AdminKey == "" {
		t.Fatalf("first start: %+v, %v", first, err)
	}
	kept, err := once(t, Options{DataDir: dir, AdminKey: first.AdminKey})
	if err != nil || kept.FirstBoot || kept.AdminKey != "" || kept.Node != first.Node || string(kept.CA) != string(first.CA) {
		t.Errorf("with a valid key: %+v, %v", kept, err)
	}
	for name, key := range map[string]string{"none": "", "garbage": "cm_garbage"} {
		again, err := once(t, Options{DataDir: dir, AdminKey: key})
		if err != nil || again.AdminKey == "" || again.AdminKey == first.AdminKey {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
}

// TestHalfAStartIsUndone: whatever step fails, the directory is free again and a
// later start works.
func TestHalfAStartIsUndone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := once(t, Options{DataDir: dir, Gateway: taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "--gateway") {
		t.Errorf("a port in use: %v", err)
	}
	unhappy := errors.New("the client's disk is full")
	if _, err := once(t, Options{DataDir: dir, Ready: func(Ready) error { return unhappy }}); !errors.Is(err, unhappy) {
		t.Errorf("a client that cannot keep the key: %v", err)
	}
	if _, err := once(t, Options{DataDir: dir}); err != nil {
		t.Errorf("after two failed starts: %v", err)
	}
}

func TestDirectoryThatOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := once(t, Options{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
}

func TestStatusTellsOfALoweredTLSVersion(t *testing.T) {
	t.Parallel()
	var s *api.Status
	_, err := once(t, Options{DataDir: filepath.Join(t.TempDir(), "data"), AllowTLS12: true, Ready: func(r Ready) error {
		c, err := api.NewClient(api.Options{URL: r.ControlURL, CA: r.CA, Key: r.AdminKey})
		if err != nil {
			return err
		}
		if s, err = c.Status(t.Context()); err != nil {
			return err
		}
		return context.Canceled // enough seen
	}})
	if !errors.Is(err, context.Canceled) || s == nil || !s.Healthy || s.Listeners[0].TLS != "1.2" || len(s.Warnings) == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
