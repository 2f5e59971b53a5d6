package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// sink counts writes and keeps what was written. Before each write it waits for
// gate, when there is one.
type sink struct {
	gate   chan struct{}
	err    error
	writes int
	data   []byte
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.writes++
	if s.err != nil {
		return 0, s.err
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

// streams lists the streams of the frames in data, in order.
func streams(t *testing.T, data []byte) (order []uint32) {
	t.Helper()
	r := NewReader(bytes.NewReader(data))
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return order
		}
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, f.Stream)
	}
}

func TestHeldFramesLeaveInOneWriteWhenFlushed(t *testing.T) {
	t.Parallel()
	s := &sink{}
	w := NewWriter(s)
	for i := range uint32(5) {
		if err := w.Hold(Result, i, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if s.writes != 0 {
		t.Fatalf("%d writes before the flush", s.writes)
	}
	for range 2 { // the second has nothing to write
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if got := streams(t, s.data); s.writes != 1 || len(got) != 5 || got[0] != 0 || got[4] != 4 {
		t.Errorf("%d writes of streams %v", s.writes, got)
	}
}

// Frames that come while somebody gathers or writes leave with the next write, from
// whichever goroutine, and each stream's stay in order.
func TestGatheredFramesArriveOnceAndInOrder(t *testing.T) {
	t.Parallel()
	s := &sink{}
	w := NewWriter(s)
	var wg sync.WaitGroup
	const workers, each = 8, 200
	for g := range uint32(workers) {
		wg.Go(func() {
			for i := range uint32(each) {
				payload := binary.LittleEndian.AppendUint32(nil, i)
				if err := w.Gather(Body, g, payload); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	next := map[uint32]uint32{}
	r := NewReader(bytes.NewReader(s.data))
	for range workers * each {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if n := binary.LittleEndian.Uint32(f.Payload); n != next[f.Stream] {
			t.Fatalf("stream %d: frame %d where %d was due", f.Stream, n, next[f.Stream])
		}
		next[f.Stream]++
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("more than was sent: %v", err)
	}
}

// While one goroutine is in a write, the frames of all others gather for the next.
func TestFramesDuringAWriteShareTheNext(t *testing.T) {
	t.Parallel()
	s := &sink{gate: make(chan struct{})}
	w := NewWriter(s)
	first := make(chan error)
	go func() { first <- w.Gather(Invoke, 1) }()
	for writing := false; !writing; runtime.Gosched() { // until its frame was taken
		w.mu.Lock()
		writing = w.writing && len(w.pending) == 0
		w.mu.Unlock()
	}
	for i := range uint32(20) {
		if err := w.Gather(Invoke, 2+i); err != nil {
			t.Fatal(err)
		}
	}
	s.gate <- struct{}{}
	s.gate <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if got := streams(t, s.data); s.writes != 2 || len(got) != 21 {
		t.Errorf("%d writes of streams %v", s.writes, got)
	}
}

func TestGatherAndFlushTellOfABrokenConnection(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	w := NewWriter(&sink{err: broken})
	if err := w.Gather(Invoke, 1); !errors.Is(err, broken) {
		t.Errorf("gather: %v", err)
	}
	if err := w.Gather(Invoke, 1); !errors.Is(err, broken) {
		t.Errorf("gather again: %v", err)
	}
	if err := w.Flush(); !errors.Is(err, broken) {
		t.Errorf("flush: %v", err)
	}
	w = NewWriter(&sink{})
	w.Close()
	if err := w.Gather(Invoke, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("gather after the end: %v", err)
	}
	if err := w.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("flush after the end: %v", err)
	}
}

// pieces gives what it holds, one piece for each read.
type pieces [][]byte

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	*p = (*p)[1:]
	return n, nil
}

func TestBufferedMeansAWholeFrame(t *testing.T) {
	t.Parallel()
	whole := AppendFrame(nil, Result, 1, []byte("abc"))
	two := AppendFrame(bytes.Clone(whole), Result, 2, []byte("defg"))
	for cut := len(whole); cut <= len(two); cut++ {
		r := NewReader(&pieces{two[:cut], two[cut:]})
		if r.Buffered() {
			t.Fatal("something is there before anything was read")
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if got, want := r.Buffered(), cut == len(two); got != want {
			t.Errorf("%d of %d bytes of the second frame: %v", cut-len(whole), len(two)-len(whole), got)
		}
	}
	// What Next refuses at once, it need not wait for.
	r := NewReader(&pieces{append(bytes.Clone(whole), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0)})
	if _, err := r.Next(); err != nil || !r.Buffered() {
		t.Errorf("a refused header is waited for: %v", err)
	}
}

// BenchmarkRoundTrip sends frames from 32 goroutines through a pipe to one that
// answers each, and reports how many writes a frame costs.
func BenchmarkRoundTrip(b *testing.B) {
	for name, send := range map[string]func(*Writer, uint32, []byte) error{
		"Send":   func(w *Writer, s uint32, p []byte) error { return w.Send(Invoke, s, p) },
		"Gather": func(w *Writer, s uint32, p []byte) error { return w.Gather(Invoke, s, p) },
	} {
		b.Run(name, func(b *testing.B) {
			from, to, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			counted := &counter{w: to}
			w := NewWriter(counted)
			const most = 64
			var answers [most]chan struct{}
			for i := range answers {
				answers[i] = make(chan struct{}, 1)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for r := NewReader(from); ; {
					f, err := r.Next()
					if err != nil {
						return
					}
					answers[f.Stream] <- struct{}{}
				}
			}()
			var workers atomic.Uint32
			b.SetParallelism(32 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				me := workers.Add(1) % most
				payload := make([]byte, 400)
				for pb.Next() {
					if err := send(w, me, payload); err != nil {
						b.Error(err)
						return
					}
					<-answers[me]
				}
			})
			b.ReportMetric(float64(counted.n.Load())/float64(b.N), "writes/frame")
			_ = to.Close()
			<-ended
			_ = from.Close()
		})
	}
}

type counter struct {
	w io.Writer
	n atomic.Int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.w.Write(p)
}
