package process

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

func BenchmarkInvoke(b *testing.B) {
	guests, err := sandboxtest.BuildGo()
	if err != nil {
		b.Fatal(err)
	}
	path, err := staticBox()
	if err != nil {
		b.Fatal(err)
	}
	s := &sandboxtest.Store{}
	r := newRunner(b, s, func(c *Config) { c.Executable = path })
	build := &sandboxtest.Bench{Runner: r, Store: s, T: &testing.T{}}
	for _, g := range []struct {
		name  string
		code  []byte
		entry []sandboxtest.Option
	}{
		{"Tiny", sandboxtest.Hello(), nil},
		{"Echo", sandboxtest.Echo(), nil},
		{"GoCommand", guests.Command, nil},
		{"GoHandle", guests.Handle, []sandboxtest.Option{sandboxtest.Handle}},
	} {
		v := build.Version(g.code, g.entry...)
		if err := r.Prepare(context.Background(), v); err != nil {
			b.Fatal(err)
		}
		inv := &sandbox.Invocation{
			ID: "id", Version: v, Body: []byte("hello"),
			Head: sandbox.Head{ID: "id", Method: "POST", Path: "/", Headers: map[string][]string{"accept": {"*/*"}}, Trigger: "http"},
		}
		one := func(b *testing.B) {
			if _, err := r.Invoke(context.Background(), inv); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				one(b)
			}
		})
		b.Run(g.name+"Parallel", func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					one(b)
				}
			})
		})
	}
	if pid, ok := r.Process("alpha"); ok {
		b.Logf("after all: %s", pss(pid))
	}
}

func BenchmarkStart(b *testing.B) {
	path, err := staticBox()
	if err != nil {
		b.Fatal(err)
	}
	r := newRunner(b, &sandboxtest.Store{}, func(c *Config) { c.Executable = path; c.Warm = -1 })
	idle := ""
	for b.Loop() {
		p, err := r.start()
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if idle == "" {
			idle = pss(p.child.cmd.Process.Pid)
		}
		p.kill(reasonIdle)
		<-p.gone
		b.StartTimer()
	}
	b.Logf("idle: %s", idle)
}

// pss gives the lines of smaps_rollup that count.
func pss(pid int) string {
	text, err := os.ReadFile(proc(pid, "smaps_rollup"))
	if err != nil {
		return err.Error()
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Rss:") || strings.HasPrefix(line, "Pss:") || strings.HasPrefix(line, "Private_Dirty:") {
			kept = append(kept, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(kept, ", ")
}
