package process

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// script makes a version a script.
func script(v *function.Version) {
	v.Config.Runtime, v.Config.Entry = function.RuntimeJavaScript, function.EntryHandle
}

func withEngine(c *Config) {
	c.Engine = func() ([]byte, error) { return sandboxtest.Engine(), nil }
}

// loaded gives what the process of alpha holds under an id.
func loaded(t *testing.T, r *Runner, id function.Digest) *load {
	t.Helper()
	r.mu.Lock()
	tenant := r.tenants["alpha"]
	r.mu.Unlock()
	p := tenant.live()
	if p == nil {
		t.Fatal("no process serves alpha")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loads[id]
}

func TestScriptsShareOneEngine(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	for _, runtime := range []function.Runtime{function.RuntimeJavaScript, function.RuntimeTypeScript} {
		r := newRunner(t, s, withEngine, func(c *Config) { c.Code = code })
		b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
		var wg sync.WaitGroup
		for i := range 20 {
			source := fmt.Sprintf("export default %d", i/2)
			wg.Go(func() {
				v := b.Version([]byte(source), script, func(v *function.Version) { v.Config.Runtime = runtime })
				for range 3 {
					b.Want(v, source)
				}
			})
		}
		wg.Wait()
		// Beside a module of the developer's own.
		b.Want(b.Version(sandboxtest.Hello()), "hello")
		if base := loaded(t, r, baseID); base == nil || base.uses != 10 {
			t.Errorf("the base is %+v, want one that ten versions use", base)
		}
	}
	if n := code.compiled(); n != 2 {
		t.Errorf("compiled %d times, want the engine and the module once each", n)
	}
}

func TestWarmProcessHasTheEngine(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	code := &shelf{}
	newer := func() *Runner {
		return newRunner(t, s, func(c *Config) {
			withEngine(c)
			c.Code = code
		})
	}
	// Nobody has deployed a script yet, so nothing is compiled for one.
	r := newer()
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	b.Want(b.Version(sandboxtest.Hello()), "hello")
	if n := code.compiled(); n != 1 || r.runsScripts() {
		t.Errorf("compiled %d times, want the module alone", n)
	}
	b.Want(b.Version([]byte("1"), script), "1")

	r = newer() // the same node, started again
	b.Runner = r
	warm := func() *load {
		r.pool.mu.Lock()
		defer r.pool.mu.Unlock()
		for _, p := range r.pool.ready {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.loads[baseID]
		}
		return nil
	}
	ready := func(l *load) bool {
		if l == nil {
			return false
		}
		select {
		case <-l.done:
			return l.failure == nil
		default:
			return false
		}
	}
	var first *load
	eventually(t, "a process has the engine before anybody calls", func() bool { first = warm(); return ready(first) })
	b.Want(b.Version([]byte("1"), script), "1")
	if loaded(t, r, baseID) != first {
		t.Error("the namespace did not get the process that has the engine")
	}
	eventually(t, "so has the next one", func() bool { l := warm(); return l != first && ready(l) })
}

func TestScriptRefusals(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	for name, tc := range map[string]struct {
		engine  func() ([]byte, error)
		source  string
		options []sandboxtest.Option
		kind    sandbox.Kind
		says    string
	}{
		"no engine":           {nil, "1", nil, sandbox.BadModule, "no JavaScript"},
		"an engine not built": {func() ([]byte, error) { return nil, errors.New("run make build") }, "1", nil, sandbox.BadModule, "run make build"},
		"a broken engine":     {func() ([]byte, error) { return []byte("nonsense"), nil }, "1", nil, sandbox.Unavailable, "engine"},
		"an engine that is a command": {
			func() ([]byte, error) { return sandboxtest.Hello(), nil }, "1", nil, sandbox.Unavailable, "engine",
		},
		"a source it refuses": {
			func() ([]byte, error) { return sandboxtest.Engine(), nil }, "", nil, sandbox.BadModule, "initialised",
		},
		"too little memory": {
			func() ([]byte, error) { return sandboxtest.Engine(), nil },
			"1",
			[]sandboxtest.Option{sandboxtest.Limit(func(l *function.Limits) { l.Memory = 64 << 10 })},
			sandbox.Memory, "memory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &sandboxtest.Bench{T: t, Runner: newRunner(t, s, func(c *Config) { c.Engine = tc.engine }), Store: s}
			v := b.Version([]byte(tc.source), append([]sandboxtest.Option{script}, tc.options...)...)
			for range 2 {
				o := b.Invoke(v, "")
				if o.Err == nil {
					t.Fatalf("it ran: %q", o.Body)
				}
				b.WantKind(o, tc.kind)
				if !strings.Contains(o.Err.Public, tc.says) {
					t.Errorf("the refusal says %q", o.Err.Public)
				}
			}
			b.Want(b.Version(sandboxtest.Hello()), "hello")
		})
	}
}

func TestTamperedScriptIsRefused(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, withEngine)
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	v := b.Version([]byte("honest"), script)
	s.Replace(v.Artifact, []byte("hostile"))
	b.WantKind(b.Invoke(v, ""), sandbox.Tampered)
	s.Replace(v.Artifact, []byte("honest"))
	b.Want(v, "honest")
}

// TestEngineThatIsStaleIsMadeAnew: as any other module's code.
func TestEngineThatIsStaleIsMadeAnew(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	b := &sandboxtest.Bench{T: t, Runner: newRunner(t, s, func(c *Config) { c.Code = code }), Store: s}
	key := b.Runner.(*Runner).codeKey(function.DigestOf(sandboxtest.Engine()))
	if err := code.Put(key, []byte("of an earlier release")); err != nil {
		t.Fatal(err)
	}
	b.Runner = newRunner(t, s, withEngine, func(c *Config) { c.Code = code })
	b.Want(b.Version([]byte("1"), script), "1")
	if n := code.compiled(); n != 2 {
		t.Errorf("put %d times, want once by the test and once made anew", n)
	}
}

func TestUnusedVersionsAreUnloaded(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, withEngine, func(c *Config) { c.Clock, c.IdleVersion, c.IdleProcess = clock.Now, time.Hour, 24*time.Hour })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	rare, often, js := b.Version(sandboxtest.Hello()), b.Version(sandboxtest.Echo()), b.Version([]byte("1"), script)
	for _, v := range []*function.Version{rare, often, js} {
		if err := r.Prepare(context.Background(), v); err != nil {
			t.Fatal(err)
		}
	}
	pass := func(d time.Duration) {
		r.sweep()
		clock.move(d)
		if o := b.Invoke(often, ""); o.Err != nil || o.Usage.Cold {
			t.Errorf("the version in use: %v, cold %v", o.Err, o.Usage.Cold)
		}
		r.sweep()
	}
	has := func(v function.Digest) bool { return loaded(t, r, v) != nil }
	pass(59 * time.Minute)
	if !has(rare.ID) || !has(js.ID) || !has(baseID) {
		t.Error("something was unloaded too early")
	}
	pass(time.Minute)
	if has(rare.ID) || has(js.ID) {
		t.Error("versions that nobody used for an hour are still loaded")
	}
	if !has(often.ID) || !has(baseID) {
		t.Error("what was in use until now was unloaded")
	}
	pass(time.Hour)
	if has(baseID) {
		t.Error("the engine is still loaded though no script is")
	}
	for v, body := range map[*function.Version]string{rare: "hello", js: "1"} {
		if !b.Want(v, body).Usage.Cold {
			t.Error("a version came back without being loaded")
		}
		if b.Want(v, body).Usage.Cold {
			t.Error("a version that is loaded was cold")
		}
	}
}

func TestVersionInUseIsNotIdle(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Clock = clock.Now })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	v := b.Version(sandboxtest.Sleep(), sandboxtest.Within(time.Hour))
	if err := r.Prepare(context.Background(), v); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan sandboxtest.Outcome)
	go func() { ended <- b.InvokeContext(ctx, v, "") }()
	eventually(t, "it runs", func() bool { l := loaded(t, r, v.ID); return l != nil && inUse(t, r, l) })
	r.sweep()
	clock.move(24 * time.Hour)
	r.sweep()
	if loaded(t, r, v.ID) == nil {
		t.Error("a version was unloaded under its caller")
	}
	p := r.tenants["alpha"].live()
	if p.endIdle() {
		t.Error("a process was ended as an idle one under its caller")
	}
	stop()
	b.WantKind(<-ended, sandbox.Canceled)
	if loaded(t, r, v.ID) == nil {
		t.Error("a version that was in use until now was unloaded")
	}
	if !p.endIdle() {
		t.Error("a process that nobody uses cannot be ended")
	}
}

// inUse reports whether somebody holds a load of alpha's process.
func inUse(t *testing.T, r *Runner, l *load) bool {
	t.Helper()
	r.mu.Lock()
	p := r.tenants["alpha"].live()
	r.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.uses > 0 && len(p.calls) > 0
}

func TestUnusedProcessEnds(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	s, code := &sandboxtest.Store{}, &shelf{}
	r := newRunner(t, s, func(c *Config) { c.Clock, c.Code = clock.Now, code })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	quiet, busy := b.Version(sandboxtest.Hello()), b.Version(sandboxtest.Hello(), sandboxtest.In("busy"))
	b.Want(quiet, "hello")
	b.Want(busy, "hello")
	r.sweep()
	clock.move(DefaultIdleProcess - 1)
	b.Want(busy, "hello")
	r.sweep()
	if _, ok := r.Process("alpha"); !ok {
		t.Fatal("a process ended too early")
	}
	clock.move(1)
	r.sweep()
	if _, ok := r.Process("alpha"); ok {
		t.Error("a process that nobody used is still there")
	}
	if _, ok := r.Process("busy"); !ok {
		t.Error("the process in use ended")
	}
	eventually(t, "a process waits for the next namespace, and alpha has none", func() bool { all, warm := r.Count(); return all == 2 && warm == 1 })
	if !b.Want(quiet, "hello").Usage.Cold {
		t.Error("a call that got a new process was not cold")
	}
	if b.Want(quiet, "hello").Usage.Cold {
		t.Error("the next call was cold")
	}
	if n := code.compiled(); n != 1 {
		t.Errorf("compiled %d times", n)
	}
}

// TestProcessDoesNotEndUnderACall sweeps all the time, with bounds of nothing, while
// functions are called: no caller may notice.
func TestProcessDoesNotEndUnderACall(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, withEngine, func(c *Config) { c.IdleVersion, c.IdleProcess = 1, 1 })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	stop := make(chan struct{})
	var sweeping, calling sync.WaitGroup
	sweeping.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				r.sweep()
			}
		}
	})
	for i := range 3 {
		calling.Go(func() {
			v := b.Version(fmt.Appendf(nil, "%d", i), script, sandboxtest.In(fmt.Sprintf("ns%d", i%2)))
			for range 30 {
				// Twice in a row may a process end before the guest is reached; then the
				// caller is told. Never after.
				if o := b.Invoke(v, ""); o.Err != nil && (o.Err.Kind != sandbox.Lost || o.Usage.BytesOut > 0) {
					t.Errorf("calling: %v", o.Err)
				}
			}
		})
	}
	calling.Wait()
	close(stop)
	sweeping.Wait()
}
