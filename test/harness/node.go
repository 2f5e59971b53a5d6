// Package harness drives the real casemate binary as its users do: it starts
// nodes in fresh directories, runs client commands against them, and makes tiny
// guests. Tests below test/ import it; nothing else does. A Node belongs to one
// test; several may run side by side, each on ports of its own.
package harness

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
)

// Timeout bounds each wait for the binary: only a failure reaches it.
const Timeout = 4 * time.Minute

// Binary gives the path of the casemate binary: $CASEMATE_BIN, or one that is
// built once for this test process.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("CASEMATE_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := os.MkdirTemp("", "casemate-test-bin-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "casemate")
	cmd := exec.Command("go", "build", "-o", path, "github.com/casemate-dev/casemate/cmd/casemate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building casemate: %v\n%s", err, out)
	}
	return path, nil
})

// Main runs the tests and removes the binary that Binary built. Call it from
// TestMain and exit with what it returns.
func Main(m *testing.M) int {
	code := m.Run()
	if path, err := build(); err == nil && os.Getenv("CASEMATE_BIN") == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	return code
}

// Home is where one user keeps data and client configuration.
type Home struct {
	T      testing.TB
	Dir    string
	Data   string   // data directory
	Config string   // client configuration
	Wrap   []string // what runs the commands of this home, with its arguments; they get the program's path and arguments added
}

// NewHome makes an empty one that goes with the test.
func NewHome(t testing.TB) *Home {
	t.Helper()
	dir := t.TempDir()
	return &Home{T: t, Dir: dir, Data: filepath.Join(dir, "data"), Config: filepath.Join(dir, "client", "config.json")}
}

// Command prepares a client command in this home.
func (h *Home) Command(ctx context.Context, args ...string) *exec.Cmd {
	line := append(append(slices.Clone(h.Wrap), Binary(h.T)), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = h.Dir
	cmd.Env = append(os.Environ(), "CASEMATE_CONFIG="+h.Config, "NO_COLOR=1", "HOME="+h.Dir)
	if home, err := os.UserHomeDir(); err == nil { // compilers keep their caches where they were
		cmd.Env = append(cmd.Env, "GOPATH="+envOr("GOPATH", filepath.Join(home, "go")), "GOCACHE="+envOr("GOCACHE", filepath.Join(home, ".cache", "go-build")))
	}
	return cmd
}

func envOr(name, other string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return other
}

// Run runs a client command, and fails the test when the command fails.
func (h *Home) Run(args ...string) string {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	cmd := h.Command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.T.Fatalf("casemate %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// Node is a running `casemate up`.
type Node struct {
	*Home
	Gateway string // URL
	Control string
	CA      []byte
	Key     string // administrator's
	Client  *api.Client

	cmd    *exec.Cmd
	output *lockedBuffer
	done   chan struct{}
	err    error
}

// Up starts a node and waits until it is ready. Whatever still runs at the end of
// the test is killed.
func (h *Home) Up(args ...string) *Node {
	h.T.Helper()
	n, err := h.TryUp(args...)
	if err != nil {
		h.T.Fatal(err)
	}
	return n
}

// TryUp is Up for starts that may fail; the error carries the output.
func (h *Home) TryUp(args ...string) (*Node, error) {
	n := &Node{Home: h, output: &lockedBuffer{}, done: make(chan struct{})}
	args = append([]string{"up", "-o", "json", "--data-dir", h.Data, "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--objects", "127.0.0.1:0"}, args...)
	n.cmd = h.Command(context.Background(), args...)
	ready := &firstLine{seen: make(chan struct{})}
	n.cmd.Stdout, n.cmd.Stderr = ready, n.output
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { n.err = n.cmd.Wait(); close(n.done) }()
	h.T.Cleanup(n.Kill)
	deadline := time.NewTimer(Timeout)
	defer deadline.Stop()
	select {
	case <-n.done:
		return nil, fmt.Errorf("casemate up ended: %v\n%s", n.err, n.output.String())
	case <-deadline.C:
		n.Kill()
		return nil, fmt.Errorf("casemate up is not ready after %s\n%s", Timeout, n.output.String())
	case <-ready.seen: // it prints one line when it serves
		return n, n.connect()
	}
}

// KillDuringStart starts a node and kills it after d, ready or not.
func (h *Home) KillDuringStart(d time.Duration) {
	h.T.Helper()
	cmd := h.Command(context.Background(), "up", "--data-dir", h.Data, "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--objects", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		h.T.Fatal(err)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait() // killed on purpose
}

// connect reads what the node wrote for its client.
func (n *Node) connect() error {
	b, err := os.ReadFile(n.Config)
	if err != nil {
		return err
	}
	var conf struct {
		Current  string
		Contexts []struct{ Name, ControlURL, GatewayURL, CA, Key string }
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		return fmt.Errorf("reading %s: %v", n.Config, err)
	}
	for _, c := range conf.Contexts {
		if c.Name == conf.Current {
			n.Gateway, n.Control, n.CA, n.Key = c.GatewayURL, c.ControlURL, []byte(c.CA), c.Key
		}
	}
	if n.Control == "" {
		return fmt.Errorf("%s has no current context", n.Config)
	}
	n.Client, err = api.NewClient(api.Options{URL: n.Control, CA: n.CA, Key: n.Key, UserAgent: "test"})
	return err
}

// PID of the node.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Output is what the node printed so far.
func (n *Node) Output() string { return n.output.String() }

// Kill ends the node as a power cut would, and waits.
func (n *Node) Kill() {
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL) // gone already: fine
	<-n.done
}

// Signal sends the node alone a signal.
func (n *Node) Signal(s syscall.Signal) {
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.T.Error(err)
	}
}

// Wait waits for the node's end and gives its error.
func (n *Node) Wait() error {
	n.T.Helper()
	select {
	case <-n.done:
		return n.err
	case <-time.After(Timeout):
		n.T.Fatalf("the node does not end\n%s", n.output.String())
		return nil
	}
}

// Stop asks the node to end and fails the test when it does not do so cleanly.
func (n *Node) Stop() {
	n.T.Helper()
	n.Signal(syscall.SIGTERM)
	if err := n.Wait(); err != nil {
		n.T.Fatalf("the node did not stop cleanly: %v\n%s", err, n.output.String())
	}
}

// Pool holds the node's own authority and nothing else.
func (n *Node) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(n.CA)
	return pool
}

// HTTP is a client of the gateway that trusts the node's authority alone.
func (n *Node) HTTP() *http.Client {
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: n.Pool()}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64,
	}
	n.T.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: Timeout}
}

// Deploy makes guests live under their names, each with a POST route of its name
// behind a key, and gives their versions. Change the config with edit.
func (n *Node) Deploy(ctx context.Context, guests map[string]Guest, edit func(*api.FunctionSpec)) (map[string]string, error) {
	var req api.PlanRequest
	for name, g := range guests {
		code := g.Code()
		digest := Digest(code)
		if err := n.Client.PutArtifact(ctx, digest, int64(len(code)), bytes.NewReader(code)); err != nil {
			return nil, err
		}
		spec := api.FunctionSpec{Name: name, Artifact: digest, Config: api.FunctionConfig{
			Runtime: "wasm", HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/" + name}},
		}}
		if edit != nil {
			edit(&spec)
		}
		req.Functions = append(req.Functions, spec)
	}
	return n.apply(ctx, "default", req.Functions)
}

// MustDeploy is Deploy for tests that rely on it.
func (n *Node) MustDeploy(guests map[string]Guest, edit func(*api.FunctionSpec)) map[string]string {
	n.T.Helper()
	v, err := n.Deploy(n.T.Context(), guests, edit)
	if err != nil {
		n.T.Fatal(err)
	}
	return v
}

// Objects is the URL of the node's object store.
func (n *Node) Objects() string {
	n.T.Helper()
	s, err := n.Client.Status(n.T.Context())
	if err != nil || s.Objects == nil {
		n.T.Fatalf("the node has no object store: %v", err)
	}
	return s.Objects.URL
}

// InvokeKey makes a key that may call every function.
func (n *Node) InvokeKey() string {
	n.T.Helper()
	k, err := n.Client.CreateKey(n.T.Context(), api.CreateKey{Name: "test", Scopes: []string{"invoke:*/*"}})
	if err != nil {
		n.T.Fatal(err)
	}
	return k.Secret
}

// Answer is what came back through the gateway.
type Answer struct {
	Status  int
	Header  http.Header
	Body    string
	Receipt string
}

// Call posts to the gateway.
func (n *Node) Call(ctx context.Context, c *http.Client, key, path, body string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.Gateway+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b), Receipt: resp.Header.Get("Casemate-Receipt")}, err
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// firstLine closes seen when a whole line was written to it.
type firstLine struct {
	once sync.Once
	seen chan struct{}
}

func (f *firstLine) Write(p []byte) (int, error) {
	if bytes.IndexByte(p, '\n') >= 0 {
		f.once.Do(func() { close(f.seen) })
	}
	return len(p), nil
}
