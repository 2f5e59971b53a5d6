package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// bench holds what the measures share.
type bench struct {
	cfg       config
	dir       string // temporary
	cert, key string // of the peers, PEM files
	pool      *x509.CertPool
	stops     []func()
	functions map[string]built // by name in functions/casemate.yaml
}

func (b *bench) close() {
	for i := len(b.stops) - 1; i >= 0; i-- {
		b.stops[i]()
	}
}

// certificate makes a pair like the node's own: ECDSA P-256.
func (b *bench) certificate() error {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return err
	}
	b.cert, b.key = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	b.pool = x509.NewCertPool()
	b.pool.AppendCertsFromPEM(certPEM)
	return errors.Join(
		os.WriteFile(b.cert, certPEM, 0o600),
		os.WriteFile(b.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600),
	)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// spawn starts a program in a process group of its own; stopping it ends all of
// the group.
func (b *bench) spawn(name string, argv []string, env ...string) (pid int, stop func(), err error) {
	log, err := os.Create(filepath.Join(b.dir, strings.ReplaceAll(name, "/", "-")+".log"))
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("starting %s: %v", name, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
		}
		log.Close()
	}
	b.stops = append(b.stops, stop)
	return cmd.Process.Pid, stop, nil
}

// await asks the target for hello until it answers rightly.
func (b *bench) await(ctx context.Context, t *target, pool *x509.CertPool) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var last error
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("waiting for %s: %v", t.Name, errors.Join(last, ctx.Err()))
		case <-tick.C:
		}
		if last = hello(ctx, client, t); last == nil {
			tick.Stop()
			return nil
		}
	}
}

func hello(ctx context.Context, client *http.Client, t *target) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader([]byte(`{"name":"Ada"}`)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if t.KeyFile != "" {
		k, err := os.ReadFile(t.KeyFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(k)))
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var got struct{ Hello string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &got) != nil || got.Hello != "Ada" {
		return fmt.Errorf("%s answered %d: %.200s", t.Name, resp.StatusCode, body)
	}
	return nil
}

func (b *bench) start(ctx context.Context, name, path string, argv func(port int) []string, env ...string) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	pid, stop, err := b.spawn(name, argv(port), env...)
	if err != nil {
		return nil, err
	}
	t := &target{Name: name, URL: fmt.Sprintf("https://127.0.0.1:%d%s", port, path), PID: pid, stop: stop}
	return t, b.await(ctx, t, b.pool)
}

// bare is a Go server without any of ours: net/http and TLS.
func (b *bench) bare(ctx context.Context) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.start(ctx, "net/http", "/hello", func(port int) []string {
		return []string{self, "-serve-bare", strconv.Itoa(port), b.cert, b.key}
	})
}

func serveBare(port, cert, key string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hello", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Name string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
			http.Error(w, "bad body", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"hello": in.Name})
	})
	srv := &http.Server{Addr: "127.0.0.1:" + port, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return srv.ListenAndServeTLS(cert, key)
}

// npm installs the peers that come from npm, and the Hono app that one of them runs.
func (b *bench) npm(ctx context.Context) error {
	return errors.Join(npmInstall(ctx, "peers"), npmInstall(ctx, "functions/hono"))
}

// npmInstall installs what a folder's lock file names, if it has one. It does nothing
// when that was done since the lock file changed.
func npmInstall(ctx context.Context, dir string) error {
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "installing %s from npm…\n", dir)
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing %s: %v\n%s", dir, err, out)
	}
	return nil
}

func (b *bench) workerd(ctx context.Context, loader bool) (*target, error) {
	if err := b.npm(ctx); err != nil {
		return nil, err
	}
	name, module := "workerd", "worker.js"
	if loader {
		name, module = "workerd-fresh", "loader.js"
	}
	// Cap'n Proto looks for embedded files beside the configuration.
	code, err := os.ReadFile(filepath.Join("peers", module))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, module), code, 0o600); err != nil {
		return nil, err
	}
	bin, err := filepath.Abs("peers/node_modules/@cloudflare/workerd-linux-64/bin/workerd")
	if err != nil {
		return nil, err
	}
	var failure error
	t, err := b.start(ctx, name, "/hello", func(port int) []string {
		conf := filepath.Join(b.dir, name+".capnp")
		failure = render("peers/workerd.capnp.tmpl", conf, map[string]any{
			"Port": port, "Key": filepath.Base(b.key), "Cert": filepath.Base(b.cert), "Module": module, "Loader": loader,
		})
		return []string{bin, "serve", conf, "--experimental"}
	})
	return t, errors.Join(failure, err)
}

func render(tmpl, to string, data any) error {
	t, err := template.ParseFiles(tmpl)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o600)
}

func (b *bench) framework(ctx context.Context) (*target, error) {
	if err := b.npm(ctx); err != nil {
		return nil, err
	}
	return b.start(ctx, "functions-framework", "/", func(port int) []string {
		return []string{"node", "peers/framework.js", b.key, b.cert, strconv.Itoa(port)}
	}, "NODE_ENV=production", "FUNCTION_SIGNATURE_TYPE=http")
}

// nodeHono is the Hono app of functions/hono on Node.
func (b *bench) nodeHono(ctx context.Context) (*target, error) {
	if err := b.npm(ctx); err != nil {
		return nil, err
	}
	return b.start(ctx, "node-server", "/hono/hello", func(port int) []string {
		return []string{"node", "peers/hono.mjs", b.key, b.cert, strconv.Itoa(port)}
	}, "NODE_ENV=production")
}
