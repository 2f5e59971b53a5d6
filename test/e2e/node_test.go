// Package e2e drives the built binary from outside, as its users do, and looks
// at what they would look at: files, sockets, answers, exit codes. It holds tests
// alone; each has a node of its own.
package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func TestFirstBootKeepsEverythingToItsOwner(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi"}}, nil)
	for _, root := range []string{h.Data, filepath.Dir(h.Config)} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			// Inside a directory that only its owner can enter, modes matter less;
			// what holds keys must be closed by itself.
			if path == root && info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %04o", path, info.Mode().Perm())
			}
			switch filepath.Base(path) {
			case "root.key", "config.json", "ca.key":
				if info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %04o", path, info.Mode().Perm())
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestNothingElseListens looks at the sockets of the node and of all its
// children: two TCP listeners, and no other socket bound to an address.
func TestNothingElseListens(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi"}}, nil)
	var want []string
	for _, u := range []string{n.Gateway, n.Control, n.Objects()} {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, "tcp "+p.Host)
	}
	var got []string
	for _, pid := range harness.Tree(t, n.PID()) {
		got = append(got, bound(t, pid)...)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("bound sockets: %q, want %q", got, want)
	}
}

var socketLink = regexp.MustCompile(`^socket:\[(\d+)\]$`)

// bound lists the listening TCP, the bound UDP and the named Unix sockets that a
// process holds.
func bound(t *testing.T, pid int) []string {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil {
			if m := socketLink.FindStringSubmatch(link); m != nil {
				inodes[m[1]] = true
			}
		}
	}
	var found []string
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
		if err != nil {
			continue
		}
		for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			f := strings.Fields(line)
			if i == 0 || len(f) < 10 || !inodes[f[9]] {
				continue
			}
			const listening = "0A"
			if strings.HasPrefix(proto, "tcp") && f[3] != listening {
				continue
			}
			found = append(found, proto+" "+address(f[1]))
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid)); err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 7 && inodes[f[6]] {
				found = append(found, "unix "+f[7])
			}
		}
	}
	return found
}

// address decodes the form of /proc/net: a little-endian word and a port, in hex.
func address(s string) string {
	ip, port, _ := strings.Cut(s, ":")
	v, _ := strconv.ParseUint(ip, 16, 32)
	p, _ := strconv.ParseUint(port, 16, 16)
	if len(ip) > 8 {
		return s
	}
	return net.JoinHostPort(net.IPv4(byte(v), byte(v>>8), byte(v>>16), byte(v>>24)).String(), strconv.Itoa(int(p)))
}

func TestSecondStartReusesEverything(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	versions := n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi"}}, nil)
	key := n.InvokeKey()
	a, err := n.Call(t.Context(), n.HTTP(), key, "/hello", "")
	if err != nil || a.Body != "hi" {
		t.Fatalf("%+v, %v", a, err)
	}
	n.Stop()

	m := h.Up()
	if !bytes.Equal(m.CA, n.CA) || m.Key != n.Key {
		t.Error("the second start made a new authority or a new administrator")
	}
	b, err := m.Call(t.Context(), m.HTTP(), key, "/hello", "")
	if err != nil || b.Body != "hi" {
		t.Errorf("after the restart: %+v, %v", b, err)
	}
	f, err := m.Client.Function(t.Context(), "default", "hello")
	if err != nil || f.Live == nil || f.Live.ID != versions["hello"] {
		t.Errorf("after the restart: %+v, %v", f, err)
	}
	if r, err := m.Client.Receipt(t.Context(), a.Receipt); err != nil || r.Version != versions["hello"] || r.Status != 200 {
		t.Errorf("the receipt from before: %+v, %v", r, err)
	}
	m.Stop()
}

func TestWrongOrMissingKeyRefusesToBoot(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi"}}, nil)
	n.Stop()
	keyFile := filepath.Join(h.Data, "root.key")
	right, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	other := harness.NewHome(t)
	other.Up().Stop()
	wrong, err := os.ReadFile(filepath.Join(other.Data, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"wrong": wrong, "missing": nil, "garbage": []byte("not a key\n"), "empty": {}} {
		if err := os.Remove(keyFile); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if content != nil {
			if err := os.WriteFile(keyFile, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := h.TryUp()
		if err == nil {
			t.Fatalf("%s key: the node started", name)
		}
		if !strings.Contains(err.Error(), "root.key") {
			t.Errorf("%s key: the error does not say which file to mend: %v", name, err)
		}
	}
	if err := os.WriteFile(keyFile, right, 0o600); err != nil {
		t.Fatal(err)
	}
	m := h.Up()
	if a, err := m.Call(t.Context(), m.HTTP(), m.InvokeKey(), "/hello", ""); err != nil || a.Body != "hi" {
		t.Errorf("with the right key again: %+v, %v", a, err)
	}
}

func TestDirectoryInUseIsRefused(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	second := *h
	second.Dir = t.TempDir()
	second.Config = filepath.Join(second.Dir, "config.json")
	_, err := second.TryUp()
	if err == nil {
		t.Fatal("two nodes on one data directory")
	}
	if !strings.Contains(err.Error(), strconv.Itoa(n.PID())) {
		t.Errorf("the error does not name the process that holds it: %v", err)
	}
}

func TestPortInUseIsSaidPlainly(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = harness.NewHome(t).TryUp("--gateway", l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "--gateway") {
		t.Errorf("got %v", err)
	}
}

func TestTLS12OnlyWhenAllowed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		want bool
	}{{nil, false}, {[]string{"--allow-tls12"}, true}} {
		n := harness.NewHome(t).Up(tc.args...)
		for _, u := range []string{n.Gateway, n.Control} {
			p, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: tc.want, tls.VersionTLS13: true} {
				c, err := tls.Dial("tcp", p.Host, &tls.Config{RootCAs: n.Pool(), MinVersion: version, MaxVersion: version, NextProtos: []string{"h2"}})
				if (err == nil) != want {
					t.Errorf("%q: %s at %s: %v", tc.args, tls.VersionName(version), u, err)
				}
				if err == nil {
					if c.ConnectionState().NegotiatedProtocol != "h2" {
						t.Errorf("%s does not speak HTTP/2", u)
					}
					c.Close()
				}
			}
		}
		// In the clear there is nothing to be had.
		resp, err := http.Get(strings.Replace(n.Gateway, "https:", "http:", 1))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("plain HTTP answered %d", resp.StatusCode)
			}
		}
	}
}

// TestPlaintextIsNotOnDisk plants words in every kind of thing that is stored
// and greps the data directory for them.
func TestPlaintextIsNotOnDisk(t *testing.T) {
	t.Parallel()
	h := harness.NewHome(t)
	n := h.Up()
	const (
		inCode, inLog, inEnv, inName = "planted-in-the-code", "planted-in-the-log", "planted-in-the-environment", "plantedfunction"
	)
	n.MustDeploy(map[string]harness.Guest{inName: {Body: inCode, Log: inLog + "\n"}}, func(s *apiSpec) {
		s.Config.Environment = map[string]string{"GREETING": inEnv}
	})
	key := n.InvokeKey()
	for range 3 {
		if a, err := n.Call(t.Context(), n.HTTP(), key, "/"+inName, "x"); err != nil || a.Body != inCode {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	look := func(when string) {
		files := 0
		err := filepath.WalkDir(h.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return err
			}
			files++
			for _, word := range []string{inCode, inLog, inEnv, inName, key, n.Key} {
				if bytes.Contains(b, []byte(word)) {
					t.Errorf("%s: %s holds %q in the clear", when, path, word)
				}
			}
			return nil
		})
		if err != nil || files == 0 {
			t.Errorf("%s: %d files, %v", when, files, err)
		}
	}
	look("while running")
	n.Stop()
	look("after the stop")
	n.Kill()
}

func TestSIGTERMLetsWorkUnderWayFinish(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"slow": {Body: "done", Log: "started\n", Millis: 1500}}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	type outcome struct {
		a   harness.Answer
		err error
	}
	got := make(chan outcome, 1)
	go func() {
		a, err := n.Call(t.Context(), client, key, "/slow", "")
		got <- outcome{a, err}
	}()
	harness.Eventually(t, "the call is under way", func() bool {
		s, err := n.Client.Status(t.Context())
		return err == nil && s.InFlight == 1
	})
	n.Signal(syscall.SIGTERM)
	if o := <-got; o.err != nil || o.a.Body != "done" {
		t.Errorf("the call under way: %+v, %v", o.a, o.err)
	}
	if err := n.Wait(); err != nil {
		t.Errorf("the stop: %v\n%s", err, n.Output())
	}
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up("--drain", "300ms")
	n.MustDeploy(map[string]harness.Guest{"slow": {Body: "done", Millis: 60_000}}, func(s *apiSpec) {
		s.Config.TimeoutMillis = 120_000
	})
	key, client := n.InvokeKey(), n.HTTP()
	got := make(chan error, 1)
	go func() {
		a, err := n.Call(t.Context(), client, key, "/slow", "")
		if err == nil && a.Status == 200 {
			err = fmt.Errorf("answered %d %q after being cut off", a.Status, a.Body)
		} else {
			err = nil
		}
		got <- err
	}()
	harness.Eventually(t, "the call is under way", func() bool {
		s, err := n.Client.Status(t.Context())
		return err == nil && s.InFlight == 1
	})
	n.Signal(syscall.SIGTERM)
	if err := n.Wait(); err != nil {
		t.Errorf("the stop: %v\n%s", err, n.Output())
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}
