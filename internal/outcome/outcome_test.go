package outcome

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

func (s *Store) want(t testing.TB, id, what string) *Invocation {
	t.Helper()
	inv, err := s.Get(t.Context(), id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		inv = &Invocation{State: "unknown"}
	case err != nil:
		t.Fatal(err)
	}
	if inv.State != what {
		t.Errorf("%s is %s, want %s", id, inv.State, what)
	}
	return inv
}

func TestFromAcceptedToEnded(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	ctx := t.Context()
	o.want(t, "a", "unknown")
	if err := o.Pending(ctx, "a", at("shop"), "key:k"); err != nil {
		t.Fatal(err)
	}
	pending := o.want(t, "a", Pending)
	if want := (&Invocation{ID: "a", Ref: at("shop"), Principal: "key:k", State: Pending, Accepted: began}); !reflect.DeepEqual(pending, want) {
		t.Errorf("pending: %+v", pending)
	}
	if err := o.Pending(ctx, "a", at("default"), "key:other"); !errors.Is(err, state.ErrConflict) {
		t.Errorf("the same id again: %v", err)
	}
	// Neither another function's end nor one that nobody asked about changes anything.
	for _, err := range []error{o.Done(ctx, at("default"), "a", Result{}), o.Done(ctx, function.Ref{Namespace: "shop", Name: "other"}, "a", Result{}), o.Done(ctx, at("shop"), "b", Result{})} {
		if err != nil {
			t.Error(err)
		}
	}
	o.want(t, "a", Pending)
	s.pass(time.Minute)
	r := Result{
		Succeeded: true, Attempts: 2, Receipt: "r", Version: "v", Status: 200, Headers: map[string][]string{"a": {"b"}},
		Body: []byte("\x00body"), Ended: s.clock(),
	}
	if err := o.Done(ctx, at("shop"), "a", r); err != nil {
		t.Fatal(err)
	}
	want := &Invocation{
		ID: "a", Ref: at("shop"), Principal: "key:k", State: Succeeded, Accepted: began, Ended: began.Add(time.Minute), Attempts: 2,
		Receipt: "r", Version: "v", Status: 200, Headers: r.Headers, Body: r.Body,
	}
	if got := o.want(t, "a", Succeeded); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	// Told again, with another end: the first one stays.
	if err := o.Done(ctx, at("shop"), "a", Result{Reason: "attempts"}); err != nil {
		t.Fatal(err)
	}
	o.want(t, "a", Succeeded)
	if n := s.count("shop"); n != 2 {
		t.Errorf("%d records", n)
	}
	if got := open(t, s).want(t, "a", Succeeded); !reflect.DeepEqual(got, want) {
		t.Errorf("opened again: %+v", got)
	}
	s.pass(DefaultKeep)
	o.want(t, "a", Succeeded)
	s.pass(time.Second)
	o.want(t, "a", "unknown")
}

func TestLargeAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	for i, r := range []Result{
		{Succeeded: true, Status: 200, Body: make([]byte, MaxBody)},
		{Succeeded: true, Status: 200, Body: make([]byte, MaxBody+1)},
		{Reason: "attempts", Code: "function_crashed", Detail: strings.Repeat("x", 1<<20), Headers: map[string][]string{"a": {strings.Repeat("x", MaxHeaders)}}},
	} {
		if err := o.Pending(t.Context(), id(i), at("shop"), strings.Repeat("p", 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := o.Done(t.Context(), at("shop"), id(i), r); err != nil {
			t.Fatal(err)
		}
	}
	if a := o.want(t, id(0), Succeeded); len(a.Body) != MaxBody || a.Omitted != 0 || len(a.Principal) > maxPrincipal {
		t.Errorf("as large as may be: %d, %d omitted", len(a.Body), a.Omitted)
	}
	if a := o.want(t, id(1), Succeeded); a.Body != nil || a.Omitted != MaxBody+1 {
		t.Errorf("too large: %d, %d omitted", len(a.Body), a.Omitted)
	}
	if a := o.want(t, id(2), Failed); a.Headers != nil || len(a.Detail) > maxText || a.Ended != began || a.Code != "function_crashed" {
		t.Errorf("failed: %+v", a)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	for i := range 2 {
		if err := o.Pending(t.Context(), id(i), at("shop"), "p"); err != nil {
			t.Fatal(err)
		}
	}
	s.fail = func(entries []Entry) error {
		if len(entries[0].Data) > 600 {
			return state.ErrFull
		}
		return nil
	}
	if err := o.Done(t.Context(), at("shop"), id(0), Result{Succeeded: true, Status: 200, Body: make([]byte, 600)}); err != nil {
		t.Fatalf("there is room without the body: %v", err)
	}
	if inv := o.want(t, id(0), Succeeded); inv.Omitted != 600 || inv.Body != nil {
		t.Errorf("kept: %+v", inv)
	}
	s.fail = func([]Entry) error { return state.ErrFull }
	if err := o.Done(t.Context(), at("shop"), id(1), Result{Status: 200, Body: []byte("x")}); !errors.Is(err, state.ErrFull) {
		t.Errorf("no room at all: %v", err)
	}
	if err := o.Pending(t.Context(), id(2), at("shop"), "p"); !errors.Is(err, state.ErrFull) {
		t.Errorf("no room at all: %v", err)
	}
	o.want(t, id(1), Pending)
	o.want(t, id(2), "unknown")
	s.fail = nil
	if err := o.Done(t.Context(), at("shop"), id(1), Result{Status: 200}); err != nil {
		t.Fatal(err)
	}
	o.want(t, id(1), Failed)
}

// TestAnswerLost has the stream store an end and fail all the same: telling it again
// finds it there.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	if err := o.Pending(t.Context(), "a", at("shop"), "p"); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("no answer")
	s.fail = func(entries []Entry) error {
		s.fail = nil
		s.last++
		s.ids["shop "+Channel+" a.ended"] = s.last
		s.records = append(s.records, Record{"shop", Channel, "a.ended", s.last, s.now, entries[0].Data})
		return lost
	}
	if err := o.Done(t.Context(), at("shop"), "a", Result{Succeeded: true}); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	o.want(t, "a", Pending)
	if err := o.Done(t.Context(), at("shop"), "a", Result{Succeeded: true}); err != nil {
		t.Fatal(err)
	}
	o.want(t, "a", Succeeded)
}

func TestForget(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, small)
	for i := range 100 { // far more than may be pending at once
		if err := o.Pending(t.Context(), id(i), at("shop"), "p"); err != nil {
			t.Fatal(err)
		}
		o.Forget(id(i))
		o.want(t, id(i), "unknown")
	}
	o.Forget("nothing")
	if n := s.count("shop"); n > 16+1 {
		t.Errorf("%d records", n)
	}
}

// TestBoundsOfANamespace ends far more than fits, beside some that never end.
func TestBoundsOfANamespace(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, small)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(o.Pending(ctx, "neighbour", at("default"), "p"))
	must(o.Done(ctx, at("default"), "neighbour", Result{Succeeded: true}))
	for i := range 3 {
		must(o.Pending(ctx, fmt.Sprintf("stays-%d", i), at("shop"), "p"))
	}
	for i := range 500 {
		s.pass(time.Second)
		must(o.Pending(ctx, id(i), at("shop"), "p"))
		must(o.Done(ctx, at("shop"), id(i), Result{Succeeded: true, Body: make([]byte, i*7%5000)}))
		if n := s.count("shop"); n > 16+2 {
			t.Fatalf("after %d: %d records", i, n)
		}
		o.want(t, id(i), Succeeded)
	}
	for _, o := range []*Store{o, open(t, s, small)} {
		for i := range 3 {
			o.want(t, fmt.Sprintf("stays-%d", i), Pending)
		}
		o.want(t, id(0), "unknown")
		o.want(t, id(499), Succeeded)
		o.want(t, "neighbour", Succeeded) // one namespace does not push out another's
	}
	o.mu.Lock()
	if len(o.index) > 16 || o.pending != 3 || o.spaces["shop"].amount.records != len(o.spaces["shop"].log) {
		t.Errorf("%d in the index, %d pending", len(o.index), o.pending)
	}
	o.mu.Unlock()
	for i := range 3 {
		must(o.Done(ctx, at("shop"), fmt.Sprintf("stays-%d", i), Result{}))
		o.want(t, fmt.Sprintf("stays-%d", i), Failed)
	}
}

func TestTooManyPending(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, small)
	ctx := t.Context()
	for i := range 8 {
		if err := o.Pending(ctx, id(i), at("shop"), "p"); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Pending(ctx, id(8), at("shop"), "p"); !errors.Is(err, state.ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := o.Pending(ctx, "neighbour", at("default"), "p"); err != nil {
		t.Errorf("a neighbour: %v", err)
	}
	for i := range 8 { // there is room for their ends
		if err := o.Done(ctx, at("shop"), id(i), Result{Succeeded: true}); err != nil {
			t.Fatal(err)
		}
		o.want(t, id(i), Succeeded)
	}
	if err := o.Pending(ctx, id(8), at("shop"), "p"); err != nil {
		t.Error(err)
	}
	// All together.
	for ns := range 10 {
		for i := range 8 {
			_ = o.Pending(ctx, fmt.Sprintf("all-%d-%d", ns, i), at(fmt.Sprintf("ns%d", ns)), "p")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending != shares*16/2 {
		t.Errorf("%d are pending", o.pending)
	}
}

// TestLargestGivesWay fills the whole from many namespaces.
func TestLargestGivesWay(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, small)
	ctx := t.Context()
	for i := range 400 {
		ns := fmt.Sprintf("ns%d", i%20)
		if i%20 == 0 {
			ns = "large"
		}
		for _, err := range []error{o.Pending(ctx, id(i), at(ns), "p"), o.Done(ctx, at(ns), id(i), Result{Succeeded: true})} {
			if err != nil {
				t.Fatal(err)
			}
		}
		o.want(t, id(i), Succeeded)
		if n := len(s.records); n > shares*16+2 {
			t.Fatalf("%d records", n)
		}
	}
}

func TestOldOnesAreSwept(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	ctx := t.Context()
	if err := o.Pending(ctx, "stays", at("shop"), "p"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := o.Pending(ctx, id(i), at("shop"), "p"); err != nil {
			t.Fatal(err)
		}
		if err := o.Done(ctx, at("shop"), id(i), Result{Succeeded: true}); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Hour)
	}
	s.pass(DefaultKeep - 5*time.Hour)
	for range 3 {
		if err := o.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.count("shop"); n != 10 { // five ends, four beginnings, and what stays
		t.Errorf("%d records", n)
	}
	o.want(t, "stays", Pending)
	o.want(t, id(4), "unknown")
	o.want(t, id(5), Succeeded)
	s.pass(MaxWait)
	if err := o.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.count("shop"); n != 0 || len(o.index) != 0 || len(o.spaces) != 0 || o.pending != 0 || o.total != (amount{}) {
		t.Errorf("%d records, %d in the index, total %+v, %d pending", n, len(o.index), o.total, o.pending)
	}
	if err := o.Done(ctx, at("shop"), "stays", Result{}); err != nil {
		t.Errorf("an end that comes too late: %v", err)
	}
}

// TestCrashInASweep opens what a sweep left that wrote anew and never purged.
func TestCrashInASweep(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, small)
	ctx := t.Context()
	if err := o.Pending(ctx, "stays", at("shop"), "p"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		_ = o.Pending(ctx, id(i), at("shop"), "p")
		_ = o.Done(ctx, at("shop"), id(i), Result{})
	}
	crashed := false
	s.before = func() {
		crashed = true
		again := open(t, s, small)
		again.want(t, "stays", Pending)
		// And an end that is written right then is not lost either.
		if err := o.write(ctx, ".ended", &Invocation{ID: "stays", Ref: at("shop"), State: Succeeded, Ended: began}); err != nil {
			t.Error(err)
		}
	}
	if err := o.sweep(ctx, "shop", o.share()); err != nil || !crashed {
		t.Fatalf("%v, purged: %v", err, crashed)
	}
	o.want(t, "stays", Succeeded)
	open(t, s, small).want(t, "stays", Succeeded)
}

// TestAnEndIsFinal has a sweep write a pending record again that has ended meanwhile.
func TestAnEndIsFinal(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	if err := o.Pending(t.Context(), "a", at("shop"), "p"); err != nil {
		t.Fatal(err)
	}
	if err := o.Done(t.Context(), at("shop"), "a", Result{Succeeded: true}); err != nil {
		t.Fatal(err)
	}
	if err := o.write(t.Context(), ".carried1", &Invocation{ID: "a", Ref: at("shop"), State: Pending, Accepted: began}); err != nil {
		t.Fatal(err)
	}
	o.want(t, "a", Succeeded)
	open(t, s).want(t, "a", Succeeded)
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s)
	for i := range 3 {
		if err := o.Pending(t.Context(), id(i), at("shop"), "p"); err != nil {
			t.Fatal(err)
		}
	}
	s.damaged[2] = true
	if _, err := o.Get(t.Context(), id(1)); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("reading it: %v", err)
	}
	s.records = append(s.records, Record{"shop", Channel, "x", 4, began, []byte("{")}, Record{"default", Channel, "y", 5, began, s.records[0].Data})
	o = open(t, s)
	o.want(t, id(0), Pending)
	o.want(t, id(1), "unknown")
	o.want(t, id(2), Pending)
}

func TestMalformedNames(t *testing.T) {
	t.Parallel()
	o := open(t, newStream())
	for _, bad := range []string{"", "a b", "a/b", "ä", strings.Repeat("x", 65)} {
		if err := o.Pending(t.Context(), bad, at("shop"), "p"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := o.Pending(t.Context(), "a", function.Ref{Namespace: "Shop", Name: "fn"}, "p"); err == nil {
		t.Error("a malformed namespace is taken")
	}
	for _, c := range []Config{{}, {Stream: newStream()}, {Stream: newStream(), Clock: time.Now}} {
		if _, err := Open(t.Context(), c); err == nil {
			t.Error("half a configuration is taken")
		}
	}
}

// TestHammer has everything happen at once; an end that was acknowledged is found, and
// nothing is pending that has ended.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := newStream()
	o := open(t, s, func(c *Config) { c.Records, c.Bytes = 256, 256<<10 })
	ctx := t.Context()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			ns := at(fmt.Sprintf("ns%d", w%3))
			for i := range 300 {
				name := fmt.Sprintf("w%d-%d", w, i)
				if err := o.Pending(ctx, name, ns, "p"); err != nil {
					t.Error(err)
					return
				}
				if inv, err := o.Get(ctx, name); err != nil || inv.State != Pending {
					t.Errorf("%s: %+v, %v", name, inv, err)
				}
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						if err := o.Done(ctx, ns, name, Result{Succeeded: true, Status: 200}); err != nil {
							t.Error(err)
						}
					})
				}
				both.Wait()
				inv, err := o.Get(ctx, name)
				if err == nil && inv.State != Succeeded || err != nil && !errors.Is(err, state.ErrNotFound) {
					t.Errorf("%s: %+v, %v", name, inv, err)
				}
				if i%50 == 0 {
					if err := o.Sweep(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending != 0 {
		t.Errorf("%d are pending", o.pending)
	}
	for ns, sp := range o.spaces {
		var sum amount
		for i, at := range sp.log {
			sum.add(1, at.bytes)
			if i > 0 && sp.log[i-1].sequence >= at.sequence {
				t.Errorf("%s: out of order", ns)
			}
		}
		if sum != sp.amount || sum.records != s.count(ns) {
			t.Errorf("%s: counted %+v, are %+v, stored %d", ns, sp.amount, sum, s.count(ns))
		}
	}
}

// FuzzDecode reads what anybody could have written.
func FuzzDecode(f *testing.F) {
	b, _ := encode(&Invocation{ID: "a", Ref: at("shop"), State: Pending})
	f.Add(b)
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		inv, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(inv)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := decode(again); err != nil || !reflect.DeepEqual(twice, inv) {
			t.Errorf("%+v became %+v, %v", inv, twice, err)
		}
	})
}
