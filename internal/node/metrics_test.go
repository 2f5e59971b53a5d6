package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/registry"
)

// during starts a node on dir, and stops it when do has ended.
func during(t *testing.T, dir, key string, do func(r Ready, c *api.Client) error) {
	t.Helper()
	enough := errors.New("enough seen")
	_, err := once(t, Options{DataDir: dir, AdminKey: key, Ready: func(r Ready) error {
		if key != "" {
			r.AdminKey = key
		}
		c, err := api.NewClient(api.Options{URL: r.ControlURL, CA: r.CA, Key: r.AdminKey})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := do(r, c); err != nil {
			return err
		}
		return enough
	}})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

func TestScrapeTellsOfDamage(t *testing.T) {
	t.Parallel()
	dir, key := filepath.Join(t.TempDir(), "data"), ""
	during(t, dir, "", func(r Ready, c *api.Client) error {
		key = r.AdminKey
		stored, err := c.Publish(t.Context(), "default", "orders", api.Publish{Events: []api.EventIn{{ID: "whole", Type: "t"}, {ID: "hurt", Type: "t"}}})
		if err != nil || len(stored) != 2 {
			return fmt.Errorf("%+v, %v", stored, err)
		}
		return wantMeasures(t, r, map[string]float64{"casemate_corruption_total": 0, "casemate_warnings": 0})
	})
	flipLast(t, dir)
	during(t, dir, key, func(r Ready, c *api.Client) error {
		for range 2 { // what is met again counts once
			if l, err := c.Events(t.Context(), "default", api.EventQuery{Topic: "orders"}); err != nil || len(l.Items) != 1 || l.Items[0].ID != "whole" {
				return fmt.Errorf("reading the events: %+v, %v", l, err)
			}
		}
		s, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		if len(s.Warnings) == 0 {
			return errors.New("the status warns of nothing")
		}
		return wantMeasures(t, r, map[string]float64{"casemate_corruption_total": 1, "casemate_warnings": float64(len(s.Warnings))})
	})
}

// flipLast turns a bit over in the last event of a node that does not run.
func flipLast(t *testing.T, dir string) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "bus", "jetstream", "*", "streams", "EVENTS_events", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	b, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-30] ^= 0x10
	if err := os.WriteFile(blocks[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantMeasures scrapes the node over TLS, with a key, and reads what has no labels.
func wantMeasures(t *testing.T, r Ready, want map[string]float64) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.ControlURL+"/v1/metrics", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.AdminKey)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.CA)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	got, d := map[string]float64{}, &expfmt.SampleDecoder{Dec: expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header)), Opts: &expfmt.DecodeOptions{}}
	for err == nil {
		var v model.Vector
		if err = d.Decode(&v); err == nil {
			for _, s := range v {
				got[s.Metric.String()] = float64(s.Value)
			}
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	for name, v := range want {
		if is, there := got[name]; !there || is != v {
			return fmt.Errorf("%s is %v (%v), want %v", name, is, there, v)
		}
	}
	return nil
}

// BenchmarkScrape is one scrape of a node with 1,000 triggers that have sources. Asked anew
// is after the answers of the bus were forgotten; shared is within two seconds of another.
func BenchmarkScrape(b *testing.B) {
	const functions, each = 20, function.MaxTriggers
	var ahead atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n := &node{
		opts:  Options{DataDir: filepath.Join(b.TempDir(), "data"), Gateway: "127.0.0.1:0", Control: "127.0.0.1:0", Executable: filepath.Join(b.TempDir(), "casemate"), Runner: still{}, Drain: DefaultDrain},
		log:   slog.New(slog.DiscardHandler),
		clock: clock, began: clock(), ids: &ids{clock: clock},
	}
	defer func() {
		if err := n.stop(); err != nil {
			b.Error(err)
		}
	}()
	if err := n.start(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := deployTriggers(b.Context(), n, functions, each); err != nil {
		b.Fatal(err)
	}
	for _, k := range n.delivery.Keys() { // their consumers are there
		for st, err := n.delivery.Status(b.Context(), k); !st.Running; st, err = n.delivery.Status(b.Context(), k) {
			if err != nil || b.Context().Err() != nil {
				b.Fatal(k, err)
			}
		}
	}
	scrape := func() string {
		req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "https://node/v1/metrics", nil)
		req.Header.Set("Authorization", "Bearer "+n.issuedKey)
		w := httptest.NewRecorder()
		n.control.ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
		return w.Body.String()
	}
	for name, forget := range map[string]time.Duration{"anew": time.Minute, "shared": 0} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			text, before := "", processorTime(b)
			for b.Loop() {
				ahead.Add(int64(forget))
				text = scrape()
			}
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/scrape")
			if got := strings.Count(text, "casemate_events_waiting{"); got != functions*each {
				b.Errorf("%d triggers were measured", got)
			}
			b.ReportMetric(float64(len(text)), "bytes/scrape")
			b.ReportMetric(float64(strings.Count(text, "\ncasemate_")), "series/scrape")
		})
	}
}

// processorTime is what the process has used, of the system's time too.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// deployTriggers deploys functions with so many schedules each, of a day that is far away.
func deployTriggers(ctx context.Context, n *node, functions, each int) error {
	code := function.DigestOf([]byte("x"))
	if err := n.registry.PutArtifact(ctx, code, 1, strings.NewReader("x")); err != nil {
		return err
	}
	var specs []registry.Spec
	for i := range functions {
		cfg := function.Config{Runtime: function.RuntimeGo, Entry: function.EntryCommand, Isolation: function.IsolationInvocation}
		cfg.Limits = function.Limits{Memory: function.DefaultMemory, Timeout: time.Second, Output: 1 << 10, Log: 1 << 10, Concurrency: 1}
		for j := range each {
			cfg.Triggers = append(cfg.Triggers, function.Trigger{
				Name: fmt.Sprintf("t%02d", j), Kind: "schedule", Settings: []byte(`{"at":"2199-01-01T00:00:00Z"}`), NoSchema: "it never comes",
			})
		}
		specs = append(specs, registry.Spec{Name: "f" + strconv.Itoa(i), Artifact: code, Size: 1, Config: cfg})
	}
	plan, err := n.registry.Plan(ctx, "default", "live", specs)
	if err != nil {
		return err
	}
	_, err = n.registry.Apply(ctx, plan, specs, "test")
	return err
}
