package nativetest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
)

// Harness says what to run the suite on.
type Harness struct {
	// Launcher makes one, which the Runner closes.
	Launcher func(t *testing.T) native.Launcher
	// Confined says that it locks code in: memory, processes and files are bounded.
	Confined bool
	// Kernel says that the code has a kernel of its own: it sees another /proc, and starts
	// and answers more slowly.
	Kernel bool

	code []byte
}

// hang is how long the suite waits for what must come: only a failure reaches it.
const hang = 2 * time.Minute

// Memory is what the suite's Runner may claim, in bytes.
const Memory = 1 << 30

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	h.code = Archive(t, map[string][]byte{"bootstrap": Guest(t)})
	for name, test := range map[string]func(*Bench){
		"echo": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"a":1}`)
			b.Want(o, `{"a":1}`)
			if !o.Usage.Cold || o.Usage.Sandbox == "" || !strings.Contains(o.Usage.Kind, "instance") || o.Usage.BytesOut != 7 || o.Usage.Wall <= 0 {
				b.T.Errorf("usage %+v", o.Usage)
			}
			if len(o.Log) != 1 || o.Log[0] != "guest begins" {
				b.T.Errorf("log %q", o.Log)
			}
			again := b.Invoke(v, `[]`)
			b.Want(again, `[]`)
			if again.Usage.Cold || again.Usage.Sandbox != o.Usage.Sandbox || len(again.Log) != 0 {
				b.T.Errorf("the second time: %+v, log %q", again.Usage, again.Log)
			}
		},
		"server": func(b *Bench) {
			v := b.Version(HTTP)
			for range 3 {
				o := b.Invoke(v, `{"do":"print","text":"hello log"}`)
				b.Want(o, `"done"`)
				if o.Response.Status != 200 || strings.Join(o.Response.Headers["x-path"], "") != "/some/path" || !strings.Contains(strings.Join(o.Log, "\n"), "hello log") {
					b.T.Errorf("answer %+v, log %q", o.Response, o.Log)
				}
			}
			o := b.Invoke(v, `{"do":"fail","text":"no"}`)
			if o.Err != nil || o.Response.Status != 500 {
				b.T.Errorf("a server's own error is its answer: %+v %v", o.Response, o.Err)
			}
			b.WantKind(b.Invoke(v, `{"do":"exit","n":4}`), sandbox.Exit)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"state stays with instance isolation": func(b *Bench) {
			v := b.Version()
			b.Invoke(v, `{"do":"keep","text":"one"}`)
			b.Want(b.Invoke(v, `{"do":"keep","text":"two"}`), `{"count":2,"was":"one+one"}`)
		},
		"no state crosses with invocation isolation": func(b *Bench) {
			v := b.Version(Fresh)
			boxes := map[string]bool{}
			for range 6 {
				o := b.Invoke(v, `{"do":"keep","text":"secret"}`)
				b.Want(o, `{"count":1,"was":""}`)
				if boxes[o.Usage.Sandbox] {
					b.T.Errorf("sandbox %s served twice", o.Usage.Sandbox)
				}
				boxes[o.Usage.Sandbox] = true
			}
		},
		"namespaces, functions and versions share no sandbox": func(b *Bench) {
			boxes := map[string]string{}
			for name, v := range map[string]*function.Version{
				"alpha": b.Version(), "beta": b.Version(In("beta")), "another version": b.Version(Env(map[string]string{"A": "1"})),
				"another function": b.Version(func(v *function.Version) { v.Name = "other" }),
			} {
				o := b.Invoke(v, `{"do":"keep","text":"secret of `+name+`"}`)
				b.Want(o, `{"count":1,"was":""}`)
				if other, taken := boxes[o.Usage.Sandbox]; taken {
					b.T.Errorf("%s and %s share sandbox %s", name, other, o.Usage.Sandbox)
				}
				boxes[o.Usage.Sandbox] = name
			}
		},
		"two aliases of one version share no sandbox": func(b *Bench) {
			v := b.Version()
			for _, alias := range []string{"live", "beta"} {
				o := b.invokeBy(b.T.Context(), alias, v, `{"do":"keep","text":"secret of `+alias+`"}`, func(string) {})
				b.Want(o, `{"count":1,"was":""}`)
			}
			// A version by its digits is what live is.
			b.Want(b.Invoke(v, `{"do":"keep","text":"x"}`), `{"count":2,"was":"secret of live+secret of live"}`)
		},
		"a reported failure": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"do":"fail","text":"my reason"}`)
			b.WantKind(o, sandbox.Fault)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), "my reason") {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			again := b.Invoke(v, `1`)
			b.Want(again, `1`)
			if again.Usage.Sandbox != o.Usage.Sandbox {
				b.T.Error("a reported failure cost the sandbox")
			}
		},
		"code that ends after the failure it reported": func(b *Bench) {
			v := b.Version()
			for range 3 {
				b.WantKind(b.Invoke(v, `{"do":"fail","text":"fatal"}`), sandbox.Fault)
				b.Want(b.Invoke(v, `1`), `1`)
			}
		},
		"exit and signal": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"do":"exit","n":7}`)
			b.WantKind(o, sandbox.Exit)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), "exit status 7") {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			b.WantKind(b.Invoke(v, `{"do":"signal"}`), sandbox.Exit)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"time limit": func(b *Bench) {
			limit, said := 200*time.Millisecond, "timed out after 0.20 seconds"
			if b.kernel {
				limit, said = 2*time.Second, "timed out after 2.00 seconds"
			}
			v := b.Version(Limit(func(l *function.Limits) { l.Timeout = limit }))
			b.WantSoon(v, sandbox.Timeout)
			o := b.Invoke(v, `{"do":"sleep","millis":600000}`)
			b.WantKind(o, sandbox.Timeout)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), said) {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			b.WantSoon(v, sandbox.Timeout)
		},
		"limit on processor time": func(b *Bench) {
			limit := 200 * time.Millisecond
			if b.kernel { // which takes some of it for itself, more where the machine is busy
				limit = 2 * time.Second
			}
			v := b.Version(Limit(func(l *function.Limits) { l.CPU = limit }))
			o := b.Invoke(v, `{"do":"spin","millis":600000}`)
			b.WantKind(o, sandbox.CPU)
			if o.Usage.CPU < limit*3/4 {
				b.T.Errorf("%v of processor time on record", o.Usage.CPU)
			}
			b.WantSoon(v, sandbox.CPU)
		},
		"caller goes away": func(b *Bench) {
			for _, v := range []*function.Version{b.Version(), b.Version(HTTP)} {
				b.Want(b.Invoke(v, `{"do":"keep","text":"one"}`), `{"count":1,"was":""}`)
				const work = 3 * time.Second // in which its caller is gone, however late that is noticed
				left := b.leave(v, work)
				b.WantKind(left, sandbox.Canceled)
				if left.Usage.Wall < work {
					b.T.Errorf("the code was stopped after %v because its caller had gone", left.Usage.Wall)
				}
				again := b.Invoke(v, `1`)
				b.Want(again, `1`)
				if again.Usage.Sandbox != left.Usage.Sandbox || left.Usage.Sandbox == "" {
					b.T.Error("a caller that went away cost the sandbox")
				}
			}
		},
		"caller goes away from code that does not end": func(b *Bench) {
			v := b.Version(Limit(func(l *function.Limits) { l.Timeout = 4 * time.Second }))
			b.WantSoon(v, sandbox.Timeout)
			left := b.leave(v, time.Hour)
			b.WantKind(left, sandbox.Canceled)
			b.WantSoon(v, sandbox.Timeout)
			if again := b.Invoke(v, `1`); again.Usage.Sandbox == left.Usage.Sandbox {
				b.T.Error("a sandbox that was stopped in the middle serves again")
			}
		},
		"caller goes away with invocation isolation": func(b *Bench) {
			v := b.Version(Fresh)
			b.Want(b.Invoke(v, `1`), `1`)
			b.WantKind(b.leave(v, time.Hour), sandbox.Canceled)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"answer too large": func(b *Bench) {
			for _, v := range []*function.Version{b.Version(), b.Version(HTTP)} {
				b.WantKind(b.Invoke(v, `{"do":"output","n":2000000}`), sandbox.Output)
				b.Want(b.Invoke(v, `1`), `1`)
			}
		},
		"log flood": func(b *Bench) {
			v := b.Version(Limit(func(l *function.Limits) { l.Log = 1000 }))
			o := b.Invoke(v, `{"do":"log","n":20000}`)
			b.Want(o, `"done"`)
			if o.Usage.LogBytes > 1000 || o.Usage.LogDropped < 1_900_000 {
				b.T.Errorf("kept %d, dropped %d", o.Usage.LogBytes, o.Usage.LogDropped)
			}
		},
		"code that does not start": func(b *Bench) {
			for name, v := range map[string]*function.Version{
				"exits":         b.Version(Env(map[string]string{"GUEST_EXIT": "1"})),
				"no bootstrap":  b.VersionOf(Archive(b.T, map[string][]byte{"main": []byte("x")})),
				"not a program": b.VersionOf(Archive(b.T, map[string][]byte{"bootstrap": []byte("\x7fELF nonsense")})),
				"no archive":    b.VersionOf([]byte("PK nonsense")),
			} {
				var e *sandbox.Error
				if err := b.Runner.Prepare(b.T.Context(), v); !errors.As(err, &e) || e.Kind != sandbox.BadModule || e.Public == "" {
					b.T.Errorf("%s: %v", name, err)
				} else if name == "exits" && (!strings.Contains(e.Public, "the configuration is wrong") || !strings.Contains(e.Public, "exit status 3")) {
					b.T.Errorf("%s: %q", name, e.Public)
				}
			}
		},
		"tampered code": func(b *Bench) {
			v := b.Version()
			b.Store.Replace(v.Artifact, Archive(b.T, map[string][]byte{"bootstrap": []byte("#!/bin/sh\n")}))
			b.WantKind(b.Invoke(v, `1`), sandbox.Tampered)
		},
		"many at once": func(b *Bench) {
			v := b.Version()
			var all sync.WaitGroup
			var served atomic.Int32
			for range 24 {
				all.Go(func() {
					o := b.Invoke(v, `{"do":"sleep","millis":300}`)
					if o.Kind() == sandbox.Unavailable {
						return // shed: there is memory for eight
					}
					b.Want(o, `"done"`)
					served.Add(1)
				})
			}
			all.Wait()
			running, idle, claimed, budget := b.Runner.Load()
			for began := time.Now(); running != idle && time.Since(began) < hang; { // one may still be starting
				<-time.After(10 * time.Millisecond)
				running, idle, claimed, budget = b.Runner.Load()
			}
			if served.Load() < 8 || running > 8 || running != idle || claimed > budget {
				b.T.Errorf("%d served; %d run and %d wait, %d bytes claimed, with memory for 8", served.Load(), running, idle, claimed)
			}
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"idle ones give way": func(b *Bench) {
			// Each wants half of the memory; three of them want it in turn.
			half := Limit(func(l *function.Limits) { l.Memory = Memory / 2 })
			var all []*function.Version
			for _, n := range []string{"1", "2", "3"} {
				all = append(all, b.Version(half, Env(map[string]string{"N": n})))
			}
			for range 2 {
				for _, v := range all {
					b.Want(b.Invoke(v, `1`), `1`)
				}
			}
		},
		"a namespace leaves room for others": func(b *Bench) {
			quarter := Limit(func(l *function.Limits) { l.Memory = Memory / 4 })
			mine, theirs := b.Version(quarter), b.Version(quarter, In("beta"))
			b.Want(b.Invoke(theirs, `1`), `1`)
			var all sync.WaitGroup
			var shed atomic.Int32
			for range 4 {
				all.Go(func() {
					// Until they meet: on a busy machine not the first time.
					for began := time.Now(); shed.Load() == 0 && time.Since(began) < hang; {
						if o := b.Invoke(mine, `{"do":"sleep","millis":500}`); o.Kind() == sandbox.Unavailable {
							shed.Add(1)
						}
					}
				})
			}
			b.Want(b.Invoke(theirs, `1`), `1`)
			all.Wait()
			if shed.Load() == 0 {
				b.T.Error("one namespace got all of the memory beside another")
			}
		},
		"retired": func(b *Bench) {
			v := b.Version()
			b.Want(b.Invoke(v, `1`), `1`)
			b.Runner.Retire(v.Namespace, v.ID)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"the environment is ours alone": func(b *Bench) {
			f := b.Facts(b.Version(Env(map[string]string{"MINE": "1", "AWS_LAMBDA_RUNTIME_API": "10.0.0.1:80", "PATH": "/mine"})))
			seen := map[string]string{}
			for _, e := range f.Env {
				name, value, _ := strings.Cut(e, "=")
				if _, twice := seen[name]; twice {
					b.T.Errorf("%s is there twice", name)
				}
				seen[name] = value
			}
			if seen["MINE"] != "1" || seen["PATH"] != "/mine" || seen["AWS_LAMBDA_RUNTIME_API"] == "10.0.0.1:80" || seen["_HANDLER"] == "" {
				b.T.Errorf("environment %v", f.Env)
			}
			for name := range seen {
				if strings.HasPrefix(name, "GO") && name != "GOMEMLIMIT" || name == "USER" || strings.Contains(name, "ACCESS_KEY") {
					b.T.Errorf("%s is in the environment", name)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(New(t, h))
		})
	}
	if h.Confined {
		confined(t, h)
	}
}
