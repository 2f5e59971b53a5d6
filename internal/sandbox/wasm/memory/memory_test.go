package memory

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// open gives a system with one strategy, or skips when the machine cannot.
func open(tb testing.TB, s Strategy, budget uint64) *System {
	tb.Helper()
	pagemap, err := OpenPagemap()
	if err == nil {
		tb.Cleanup(func() { _ = pagemap.Close() })
	}
	system, err := Open(NewBudget(budget), pagemap, s)
	switch {
	case err == nil:
		return system
	case errors.Is(err, errors.ErrUnsupported), s == Scan && (pagemap == nil || strings.Contains(err.Error(), "scanning pages")):
		tb.Skipf("this machine cannot: %v", err)
	default: // a strategy that gives wrong results is no reason to skip its tests
		tb.Fatal(err)
	}
	return nil
}

func each(t *testing.T, budget uint64, test func(*testing.T, *System)) {
	for _, s := range []Strategy{Scan, Advise, Copy} {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			system := open(t, s, budget)
			test(t, system)
			if used := system.budget.Used(); used != 0 {
				t.Errorf("%d bytes of the budget are not given back", used)
			}
		})
	}
}

func newLinear(tb testing.TB, s *System, limit uint64) *Linear {
	tb.Helper()
	l, err := s.New(limit)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	return l
}

func newImage(tb testing.TB, s *System, size uint64, pieces ...Piece) *Image {
	tb.Helper()
	i, err := s.NewImage(size, pieces...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(i.Close)
	return i
}

// differs gives the first place where two memories differ, or -1.
func differs(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestAnythingComesBack draws what may happen to a memory, and compares it with a
// plain slice after each step.
func TestAnythingComesBack(t *testing.T) {
	t.Parallel()
	const pages = 12
	blank := make([]byte, pages*PageSize)
	each(t, 2*pages*PageSize, func(t *testing.T, s *System) {
		limit := uint64(pages * PageSize)
		rapid.Check(t, func(rt *rapid.T) {
			l, err := s.New(limit)
			if err != nil {
				rt.Fatal(err)
			}
			defer l.Close()
			var images []*Image
			defer func() {
				for _, i := range images {
					i.Close()
				}
			}()
			model := []byte(nil) // what the image holds
			now := []byte(nil)   // what the memory holds
			begun := false
			wantSame := func(what string) {
				if at := differs(l.Bytes(), now); at >= 0 || l.Size() != uint64(len(now)) {
					rt.Fatalf("after %s the memory of %d bytes differs at %d; want %d bytes", what, l.Size(), at, len(now))
				}
				if above := l.mem[max(l.used, l.reach):]; !bytes.Equal(above, blank[:len(above)]) {
					rt.Fatalf("after %s there is something above the memory", what)
				}
			}
			restored := func() { now = bytes.Clone(model) }
			rt.Repeat(map[string]func(*rapid.T){
				"map": func(rt *rapid.T) {
					if begun {
						rt.Skip()
					}
					model = make([]byte, PageSize*rapid.IntRange(0, 6).Draw(rt, "pages"))
					var pieces []Piece
					for range rapid.IntRange(0, 3).Draw(rt, "pieces") {
						p := Piece{uint64(rapid.IntRange(0, len(model)).Draw(rt, "at")), nil}
						p.Data = bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(rt, "data"), rapid.IntRange(0, 3000).Draw(rt, "times"))
						p.Data = p.Data[:min(len(p.Data), len(model)-int(p.Offset))]
						copy(model[p.Offset:], p.Data)
						pieces = append(pieces, p)
					}
					i, err := s.NewImage(uint64(len(model)), pieces...)
					if err != nil {
						rt.Fatal(err)
					}
					images = append(images, i)
					if err := l.Map(i); err != nil {
						rt.Fatal(err)
					}
					restored()
				},
				"freeze": func(rt *rapid.T) {
					i, err := s.Freeze(l)
					if err != nil {
						rt.Fatal(err)
					}
					images = append(images, i)
					if at := differs(i.Bytes(), now); at >= 0 {
						rt.Fatalf("the frozen image differs at %d", at)
					}
					if begun {
						return
					}
					if err := l.Map(i); err != nil {
						rt.Fatal(err)
					}
					model = bytes.Clone(now)
				},
				"begin": func(rt *rapid.T) {
					if begun {
						rt.Skip()
					}
					begun = l.Begin(0)
					if !begun || l.Peak() != l.Size() || l.Denied() {
						rt.Fatalf("it began: %v, peak %d, denied %v", begun, l.Peak(), l.Denied())
					}
				},
				"resize": func(rt *rapid.T) {
					n := uint64(PageSize * rapid.IntRange(len(now)/PageSize, pages+2).Draw(rt, "pages"))
					if !begun {
						rt.Skip()
					}
					got := l.Resize(n)
					switch {
					case n > limit && (got != nil || !l.Denied()):
						rt.Fatalf("it grew to %d bytes of %d", n, limit)
					case n <= limit && uint64(len(got)) != n:
						rt.Fatalf("it did not grow to %d bytes", n)
					case n <= limit:
						now = append(now, make([]byte, int(n)-len(now))...)
					}
				},
				"write": func(rt *rapid.T) {
					if !begun || len(now) == 0 {
						rt.Skip()
					}
					at := rapid.IntRange(0, len(now)-1).Draw(rt, "at")
					data := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 5).Draw(rt, "data"), rapid.SampledFrom([]int{1, 100, 2000, 200_000}).Draw(rt, "times"))
					copy(now[at:], data)
					copy(l.Bytes()[at:], data)
				},
				"read": func(*rapid.T) { // faults the image's pages in
					sum := byte(0)
					for i := 0; i < len(now); i += 4096 {
						sum += l.Bytes()[i]
					}
					_ = sum
				},
				"restore": func(*rapid.T) {
					l.Restore()
					restored()
					if begun {
						l.End()
						begun = false
					}
				},
				"trim": func(rt *rapid.T) {
					if begun {
						rt.Skip()
					}
					l.Restore()
					l.Trim()
					restored()
				},
				"": func(*rapid.T) { wantSame("that") },
			})
			if begun {
				l.End()
			}
		})
	})
}

func TestGrowthIsBounded(t *testing.T) {
	t.Parallel()
	each(t, 10*PageSize, func(t *testing.T, s *System) {
		a, b := newLinear(t, s, 8*PageSize), newLinear(t, s, 8*PageSize)
		img := newImage(t, s, 2*PageSize)
		for _, l := range []*Linear{a, b} {
			if err := l.Map(img); err != nil || !l.Begin(0) {
				t.Fatal("cannot begin", err)
			}
		}
		if got := s.budget.Used(); got != 4*PageSize {
			t.Errorf("two images take %d bytes", got)
		}
		if a.Resize(9*PageSize) != nil || !a.Denied() || a.Size() != 2*PageSize {
			t.Errorf("it grew beyond its limit to %d", a.Size())
		}
		if got := a.Resize(8 * PageSize); len(got) != 8*PageSize || cap(got) != len(got) {
			t.Errorf("it did not grow to its limit: %d bytes with capacity %d", len(got), cap(got))
		}
		if b.Resize(3*PageSize) != nil || !b.Denied() || b.Size() != 2*PageSize || b.Peak() != 2*PageSize {
			t.Errorf("it grew beyond the budget to %d", b.Size())
		}
		a.Restore()
		a.End()
		if got := s.budget.Used(); got != 2*PageSize {
			t.Errorf("%d bytes are in use, want those of one image", got)
		}
		if b.Resize(3*PageSize) == nil {
			t.Error("what was given back cannot be taken")
		}
		// The limit holds where the budget would allow more, and is not to be written past.
		small := newLinear(t, s, 3*PageSize)
		if !small.Begin(0) || small.Resize(4*PageSize) != nil || !small.Denied() {
			t.Error("it grew beyond its limit")
		}
		if got := small.Resize(2 * PageSize); len(got) != 2*PageSize || cap(got) != len(got) {
			t.Errorf("of %d bytes, %d can be reached", len(got), cap(got))
		}
		small.End()
		small.End() // gives nothing back that is not taken
		if got := s.budget.Used(); got != 3*PageSize {
			t.Errorf("%d bytes are in use, want those of the neighbour", got)
		}
		if small.Begin(4 * PageSize) {
			t.Error("it began beyond its limit")
		}
		b.Restore()
		b.End()

		// Beginning is bounded too.
		c := newLinear(t, s, 20*PageSize)
		if c.Begin(11*PageSize) || c.Begin(21*PageSize) || c.Begin(math.MaxUint64) {
			t.Error("it began beyond the budget")
		}
		c.End()
		big := newImage(t, s, 9*PageSize)
		if err := a.Map(big); err == nil {
			t.Error("an image larger than the memory was mapped")
		}
	})
}

func TestBudgetDoesNotWrap(t *testing.T) {
	t.Parallel()
	b := NewBudget(100)
	if !b.take(60) || b.take(41) || b.take(math.MaxUint64) || b.take(math.MaxUint64-50) || !b.take(40) || b.take(1) {
		t.Errorf("%d of 100 bytes are taken", b.Used())
	}
	b.give(100)
	if b.Used() != 0 {
		t.Errorf("%d bytes are left over", b.Used())
	}
}

func TestImagesThatCannotBe(t *testing.T) {
	t.Parallel()
	each(t, PageSize<<4, func(t *testing.T, s *System) {
		for name, try := range map[string]struct {
			size   uint64
			pieces []Piece
			says   string
		}{
			"odd size":       {PageSize + 1, nil, "multiple"},
			"outside":        {PageSize, []Piece{{Offset: PageSize + 1}}, "outside"},
			"beyond the end": {PageSize, []Piece{{Offset: PageSize - 1, Data: []byte("ab")}}, "outside"},
			"wrapping":       {PageSize, []Piece{{Offset: math.MaxUint64, Data: []byte("ab")}}, "outside"},
		} {
			if i, err := s.NewImage(try.size, try.pieces...); err == nil || !strings.Contains(err.Error(), try.says) {
				t.Errorf("%s gave %v, %v", name, i, err)
			}
		}
		later := newImage(t, s, PageSize, Piece{0, []byte("aaaa")}, Piece{1, []byte{0, 0}}, Piece{2, []byte("b")})
		if got := string(later.Bytes()[:5]); got != "a\x00ba\x00" {
			t.Errorf("pieces lie over each other as %q", got)
		}
		// A page of zeroes over one that is not.
		hidden := newImage(t, s, PageSize, Piece{0, bytes.Repeat([]byte("x"), PageSize)}, Piece{0, make([]byte, PageSize/2)})
		if hidden.Bytes()[0] != 0 || hidden.Bytes()[PageSize/2] != 'x' {
			t.Error("zeroes do not cover what was there before")
		}
	})
}

func TestUnknownStrategyIsRefused(t *testing.T) {
	t.Parallel()
	for want, says := range map[Strategy]string{"magic": "", Scan: "no page map"} {
		if s, err := Open(NewBudget(1<<30), nil, want); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s gave %v, %v", want, s, err)
		}
	}
	if s, err := Open(NewBudget(PageSize), nil, ""); err == nil {
		t.Errorf("a budget for nothing gave %v", s)
	}
	// A file that is no page map must be found out, and lead to the next way.
	no, err := os.Open("/dev/null")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = no.Close() }()
	if s, err := Open(NewBudget(1<<30), no, ""); err != nil || s.Strategy() == Scan {
		t.Errorf("without a page map it takes %v, %v", s, err)
	}
}

// TestNeighboursWithOneImage lets many memories with the same image be written and
// restored at once: none may see anything of another.
func TestNeighboursWithOneImage(t *testing.T) {
	t.Parallel()
	each(t, 1<<30, func(t *testing.T, s *System) {
		content := make([]byte, 4*PageSize)
		for i := range content {
			content[i] = byte(i * 7)
		}
		img := newImage(t, s, uint64(len(content)), Piece{Data: content})
		var wg sync.WaitGroup
		for g := range 4 {
			l := newLinear(t, s, 8*PageSize)
			if err := l.Map(img); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				mark := byte(g + 1)
				for round := range 60 {
					if !l.Begin(0) {
						t.Error("it cannot begin")
						return
					}
					b := l.Resize(uint64(5+round%4) * PageSize)
					for at := round; at < len(b); at += 4096 * (1 + g) {
						if want := append(content, 0)[min(at, len(content))]; b[at] != want {
							t.Errorf("memory %d has %#x at %#x, want %#x", g, b[at], at, want)
							return
						}
						b[at] ^= mark
					}
					l.Restore()
					l.End()
					if at := differs(l.Bytes(), content); at >= 0 {
						t.Errorf("memory %d differs from its image at %#x", g, at)
						return
					}
				}
			})
		}
		wg.Wait()
		if at := differs(img.Bytes(), content); at >= 0 {
			t.Errorf("the image changed at %#x", at)
		}
	})
}

// TestOneSeesNothingOfAnother writes through one memory and looks through another
// that has the same image, page by page.
func TestOneSeesNothingOfAnother(t *testing.T) {
	t.Parallel()
	each(t, 1<<30, func(t *testing.T, s *System) {
		img := newImage(t, s, 2*PageSize, Piece{Data: []byte("image")})
		a, b := newLinear(t, s, 4*PageSize), newLinear(t, s, 4*PageSize)
		for _, l := range []*Linear{a, b} {
			if err := l.Map(img); err != nil || !l.Begin(0) {
				t.Fatal("cannot begin", err)
			}
			l.Resize(4 * PageSize)
		}
		for i := range a.Bytes() {
			a.Bytes()[i] = 'A'
		}
		want := append(bytes.Clone(img.Bytes()), make([]byte, 2*PageSize)...)
		if at := differs(b.Bytes(), want); at >= 0 || !bytes.HasPrefix(img.Bytes(), []byte("image")) {
			t.Errorf("the neighbour sees it at %#x", at)
		}
		fresh := newLinear(t, s, 4*PageSize)
		if err := fresh.Map(img); err != nil {
			t.Fatal(err)
		}
		if at := differs(fresh.Bytes(), img.Bytes()); at >= 0 {
			t.Errorf("a new memory differs at %#x", at)
		}
		a.End()
		b.End()
	})
}
