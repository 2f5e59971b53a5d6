package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// hostile gives a process whose other end is the test's: what a sandbox could do
// whose guest got out of the engine.
func hostile(t testing.TB) *process {
	t.Helper()
	p := &process{
		runner: &Runner{logger: slog.New(slog.NewTextHandler(io.Discard, nil))},
		calls:  map[uint32]*call{}, loads: map[function.Digest]*load{}, byStream: map[uint32]*load{},
	}
	p.calls[1] = &call{
		inv: &sandbox.Invocation{Log: func(sandbox.LogLine) {}}, done: make(chan struct{}, 1),
		limit: function.Limits{Output: 1000, Log: 100},
	}
	p.byStream[2] = &load{stream: 2, done: make(chan struct{}), answer: make(chan *sandbox.Error, 1)}
	p.making = &making{stream: 3, done: make(chan struct{})}
	return p
}

func outcome(bytesOut int64, rest string) []byte {
	return append(wire.AppendOutcome(nil, wire.Outcome{BytesOut: bytesOut}), rest...)
}

func TestSandboxThatBreaksTheProtocolIsRefused(t *testing.T) {
	t.Parallel()
	longLine := bytes.Repeat([]byte("x"), 101)
	for name, frames := range map[string][]wire.Frame{
		"a stream nobody opened":      {{Type: wire.Result, Stream: 9, Payload: outcome(0, "")}},
		"a log nobody opened":         {{Type: wire.Log, Stream: 9}},
		"a load nobody asked for":     {{Type: wire.Loaded, Stream: 1, Payload: []byte("{}")}},
		"a node's frame":              {{Type: wire.Invoke, Stream: 1}},
		"ready twice":                 {{Type: wire.Ready, Payload: []byte("{}")}},
		"an answer over the limit":    {{Type: wire.Result, Stream: 1, Payload: outcome(1000+sandbox.MaxHeadLine+2, "")}},
		"more than announced":         {{Type: wire.Result, Stream: 1, Payload: outcome(3, "abcd")}},
		"more than announced, later":  {{Type: wire.Result, Stream: 1, Payload: outcome(3, "a")}, {Type: wire.Answer, Stream: 1, Payload: []byte("bcd")}},
		"an answer without beginning": {{Type: wire.Answer, Stream: 1, Payload: []byte("a")}},
		"an answer that ends twice":   {{Type: wire.Result, Stream: 1, Payload: outcome(1, "a")}, {Type: wire.Result, Stream: 1, Payload: outcome(1, "a")}},
		"two beginnings":              {{Type: wire.Result, Stream: 1, Payload: outcome(9, "a")}, {Type: wire.Result, Stream: 1, Payload: outcome(9, "a")}},
		"a short outcome":             {{Type: wire.Result, Stream: 1, Payload: []byte("abc")}},
		"a negative outcome":          {{Type: wire.Result, Stream: 1, Payload: wire.AppendOutcome(nil, wire.Outcome{CPU: -1})}},
		"a log over the limit":        {{Type: wire.Log, Stream: 1, Payload: wire.AppendLine(nil, 0, longLine)}},
		"a log line cut off":          {{Type: wire.Log, Stream: 1, Payload: wire.AppendLine(nil, 0, longLine)[:50]}},
		"a failure it may not claim":  {{Type: wire.Failed, Stream: 1, Payload: outcome(0, `{"kind":"lost"}`)}},
		"a failure that is not JSON":  {{Type: wire.Failed, Stream: 1, Payload: outcome(0, `{`)}},
		"a load of negative cost":     {{Type: wire.Loaded, Stream: 2, Payload: []byte(`{"cost":-1}`)}},
		"code nobody asked for":       {{Type: wire.Compiled, Stream: 2, Payload: []byte(`{"size":1}`)}},
		"code of no size":             {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":0}`)}},
		"code of negative size":       {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":-1}`)}},
		"code over the limit":         {{Type: wire.Compiled, Stream: 3, Payload: fmt.Appendf(nil, `{"size":%d}`, wire.MaxCompiled+1)}},
		"code that is not JSON":       {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{`)}},
		"code without announcement":   {{Type: wire.Machine, Stream: 3, Payload: []byte("a")}},
		"code announced twice":        {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":9}`)}, {Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":9}`)}},
		"more code than announced":    {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":2}`)}, {Type: wire.Machine, Stream: 3, Payload: []byte("abc")}},
		"code after its end":          {{Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":2}`)}, {Type: wire.Machine, Stream: 3, Payload: []byte("ab")}, {Type: wire.Machine, Stream: 3, Payload: []byte("c")}},
		"code after a refusal":        {{Type: wire.LoadFailed, Stream: 3, Payload: []byte(`{"kind":"bad-module"}`)}, {Type: wire.Compiled, Stream: 3, Payload: []byte(`{"size":2}`)}},
		"loaded, when it compiles":    {{Type: wire.Loaded, Stream: 3, Payload: []byte("{}")}},
		"loaded twice":                {{Type: wire.Loaded, Stream: 2, Payload: []byte("{}")}, {Type: wire.Loaded, Stream: 2, Payload: []byte("{}")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := hostile(t)
			var err error
			for i, f := range frames {
				err = p.handle(f)
				if err != nil && i < len(frames)-1 {
					t.Fatalf("frame %d was refused already: %v", i, err)
				}
			}
			if err == nil {
				t.Error("the node believed it")
			}
		})
	}
}

// FuzzFromSandbox feeds the node's side whatever a sandbox could send.
func FuzzFromSandbox(f *testing.F) {
	f.Add(wire.AppendFrame(nil, wire.Result, 1, outcome(3, "{}\n")))
	f.Add(wire.AppendFrame(nil, wire.Failed, 1, outcome(0, `{"kind":"trap","public":"x"}`)))
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, wire.Compiled, 3, []byte(`{"size":3}`)), wire.Machine, 3, []byte("abc")))
	f.Add(wire.AppendFrame(wire.AppendFrame(nil, wire.Log, 1, wire.AppendLine(nil, 1, []byte("hi"))), wire.Loaded, 2, []byte(`{"cost":1}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := hostile(t)
		c, m := p.calls[1], p.making
		r := wire.NewReader(bytes.NewReader(data))
		for {
			frame, err := r.Next()
			if err != nil || p.handle(frame) != nil {
				break
			}
		}
		if int64(cap(c.out)) > c.limit.Output+sandbox.MaxHeadLine+1 || c.log > c.limit.Log {
			t.Errorf("%d bytes of answer and %d of log were kept", cap(c.out), c.log)
		}
		if int64(len(m.code)) > m.want {
			t.Errorf("%d bytes of code were kept, %d were announced", len(m.code), m.want)
		}
		_, _ = c.result()
	})
}

// FuzzSplitAnswer feeds the reader of answers what a guest could write.
func FuzzSplitAnswer(f *testing.F) {
	f.Add([]byte("{\"status\":200,\"headers\":{\"a\":\"b\",\"c\":[\"d\"]}}\nbody"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, out []byte) {
		head, body, err := splitAnswer(out)
		if err != nil {
			return
		}
		if head.Status < 200 || head.Status > 599 || len(body) > len(out) {
			t.Errorf("accepted %+v with %d bytes of body", head, len(body))
		}
		for name, vs := range head.Headers {
			if name != strings.ToLower(name) || strings.ContainsAny(name+strings.Join(vs, ""), "\r\n\x00") {
				t.Errorf("accepted header %q: %q", name, vs)
			}
		}
	})
}

// TestGuestsShareABudget runs more guests at once than the process may hold.
func TestGuestsShareABudget(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Memory = 64 << 20 })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	v := b.Version(sandboxtest.Greedy(900)) // 56 MiB each
	if o := b.Invoke(v, ""); o.Err != nil {
		t.Fatalf("one alone: %v", o.Err)
	}
	b.WantKind(b.Invoke(b.Version(sandboxtest.Greedy(1025), sandboxtest.Limit(func(l *function.Limits) { l.Memory = 128 << 20 })), ""), sandbox.Unavailable)
	if o := b.Invoke(v, ""); o.Err != nil {
		t.Fatalf("the refused guest left the budget smaller: %v", o.Err)
	}
}

func TestTamperedArtifactIsRefusedBeforeItIsHandedOver(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	var log bytes.Buffer
	r := newRunner(t, s, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	v := b.Version(sandboxtest.Hello())
	s.Replace(v.Artifact, append(sandboxtest.Hello(), 0))
	b.WantKind(b.Invoke(v, ""), sandbox.Tampered)
	if !strings.Contains(log.String(), string(v.Artifact)) || !strings.Contains(log.String(), "reading it from the store") {
		t.Errorf("nobody was told: %s", log.String())
	}
}

// killer is a store that ends the process for which it is asked, once.
type killer struct {
	*sandboxtest.Store
	once sync.Once
	kill func()
}

func (k *killer) Artifact(ctx context.Context, d function.Digest) ([]byte, error) {
	k.once.Do(k.kill)
	return k.Store.Artifact(ctx, d)
}

// TestCallBeforeTheGuestStartedIsRepeated loses the sandbox while the version is
// being loaded: the guest never started, so the caller need not know.
func TestCallBeforeTheGuestStartedIsRepeated(t *testing.T) {
	t.Parallel()
	k := &killer{Store: &sandboxtest.Store{}}
	r := newRunner(t, k)
	k.kill = func() { kill(t, r, "alpha") }
	b := &sandboxtest.Bench{T: t, Runner: r, Store: k.Store}
	if u := b.Want(b.Version(sandboxtest.Hello()), "hello").Usage; !u.Cold {
		t.Errorf("usage says %+v", u)
	}
}

func TestUnusedVersionsMakeWay(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.ModuleBytes = 2 << 20 })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	first := b.Version(sandboxtest.Hello(), sandboxtest.Env(map[string]string{"N": "0"}))
	b.Want(first, "hello")
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		b.Want(b.Version(sandboxtest.Hello(), sandboxtest.Env(map[string]string{"N": n})), "hello")
	}
	if !b.Want(first, "hello").Usage.Cold {
		t.Error("six versions are loaded where three have room")
	}
	if b.Want(first, "hello").Usage.Cold {
		t.Error("the version used last was dropped")
	}
}

func TestIdleNamespaceMakesWay(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.MaxSandboxes = 2 })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	for _, ns := range []string{"one", "two", "three"} {
		b.Want(b.Version(sandboxtest.Hello(), sandboxtest.In(ns)), "hello")
	}
	eventually(t, "the oldest namespace has lost its process", func() bool { _, ok := r.Process("one"); return !ok })
	for _, ns := range []string{"two", "three"} {
		if _, ok := r.Process(ns); !ok {
			t.Errorf("%s lost its process", ns)
		}
	}
	b.Want(b.Version(sandboxtest.Hello(), sandboxtest.In("one")), "hello")
}

func TestBadConfigurationNamesFieldAndRemedy(t *testing.T) {
	t.Parallel()
	good := Config{Artifacts: &sandboxtest.Store{}, Code: &shelf{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: time.Now}
	for field, spoil := range map[string]func(*Config){
		"Artifacts": func(c *Config) { c.Artifacts = nil }, "Code": func(c *Config) { c.Code = nil }, "Logger": func(c *Config) { c.Logger = nil },
		"Clock": func(c *Config) { c.Clock = nil }, "Warm": func(c *Config) { c.Warm = -2 },
		"bound": func(c *Config) { c.Grace = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "give") {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := good
	c.Executable = os.DevNull
	if _, err := New(c); err == nil {
		t.Error("a program that is none was accepted")
	}
}
