package e2e

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/test/harness"
)

// manySandboxes is how many of the largest sandboxes a test may fill a machine with.
const manySandboxes = 40

// TestNativeOverloadShedsAndIsFair fills what native sandboxes may claim of the machine's
// memory from one namespace, and calls from another. Whoever is turned away is told when
// to come again; the second namespace gets its answers while the first goes on; nothing
// is claimed beyond the bound.
func TestNativeOverloadShedsAndIsFair(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	fits := int(n.NativeTier(t).Budget / function.MaxMemory)
	if fits < 2 || fits > manySandboxes {
		t.Skipf("%d sandboxes of the largest size fit on this machine: too few or too many to fill it", fits)
	}
	for _, ns := range []string{"greedy", "modest"} {
		if _, err := n.DeployNative(t.Context(), ns, map[string]harness.Native{ns: harness.Python(ns)}, func(s *api.FunctionSpec) {
			s.Config.MemoryBytes, s.Config.Concurrency.Max = function.MaxMemory, 2*manySandboxes
		}); err != nil {
			t.Fatal(err)
		}
	}
	key, client := n.InvokeKey(), n.HTTP()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	// flood calls a function again and again and counts what becomes of it.
	flood := func(path string) (*atomic.Int64, *atomic.Int64) {
		served, shed := new(atomic.Int64), new(atomic.Int64)
		for range fits + 6 {
			wg.Go(func() {
				for ctx.Err() == nil {
					a, err := n.Call(ctx, client, key, path, `{"do":"sleep","millis":40}`)
					switch {
					case ctx.Err() != nil:
						return
					case err == nil && a.Status == http.StatusOK:
						served.Add(1)
					case err == nil && (a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable):
						shed.Add(1)
						if after, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || after < 1 || details(t, a).Code == problem.Internal {
							t.Errorf("%s: turned away without a word: %+v", path, a)
							return
						}
					default:
						t.Errorf("%s: %+v, %v", path, a, err)
						return
					}
				}
			})
		}
		return served, shed
	}
	within := func() {
		t.Helper()
		if p := n.NativeTier(t); p.Claimed > p.Budget || p.Sandboxes > fits {
			t.Fatalf("%d bytes in %d sandboxes are claimed of %d", p.Claimed, p.Sandboxes, p.Budget)
		}
	}
	served, shed := flood("/~greedy/greedy")
	harness.Eventually(t, "there is more to do than room", func() bool { return shed.Load() > 0 && served.Load() > int64(fits) })
	for range 20 {
		var a harness.Answer
		harness.Eventually(t, "the modest one is served", func() bool {
			var err error
			a, err = n.Call(ctx, client, key, "/~modest/modest", `{"do":"echo","text":"me too"}`)
			if err != nil || a.Status != http.StatusOK && a.Header.Get("Retry-After") == "" {
				t.Fatalf("%+v, %v", a, err)
			}
			return a.Status == http.StatusOK
		})
		within()
	}
	// Both want more than there is.
	also, _ := flood("/~modest/modest")
	enough := also.Load() + 3*int64(fits)
	harness.Eventually(t, "both are served", func() bool {
		within()
		return also.Load() >= enough
	})
	stop()
	wg.Wait()
	t.Logf("room for %d; %d served and %d turned away in the greedy namespace", fits, served.Load(), shed.Load())
	n.Stop()
}

// A function's own maximum sheds too, with the same hint.
func TestNativeConcurrencyLimitAnswers429(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.NeedNative(t, "python")
	n.MustDeployNative(map[string]harness.Native{"one": harness.Python("x")}, func(s *api.FunctionSpec) {
		s.Config.Concurrency.Max, s.Config.TimeoutMillis = 1, 60_000
	})
	key, client := n.InvokeKey(), n.HTTP()
	refusedWhileHeld(t, n, func(short bool) (harness.Answer, error) {
		millis := 1500
		if !short {
			millis = 20_000
		}
		return n.Try(client, key, "one", harness.Order{"do": "sleep", "millis": millis})
	}, func(bool) (harness.Answer, error) {
		return n.Try(client, key, "one", harness.Order{"do": "echo"})
	})
}
