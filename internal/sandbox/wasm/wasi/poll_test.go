package wasi

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"
)

// subscription encodes one of poll_oneoff's questions.
func subscription(mark uint64, kind byte, about uint32, timeout uint64, flags uint16) []byte {
	b := make([]byte, subscriptionSize)
	binary.LittleEndian.PutUint64(b, mark)
	b[subscriptionKind] = kind
	binary.LittleEndian.PutUint32(b[subscriptionClock:], about)
	binary.LittleEndian.PutUint64(b[subscriptionTime:], timeout)
	binary.LittleEndian.PutUint16(b[subscriptionFlags:], flags)
	return b
}

type event struct {
	mark  uint64
	errno uint16
	kind  byte
}

func TestPoll(t *testing.T) {
	t.Parallel()
	const hour = uint64(time.Hour)
	clock := func(mark, timeout uint64) []byte { return subscription(mark, eventClock, clockMonotonic, timeout, 0) }
	at := func(mark uint64, id uint32, when uint64) []byte {
		return subscription(mark, eventClock, id, when, flagAbsolute)
	}
	fd := func(mark uint64, kind byte, n uint32) []byte { return subscription(mark, kind, n, 0, 0) }
	for name, c := range map[string]struct {
		subs  [][]byte
		slept []time.Duration
		want  []event
	}{
		"one clock":            {[][]byte{clock(7, hour)}, []time.Duration{time.Hour}, []event{{7, 0, 0}}},
		"no time":              {[][]byte{clock(7, 0)}, nil, []event{{7, 0, 0}}},
		"the first clock":      {[][]byte{clock(1, hour), clock(2, 5), clock(3, 6)}, []time.Duration{5}, []event{{2, 0, 0}}},
		"two at once":          {[][]byte{clock(1, 5), clock(2, 5)}, []time.Duration{5}, []event{{1, 0, 0}, {2, 0, 0}}},
		"longer than for ever": {[][]byte{clock(1, math.MaxUint64)}, []time.Duration{math.MaxInt64}, []event{{1, 0, 0}}},
		"absolute":             {[][]byte{at(1, clockMonotonic, 1100)}, []time.Duration{100}, []event{{1, 0, 0}}},
		"absolute, real":       {[][]byte{at(1, clockRealtime, 5100)}, []time.Duration{100}, []event{{1, 0, 0}}},
		"absolute, past":       {[][]byte{at(1, clockRealtime, 4000), clock(2, 1)}, nil, []event{{1, 0, 0}}},
		"input":                {[][]byte{fd(1, eventRead, 0)}, nil, []event{{1, 0, 1}}},
		"output and a clock":   {[][]byte{clock(9, hour), fd(1, eventWrite, 1), fd(2, eventWrite, 2)}, nil, []event{{1, 0, 2}, {2, 0, 2}}},
		"wrong direction":      {[][]byte{fd(1, eventWrite, 0), fd(2, eventRead, 1)}, nil, []event{{1, uint16(Badf), 2}, {2, uint16(Badf), 1}}},
		"no such file":         {[][]byte{fd(1, eventRead, 5)}, nil, []event{{1, uint16(Badf), 1}}},
		"no such kind":         {[][]byte{fd(1, 9, 0), clock(2, 0)}, nil, []event{{1, uint16(Inval), 9}, {2, 0, 0}}},
	} {
		// Once with the answers elsewhere, once over the questions.
		for _, out := range []uint32{8192, 0} {
			mem := newMemory(t)
			g := &fake{real: 5000, mono: 1000}
			mem.Write(0, slices.Concat(c.subs...))
			if got := call(g, mem, "poll_oneoff", 0, uint64(out), uint64(len(c.subs)), 16384); got != Success {
				t.Errorf("%s gave %d", name, got)
				continue
			}
			n, _ := mem.ReadUint32Le(16384)
			var got []event
			for k := range n {
				b, _ := mem.Read(out+k*eventSize, eventSize)
				got = append(got, event{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint16(b[8:]), b[10]})
			}
			if !slices.Equal(got, c.want) || !slices.Equal(g.slept, c.slept) {
				t.Errorf("%s gave %v after %v, want %v after %v", name, got, g.slept, c.want, c.slept)
			}
		}
	}
	mem := newMemory(t)
	for _, n := range []uint64{0, maxSubscriptions + 1, math.MaxUint32, 1 << 28} {
		g := &fake{}
		if got := call(g, mem, "poll_oneoff", 0, 0, n, 64); got != Inval || g.slept != nil {
			t.Errorf("%d questions gave %d", n, got)
		}
	}
}

// FuzzMemoryContents lets a guest put anything where a call looks for its
// structures. Nothing may panic, and no more be given than there is.
func FuzzMemoryContents(f *testing.F) {
	f.Add([]byte(nil), uint32(0), uint32(64), uint32(1))
	f.Add(words(1000, 4, 2000, 0, 3000, 100), uint32(0), uint32(64), uint32(3))
	f.Add(words(0, math.MaxUint32, math.MaxUint32, 1), uint32(0), uint32(0), uint32(2))
	f.Add(slices.Concat(subscription(1, 0, 1, 5, 0), subscription(2, 1, 0, 0, 0)), uint32(0), uint32(32), uint32(2))
	f.Add(bytes.Repeat([]byte{0xff}, 200), uint32(memorySize-48), uint32(4), uint32(1))
	mem := newMemory(f)
	blank := make([]byte, memorySize)
	f.Fuzz(func(t *testing.T, data []byte, at, out, n uint32) {
		for name, params := range map[string][]uint64{
			"fd_read": {0, uint64(at), uint64(n), uint64(out)}, "fd_write": {1, uint64(at), uint64(n), uint64(out)},
			"poll_oneoff": {uint64(at), uint64(out), uint64(n), uint64(at) + uint64(out)},
			"args_get":    {uint64(at), uint64(out)}, "random_get": {uint64(at), uint64(n)},
		} {
			mem.Write(0, blank)
			mem.Write(0, data[:min(len(data), memorySize)])
			mem.Write(at, data[:min(len(data), memorySize)])
			g := &fake{in: data, args: []string{string(data), "x"}}
			before := len(g.in)
			errno := call(g, mem, name, params...)
			if len(g.slept) > 1 || len(g.slept) == 1 && g.slept[0] <= 0 {
				t.Errorf("%s slept %v", name, g.slept)
			}
			if len(g.out) > maxVectors*memorySize || len(g.in) > before {
				t.Errorf("%s wrote %d bytes", name, len(g.out))
			}
			if errno == Success && name == "fd_write" {
				if total, ok := mem.ReadUint32Le(out); !ok || int(total) != len(g.out) {
					t.Errorf("%d bytes were written and %d reported", len(g.out), total)
				}
			}
		}
	})
}
