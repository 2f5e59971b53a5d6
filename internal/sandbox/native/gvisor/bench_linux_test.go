package gvisor_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/boxed"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// BenchmarkGVisor measures an invocation of a Go program in a sandbox that is there
// (warm), and from no sandbox to an answer (cold), in gVisor and in a plain box.
func BenchmarkGVisor(b *testing.B) {
	program, stub := runsc(b), nativetest.Stub(b)
	archive := nativetest.Archive(b, map[string][]byte{"bootstrap": nativetest.Guest(b)})
	plain := func(b *testing.B) native.Launcher {
		b.Helper()
		broker, err := box.Open(context.Background(), box.Config{Program: stub, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		l, err := boxed.New(broker)
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	for _, c := range []struct {
		name string
		make func(*testing.B) native.Launcher
	}{
		{"gvisor", func(b *testing.B) native.Launcher { b.Helper(); return launcher(b, program, stub) }}, {"box", plain},
	} {
		b.Run(c.name, func(b *testing.B) { bench(b, c.make(b), archive) })
	}
}

func bench(b *testing.B, l native.Launcher, archive []byte) {
	b.Helper()
	store := &sandboxtest.Store{}
	v := &function.Version{
		Ref: function.Ref{Namespace: "alpha", Name: "guest"}, Artifact: store.Put(archive),
		Config: function.Config{
			Runtime: function.RuntimeProvided, Isolation: function.IsolationInstance,
			Limits: function.Limits{
				Memory: 128 << 20, Timeout: 20 * time.Second, CPU: 20 * time.Second, Output: 1 << 20, Log: 64 << 10, Concurrency: 1,
				Scratch: 16 << 20, Processes: 64,
			},
		},
	}
	var err error
	if v.ID, err = function.VersionID(v.Artifact, v.Config); err != nil {
		b.Fatal(err)
	}
	r, err := native.New(native.Config{
		Launcher: l, Artifacts: store, Memory: 1 << 30, Starts: 4, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Close() })
	var took []time.Duration
	invoke := func(b *testing.B, cold bool) {
		b.Helper()
		began := time.Now()
		res, err := r.Invoke(b.Context(), &sandbox.Invocation{
			ID: "receipt-1", Version: v, Body: []byte(`1`), Log: func(sandbox.LogLine) {},
			Head: sandbox.Head{ID: "request-1", Method: "POST", Path: "/", Trigger: "invoke", Caller: "test"},
		})
		took = append(took, time.Since(began))
		if err != nil || cold && !res.Usage.Cold {
			b.Fatalf("cold: %t, %v", res.Usage.Cold, err)
		}
	}
	report := func(b *testing.B) {
		b.Helper()
		slices.Sort(took)
		b.ReportMetric(took[0].Seconds()*1000, "min-ms")
		b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	}
	b.Run("warm", func(b *testing.B) {
		r.Retire(v.Namespace, v.ID)
		invoke(b, true)
		took = nil
		for b.Loop() {
			invoke(b, false)
		}
		report(b)
	})
	b.Run("cold", func(b *testing.B) {
		took = nil
		for b.Loop() {
			r.Retire(v.Namespace, v.ID)
			invoke(b, true)
		}
		report(b)
	})
}
