package connector

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// node plays the node's side by hand.
type node struct {
	t   *testing.T
	in  *io.PipeWriter
	out *bufio.Scanner
	end chan error
}

const started = `{"message":"start","protocol":1,"kind":"k","trigger":"a/b/c","settings":{"x":1},"secrets":{"password":"czNjcmV0"},"credits":{"events":%d,"bytes":%d,"line":%d},"position":"p"}`

// begin serves a connector and reads its first line.
func begin(t *testing.T, c Connector) *node {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	n := &node{t: t, in: inW, out: bufio.NewScanner(outR), end: make(chan error, 1)}
	n.out.Buffer(nil, 32<<20)
	if c.Kinds == nil {
		c.Kinds = []Kind{{Name: "k"}}
	}
	go func() {
		err := Serve(t.Context(), c, inR, outW)
		outW.Close()
		n.end <- err
	}()
	t.Cleanup(func() { inW.Close(); outR.Close() })
	if m := n.next(); m.Message != "ready" || len(m.Protocols) != 1 || m.Protocols[0] != 1 || m.Kinds[0].Name != "k" {
		t.Fatalf("first message %+v", m)
	}
	return n
}

func (n *node) say(format string, args ...any) {
	n.t.Helper()
	if _, err := fmt.Fprintf(n.in, format+"\n", args...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) next() *message {
	n.t.Helper()
	if !n.out.Scan() {
		n.t.Fatalf("the connector said no more: %v", n.out.Err())
	}
	m := new(message)
	if err := json.Unmarshal(n.out.Bytes(), m); err != nil {
		n.t.Fatalf("%v: %s", err, n.out.Bytes())
	}
	return m
}

func TestRunHasWhatTheNodeSays(t *testing.T) {
	t.Parallel()
	got := make(chan Start, 1)
	n := begin(t, Connector{Run: func(ctx context.Context, s Start, _ *Session) error {
		got <- s
		<-ctx.Done()
		return ctx.Err()
	}})
	n.say(started, 10, 1000, 1000)
	s := <-got
	if s.Kind != "k" || s.Trigger != "a/b/c" || string(s.Settings) != `{"x":1}` || s.Connection != nil || string(s.Secrets["password"]) != "s3cret" || s.Position != "p" {
		t.Errorf("%+v", s)
	}
	n.say(`{"message":"ping","id":7}`)
	if m := n.next(); m.Message != "pong" || m.ID != 7 {
		t.Errorf("%+v", m)
	}
	n.say(`{"message":"stop"}`)
	if err := <-n.end; err != nil {
		t.Error(err)
	}
}

// ids gives n events with ids from first on.
func ids(first, n int) []Event {
	events := make([]Event, n)
	for i := range events {
		events[i] = Event{ID: fmt.Sprint(first + i), Type: "t", Data: []byte(`{"a": 1}`), Detail: map[string]string{"d": fmt.Sprint(first + i)}}
	}
	return events
}

func TestEmitKeepsToItsCreditsAndReoffersAllButTheRefused(t *testing.T) {
	t.Parallel()
	type outcome struct {
		refusals []Refusal
		err      error
	}
	done := make(chan outcome, 1)
	n := begin(t, Connector{Run: func(ctx context.Context, _ Start, s *Session) error {
		r, err := s.Emit(ctx, ids(0, 5))
		done <- outcome{r, err}
		<-ctx.Done()
		return nil
	}})
	n.say(started, 3, 100000, 100000)
	m := n.next()
	if m.Message != "events" || len(m.Events) != 3 || len(m.Detail) != 3 || m.Detail[2]["d"] != "2" {
		t.Fatalf("%+v", m)
	}
	var e map[string]any
	if err := json.Unmarshal(m.Events[1], &e); err != nil {
		t.Fatal(err)
	}
	if e["specversion"] != "1.0" || e["id"] != "1" || e["source"] != "/connectors/k" || e["type"] != "t" || e["data_base64"] != "eyJhIjogMX0=" {
		t.Errorf("%v", e)
	}
	n.say(`{"message":"refused","id":%d,"index":1,"reason":"no"}`, m.ID)
	again := n.next()
	if again.ID <= m.ID || len(again.Events) != 2 || again.Detail[0]["d"] != "0" || again.Detail[1]["d"] != "2" {
		t.Fatalf("%+v", again)
	}
	n.say(`{"message":"accepted","id":%d}`, again.ID)
	rest := n.next()
	if len(rest.Events) != 2 || rest.Detail[0]["d"] != "3" {
		t.Fatalf("%+v", rest)
	}
	n.say(`{"message":"refused","id":%d,"reason":"all of it"}`, rest.ID)
	o := <-done
	if o.err != nil || len(o.refusals) != 3 || o.refusals[0] != (Refusal{1, "no"}) || o.refusals[2] != (Refusal{4, "all of it"}) {
		t.Errorf("%+v", o)
	}
}

func TestEmitWaitsForCredits(t *testing.T) {
	t.Parallel()
	n := begin(t, Connector{Run: func(ctx context.Context, _ Start, s *Session) error {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if _, err := s.Emit(ctx, ids(10*i, 2)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		return s.Position("done")
	}})
	n.say(started, 5, 1100, 1000)
	open, events := map[uint64]int{}, 0
	for {
		m := n.next()
		if m.Message == "position" {
			break
		}
		if m.Message != "events" {
			t.Fatalf("%+v", m)
		}
		open[m.ID] = len(m.Events)
		left := 0
		for _, k := range open {
			left += k
		}
		if left > 5 {
			t.Fatalf("%d events without an answer", left)
		}
		events += len(m.Events)
		if left > 3 || events == 40 { // nothing more can come: only now it is answered
			for id := range open {
				n.say(`{"message":"accepted","id":%d}`, id)
				delete(open, id)
			}
		}
	}
	if events != 40 {
		t.Errorf("%d events", events)
	}
}

func TestEventLongerThanALineIsRefusedHere(t *testing.T) {
	t.Parallel()
	done := make(chan []Refusal, 1)
	n := begin(t, Connector{Run: func(ctx context.Context, _ Start, s *Session) error {
		events := ids(0, 3)
		events[1].Data = make([]byte, 2000)
		r, err := s.Emit(ctx, events)
		if err != nil {
			t.Error(err)
		}
		done <- r
		<-ctx.Done()
		return nil
	}})
	n.say(started, 10, 5000, 1000)
	m := n.next()
	if len(m.Events) != 2 || m.Detail[1]["d"] != "2" {
		t.Fatalf("%+v", m)
	}
	n.say(`{"message":"accepted","id":%d}`, m.ID)
	if r := <-done; len(r) != 1 || r[0].Index != 1 {
		t.Errorf("%+v", r)
	}
}

func TestFailureIsToldAsHealth(t *testing.T) {
	t.Parallel()
	n := begin(t, Connector{Run: func(context.Context, Start, *Session) error { return errors.New("no such stream") }})
	n.say(started, 10, 1000, 1000)
	if m := n.next(); m.Message != "health" || m.State != Failing || m.Reason != "no such stream" {
		t.Errorf("%+v", m)
	}
	if err := <-n.end; err == nil || err.Error() != "no such stream" {
		t.Error(err)
	}
}

func TestNodeThatGoesEndsTheSession(t *testing.T) {
	t.Parallel()
	waiting, got := make(chan struct{}), make(chan error, 1)
	n := begin(t, Connector{Run: func(ctx context.Context, _ Start, s *Session) error {
		close(waiting)
		// A context that does not end: the session itself must.
		_, err := s.Emit(context.WithoutCancel(ctx), ids(0, 1))
		got <- err
		return err
	}})
	n.say(started, 10, 1000, 1000)
	<-waiting
	n.next()
	n.in.Close()
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := <-n.end; err != nil {
		t.Error(err)
	}
}

func TestNodeThatBreaksTheProtocol(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"no JSON":             `hello`,
		"unknown message":     `{"message":"dance"}`,
		"answer to nothing":   `{"message":"accepted","id":3}`,
		"second start":        fmt.Sprintf(started, 1, 1, 1),
		"line without an end": strings.Repeat(" ", maxNodeLine+1) + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := begin(t, Connector{Run: func(ctx context.Context, _ Start, _ *Session) error { <-ctx.Done(); return nil }})
			n.say(started, 10, 1000, 1000)
			go func() { _, _ = n.in.Write([]byte(line + "\n")) }() // what is too long is not read to its end
			if err := <-n.end; !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("another version", func(t *testing.T) {
		t.Parallel()
		n := begin(t, Connector{Run: func(context.Context, Start, *Session) error { t.Error("it ran"); return nil }})
		n.say(strings.Replace(fmt.Sprintf(started, 1, 1, 1), `"protocol":1`, `"protocol":2`, 1))
		if err := <-n.end; !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := Connector{Check: func(c Check) error {
		if c.Connection != nil && len(c.Secrets) == 1 {
			return nil
		}
		return &FieldError{"stream", "must be a name"}
	}}
	n := begin(t, c)
	n.say(`{"message":"check","protocol":1,"kind":"k","settings":{}}`)
	if m := n.next(); m.Message != "checked" || m.Field != "stream" || m.Reason != "must be a name" {
		t.Errorf("%+v", m)
	}
	n = begin(t, c)
	n.say(`{"message":"check","protocol":1,"kind":"k","connection":{},"secretNames":["password"]}`)
	if m := n.next(); m.Message != "checked" || m.Field != "" || m.Reason != "" {
		t.Errorf("%+v", m)
	}
}

// TestConversation reads the lines that the node's tests read too, each as the side that
// gets it.
func TestConversation(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/conversation.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"start": true, "check": true, "accepted": true, "refused": true, "ping": true, "stop": true}
	read := 0
	for line := range strings.Lines(string(b)) {
		text, ours := strings.CutPrefix(line, "N ")
		if !ours {
			continue
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		var m message
		if err := d.Decode(&m); err != nil || !known[m.Message] {
			t.Errorf("%v: %s", err, text)
		}
		read++
	}
	if read != 7 {
		t.Errorf("%d lines of the node", read)
	}
}

func FuzzListen(f *testing.F) {
	b, err := os.ReadFile("testdata/conversation.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, text, ok := strings.Cut(line, " "); ok {
			f.Add(text + `{"message":"accepted","id":1}` + "\n")
		}
	}
	f.Fuzz(func(_ *testing.T, lines string) {
		// Whatever a node says, the session ends when it has said it.
		_ = Serve(context.Background(), Connector{
			Kinds: []Kind{{Name: "k"}},
			Run: func(ctx context.Context, _ Start, s *Session) error {
				_, _ = s.Emit(ctx, ids(0, 2))
				<-ctx.Done()
				return nil
			},
		}, strings.NewReader(lines), io.Discard)
	})
}
