package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"syscall"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/node"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// noopRunner answers hello without running anything, so that what remains is the
// way through the gateway: TLS, key, route, limits, receipt.
type noopRunner struct{}

func (noopRunner) Prepare(context.Context, *function.Version) error { return nil }
func (noopRunner) Retire(string, function.Digest)                   {}
func (noopRunner) Close() error                                     { return nil }

func (noopRunner) Invoke(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
	return sandbox.Result{
		Response: sandbox.ResponseHead{Status: 200, Headers: map[string][]string{"content-type": {"application/json"}}},
		Body:     []byte(`{"hello":"Ada"}` + "\n"),
		Usage:    sandbox.Usage{Wall: 1000, CPU: 1000, Sandbox: "noop", Kind: "none"},
	}, nil
}

// noop starts this program again as a node whose runner does nothing.
func (b *bench) noop(ctx context.Context) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(b.dir, "noop-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	pid, stop, err := b.spawn("noop", []string{self, "-serve-noop", strconv.Itoa(port), data, filepath.Join(data, "key")})
	if err != nil {
		return nil, err
	}
	t := &target{Name: "casemate, no-op runner", URL: fmt.Sprintf("https://127.0.0.1:%d/hello", port), KeyFile: filepath.Join(data, "key"), PID: pid, stop: stop}
	if err := awaitFile(ctx, filepath.Join(data, "ready")); err != nil {
		stop()
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(data, "ca"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return t, b.await(ctx, t, pool)
}

func serveNoop(port, dir, keyFile string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if file := os.Getenv("BENCH_PROFILE"); file != "" { // for go tool pprof
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return node.Run(ctx, node.Options{
		DataDir: filepath.Join(dir, "data"), Gateway: "127.0.0.1:" + port, Control: "127.0.0.1:0",
		Runner: noopRunner{},
		Ready: func(r node.Ready) error {
			for name, content := range map[string]string{keyFile: r.AdminKey + "\n", filepath.Join(dir, "ca"): string(r.CA)} {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					return err
				}
			}
			if err := deployNoop(ctx, r); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600)
		},
	})
}
