package invoke

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func ref(name string) function.Ref { return function.Ref{Namespace: "default", Name: name} }

func TestReservedPlacesAreKeptFree(t *testing.T) {
	t.Parallel()
	a, err := NewAdmission(4)
	if err != nil {
		t.Fatal(err)
	}
	a.Reserve(map[function.Ref]int{ref("vip"): 2})
	lim := &function.Limits{Concurrency: 10}
	for range 2 {
		if _, err := a.enter(ref("greedy"), lim); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.enter(ref("greedy"), lim); !problem.HasCode(err, problem.Overloaded) {
		t.Errorf("greedy took a reserved place: %v", err)
	}
	for range 2 {
		if _, err := a.enter(ref("vip"), lim); err != nil {
			t.Errorf("vip did not get its reserved place: %v", err)
		}
	}
	if _, err := a.enter(ref("vip"), lim); !problem.HasCode(err, problem.Overloaded) {
		t.Errorf("vip went past the node's capacity: %v", err)
	}
}

func TestReservationsCannotTakeTheWholeNode(t *testing.T) {
	t.Parallel()
	a, _ := NewAdmission(10)
	a.Reserve(map[function.Ref]int{ref("a"): 4})
	if err := a.CheckReserve(map[function.Ref]int{ref("b"): 2}); !problem.HasCode(err, problem.InvalidManifest) {
		t.Errorf("got %v", err)
	}
	if err := a.CheckReserve(map[function.Ref]int{ref("a"): 5}); err != nil {
		t.Errorf("raising one's own: %v", err)
	}
	if err := a.CheckReserve(map[function.Ref]int{ref("a"): 3, ref("b"): 3}); !problem.HasCode(err, problem.InvalidManifest) {
		t.Errorf("two in one deployment: %v", err)
	}
	// Two deployments that were checked at the same time.
	if dropped := a.Reserve(map[function.Ref]int{ref("a"): 5, ref("b"): 5}); len(dropped) != 1 || dropped[0] != ref("b") {
		t.Errorf("dropped %v", dropped)
	}
	if _, err := a.enter(ref("c"), &function.Limits{Concurrency: 1}); err != nil {
		t.Errorf("a function without a reservation finds no room: %v", err)
	}
}

// TestAdmissionInvariants holds random comings, goings and reservations against
// what must always be true.
func TestAdmissionInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(2, 12).Draw(t, "capacity")
		a, err := NewAdmission(capacity)
		if err != nil {
			t.Fatal(err)
		}
		names := []function.Ref{ref("a"), ref("b"), ref("c")}
		limits := map[function.Ref]*function.Limits{}
		for _, n := range names {
			limits[n] = &function.Limits{Concurrency: rapid.IntRange(1, 8).Draw(t, "max")}
		}
		held := map[function.Ref][]func(){}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				n := rapid.SampledFrom(names).Draw(t, "fn")
				free := len(held[n]) < a.reserved[n] && len(held[n]) < limits[n].Concurrency
				release, err := a.enter(n, limits[n])
				if err == nil {
					held[n] = append(held[n], release)
				} else if free {
					t.Fatalf("%s was refused its reserved place: %v", n, err)
				}
			},
			"leave": func(t *rapid.T) {
				n := rapid.SampledFrom(names).Draw(t, "fn")
				if k := len(held[n]); k > 0 {
					held[n][k-1]()
					held[n] = held[n][:k-1]
				}
			},
			"reserve": func(t *rapid.T) {
				a.Reserve(map[function.Ref]int{
					rapid.SampledFrom(names).Draw(t, "fn"): rapid.IntRange(0, a.Reservable()).Draw(t, "n"),
				})
			},
			"": func(t *rapid.T) {
				total, shared := 0, 0
				for _, n := range names {
					if len(held[n]) > limits[n].Concurrency {
						t.Fatalf("%s runs %d of %d", n, len(held[n]), limits[n].Concurrency)
					}
					total += len(held[n])
					shared += max(0, len(held[n])-a.reserved[n])
				}
				if got, _ := a.Load(); got != total {
					t.Fatalf("in flight: %d, want %d", got, total)
				}
				if a.shared != shared {
					t.Fatalf("shared: %d, want %d", a.shared, shared)
				}
			},
		})
	})
}

func TestDrainRefusesTheNewAndWaitsForTheOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := NewAdmission(4)
		lim := &function.Limits{Concurrency: 4}
		release, err := a.enter(ref("slow"), lim)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- a.Drain(ctx) }()
		synctest.Wait()
		if _, err := a.enter(ref("late"), lim); !problem.HasCode(err, problem.Draining) {
			t.Errorf("a new invocation while draining: %v", err)
		}
		select {
		case err := <-drained:
			t.Errorf("drained with work under way: %v", err)
		default:
		}
		release()
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, _ := NewAdmission(4)
		if _, err := a.enter(ref("stuck"), &function.Limits{Concurrency: 4}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := a.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func BenchmarkAdmission(b *testing.B) {
	a, _ := NewAdmission(DefaultCapacity)
	lim, fn := &function.Limits{Concurrency: 64}, ref("hello")
	for b.Loop() {
		release, err := a.enter(fn, lim)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
