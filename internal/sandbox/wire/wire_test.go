package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

func TestFramesComeBackHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	var b []byte
	big := bytes.Repeat([]byte("b"), MaxPayload)
	for i, p := range [][]byte{nil, []byte("a"), big, []byte("c"), big} {
		b = AppendFrame(b, Log, uint32(i), p)
	}
	for name, src := range map[string]io.Reader{
		"whole": bytes.NewReader(b), "bytes": iotest.OneByteReader(bytes.NewReader(b)), "halves": iotest.HalfReader(bytes.NewReader(b)),
	} {
		r := NewReader(src)
		for i, n := range []int{0, 1, MaxPayload, 1, MaxPayload} {
			f, err := r.Next()
			if err != nil || f.Type != Log || f.Stream != uint32(i) || len(f.Payload) != n {
				t.Fatalf("%s: frame %d is %v %d with %d bytes, %v", name, i, f.Type, f.Stream, len(f.Payload), err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the end is %v", name, err)
		}
	}
}

func TestBrokenFramesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"too long":         {[]byte{1, 0, 1, 0, byte(Log), 0, 0, 0, 0}, ErrFrame},
		"far too long":     {[]byte{255, 255, 255, 255, byte(Log), 0, 0, 0, 0}, ErrFrame},
		"type zero":        {[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0}, ErrFrame},
		"unknown type":     {[]byte{0, 0, 0, 0, 200, 0, 0, 0, 0}, ErrFrame},
		"header cut off":   {[]byte{0, 0, 0}, io.ErrUnexpectedEOF},
		"payload cut off":  {[]byte{2, 0, 0, 0, byte(Log), 0, 0, 0, 0, 1}, io.ErrUnexpectedEOF},
		"payload missing":  {[]byte{2, 0, 0, 0, byte(Log), 0, 0, 0, 0}, io.ErrUnexpectedEOF},
		"nothing and over": {nil, io.EOF},
	} {
		if _, err := NewReader(bytes.NewReader(c.bytes)).Next(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWriterKeepsTheOrderOfEachStream(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	w := NewWriter(ours)
	const streams, frames = 8, 200
	var wg sync.WaitGroup
	for s := range uint32(streams) {
		wg.Go(func() {
			for i := range frames {
				payload := bytes.Repeat([]byte{byte(i)}, 1+i*37)
				send := w.Send
				if i%5 == 0 && i < frames-1 {
					send = w.Hold
				}
				if err := send(Body, s, payload); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
			}
		})
	}
	r := NewReader(theirs)
	var next [streams]int
	for range streams * frames {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		i := next[f.Stream]
		if len(f.Payload) != 1+i*37 || f.Payload[0] != byte(i) {
			t.Fatalf("stream %d has frame %d where %d was due", f.Stream, f.Payload[0], i)
		}
		next[f.Stream]++
	}
	wg.Wait()
}

func TestWriterBoundsWhatWaits(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	w := NewWriter(ours)
	ended := make(chan error, 16)
	for s := range uint32(16) {
		go func() { ended <- w.SendAll(Body, s, make([]byte, 2<<20)) }()
	}
	// Nobody reads, so nobody ends, and little is held.
	select {
	case err := <-ended:
		t.Fatalf("a sender ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	w.mu.Lock()
	held := len(w.pending)
	w.mu.Unlock()
	if held > maxPending+headerSize+MaxPayload {
		t.Errorf("%d bytes wait", held)
	}
	w.Close()
	_ = theirs.Close()
	for range 16 {
		if err := <-ended; err == nil {
			t.Error("a send succeeded after the end")
		}
	}
}

// Every value of an Outcome has a place of its own.
func TestOutcomeComesBackWhole(t *testing.T) {
	t.Parallel()
	want := Outcome{Wall: 1, CPU: 2, MemoryPeak: 3, BytesOut: 4, LogBytes: 5, LogDropped: 6, Fuel: 7, Calls: 8}
	b := AppendOutcome(nil, want)
	if len(b) != OutcomeSize {
		t.Errorf("%d bytes, want %d", len(b), OutcomeSize)
	}
	got, rest, err := ParseOutcome(append(b, "rest"...))
	if err != nil || got != want || string(rest) != "rest" {
		t.Errorf("got %+v, %q, %v", got, rest, err)
	}
	for i := range OutcomeSize / 8 {
		negative := bytes.Clone(b)
		negative[i*8+7] = 0x80
		if _, _, err := ParseOutcome(negative); !errors.Is(err, ErrFrame) {
			t.Errorf("value %d is negative: %v", i, err)
		}
	}
}

// The kinds that a sandbox may give, and those that are the node's alone.
func TestFailuresOfBothNewLimitsArePassedOn(t *testing.T) {
	t.Parallel()
	for kind, want := range map[sandbox.Kind]bool{
		sandbox.CPU: true, sandbox.Calls: true, sandbox.Timeout: true, sandbox.Lost: false, "": false, "other": false,
	} {
		b, err := AppendJSON(nil, Failure{Kind: kind, Public: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFailure(b); (err == nil) != want {
			t.Errorf("kind %q: %v", kind, err)
		}
	}
}

// FuzzReader reads whatever comes: it must end, and give back what it was given.
func FuzzReader(f *testing.F) {
	f.Add(AppendFrame(AppendFrame(nil, Log, 1, []byte("x")), Cancel, 2))
	f.Add([]byte{0, 0, 1, 0, 10, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(iotest.HalfReader(bytes.NewReader(data)))
		var again []byte
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			again = AppendFrame(again, frame.Type, frame.Stream, frame.Payload)
		}
		if !bytes.HasPrefix(data, again) {
			t.Error("the frames are not those that were written")
		}
	})
}

// FuzzMessages parses whatever comes as each kind of message.
func FuzzMessages(f *testing.F) {
	f.Add(AppendOutcome(nil, Outcome{Wall: 1, BytesOut: 3}))
	f.Add(AppendStart(nil, Start{Version: 1, Input: 9}))
	f.Add(AppendLine(AppendLine(nil, 1, []byte("a")), 2, []byte("b")))
	f.Add([]byte(`{"kind":"trap","public":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, rest, err := ParseOutcome(data); err == nil && (o.Wall < 0 || o.BytesOut < 0 || len(rest) > len(data)) {
			t.Errorf("accepted %+v", o)
		}
		if s, rest, err := ParseStart(data); err == nil && (s.Input > MaxInput || len(rest) > int(s.Input)) {
			t.Errorf("accepted %+v with %d bytes", s, len(rest))
		}
		for p := data; len(p) > 0; {
			_, _, rest, err := ParseLine(p)
			if err != nil {
				break
			}
			if len(rest) >= len(p) {
				t.Fatal("no progress")
			}
			p = rest
		}
		if fl, err := ParseFailure(data); err == nil && (len(fl.Public) > maxFailureText || len(fl.Cause) > maxFailureText) {
			t.Errorf("accepted %d bytes of text", len(fl.Public))
		}
	})
}
