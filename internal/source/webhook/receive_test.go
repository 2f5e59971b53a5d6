package webhook

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

const timedSettings = `{"path":"/in","provider":"hmac","hmac":{"header":"x-sig","signed":"{id}.{timestamp}.{body}","timestampHeader":"x-time","idHeader":"x-id"}}`

func timed(id string, at time.Time, body string) Request {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return post(body, "x-sig", hex.EncodeToString(mac256(testKey, id+"."+stamp+"."+body)), "x-time", stamp, "x-id", id)
}

func TestReplayMakesNoSecondEvent(t *testing.T) {
	t.Parallel()
	store := &memory{}
	o := opened(t, timedSettings, secrets(map[string]string{"key": testKey}), store)
	send := func(r Request, status, events int) {
		t.Helper()
		o.sink.forget() // the replay store alone decides here
		a, err := o.receive(t, r)
		if err != nil || a.Status != status || o.sink.count() != events {
			t.Errorf("got %+v, %v and %d events; want %d and %d", a, err, o.sink.count(), status, events)
		}
	}
	send(timed("a", instant, "x"), 202, 1)
	send(timed("a", instant, "x"), 202, 1)                  // recorded and sent again
	send(timed("a", instant.Add(time.Second), "x"), 202, 1) // the sender's own second attempt
	send(timed("b", instant, "x"), 202, 2)
	// At both ends of the window, after a restart as well.
	ahead := timed("ahead", instant.Add(DefaultTolerance), "x")
	send(ahead, 202, 3)
	o.stop()
	o.run(t, timedSettings, secrets(map[string]string{"key": testKey}))
	o.wait(2 * DefaultTolerance)
	send(ahead, 202, 3)
	o.wait(time.Second)
	var no *Refusal
	if _, err := o.receive(t, ahead); !errors.As(err, &no) || no.Code != Stale {
		t.Errorf("got %v", err)
	}
	// Long after, the sender repeats an id with a time of its own: still the same event.
	o.wait(23 * time.Hour)
	send(timed("a", o.clock(), "x"), 202, 3)
	o.wait(2 * time.Hour)
	send(timed("a", o.clock(), "x"), 202, 4) // forgotten, as the settings say
}

// TestWhatIsNotTakenIsNotRemembered: who was told to come again is let in when he does.
func TestWhatIsNotTakenIsNotRemembered(t *testing.T) {
	t.Parallel()
	store := &memory{}
	o := opened(t, timedSettings, secrets(map[string]string{"key": testKey}), store)
	status := func(want int) {
		t.Helper()
		a, err := o.receive(t, timed("a", instant, "x"))
		var no *Refusal
		got := a.Status
		if errors.As(err, &no) {
			got = no.Status()
		}
		if got != want {
			t.Errorf("got %d (%v), want %d", got, err, want)
		}
	}
	o.sink.fail = errors.New("full")
	status(503)
	if h := <-o.health; h.State != source.Failing {
		t.Errorf("got %+v", h)
	}
	o.sink.fail = fmt.Errorf("trigger: %w", source.ErrRefused)
	status(410)
	o.sink.fail = nil
	status(202)
	if o.sink.count() != 1 {
		t.Errorf("got %d events", o.sink.count())
	}
	// The store fails after the event is on disk: the sender comes again, the sink knows it.
	store.mu.Lock()
	store.fail = errors.New("disk")
	store.mu.Unlock()
	if _, err := o.receive(t, timed("b", instant, "x")); err == nil {
		t.Error("answered before the id was on disk")
	}
	store.mu.Lock()
	store.fail = nil
	store.mu.Unlock()
	if _, err := o.receive(t, timed("b", instant, "x")); err != nil || o.sink.count() != 2 {
		t.Errorf("got %v and %d events", err, o.sink.count())
	}
}

// TestManyAtOnce hammers one trigger with fresh and repeated requests; run it with -race.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	store := &memory{}
	o := opened(t, timedSettings, secrets(map[string]string{"key": testKey}), store)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("m%d", (i+w*50)%300)
				if _, err := o.receive(t, timed(id, instant, "x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if o.sink.count() != 300 {
		t.Errorf("got %d events, want 300", o.sink.count())
	}
	again, err := OpenReplays(t.Context(), store, DefaultKeep)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if !again.Taken(instant, fmt.Sprintf("m%d", i)) {
			t.Fatalf("m%d is forgotten after a restart", i)
		}
	}
}

func TestReplaysWriteTogether(t *testing.T) {
	t.Parallel()
	store := &memory{gate: make(chan struct{})}
	r, err := OpenReplays(t.Context(), store, DefaultKeep)
	if err != nil {
		t.Fatal(err)
	}
	must := instant.Add(time.Minute)
	var all sync.WaitGroup
	all.Go(func() { _ = r.Record(t.Context(), instant, must, []string{"first"}) })
	store.gate <- struct{}{} // its head is written; its segment waits below
	for i := range 50 {
		all.Go(func() { _ = r.Record(t.Context(), instant, must, []string{strconv.Itoa(i)}) })
	}
	for waiting := 0; waiting < 50; {
		r.mu.Lock()
		waiting = 0
		if r.waiting != nil {
			waiting = len(r.waiting.ids)
		}
		r.mu.Unlock()
		runtime.Gosched()
	}
	store.gate <- struct{}{} // the first one's segment
	store.gate <- struct{}{} // and one for all others
	all.Wait()
	if store.puts != 3 {
		t.Errorf("51 ids took %d writes, want 3", store.puts)
	}
}

func TestReplaysAreBounded(t *testing.T) {
	t.Parallel()
	store := &memory{}
	r, err := OpenReplays(t.Context(), store, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(name string, now time.Time, n int) error {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = name + strconv.Itoa(i)
		}
		return r.Record(t.Context(), now, now.Add(5*time.Minute), ids)
	}
	if err := fill("a", instant, MaxRemembered); err != nil {
		t.Fatal(err)
	}
	if r.Room(instant, 1) || fill("b", instant, 1) == nil {
		t.Error("an id that must be remembered was pushed out")
	}
	if !r.Taken(instant, "a0") || r.Taken(instant, "b0") {
		t.Error("what is remembered is wrong")
	}
	// After the window the oldest make room, though an hour has not passed.
	later := instant.Add(5*time.Minute + 2*time.Second)
	if !r.Room(later, segmentIDs) {
		t.Error("there is no room after the window")
	}
	if err := fill("c", later, 1); err != nil {
		t.Fatal(err)
	}
	if r.Taken(later, "a0") || !r.Taken(later, "a"+strconv.Itoa(segmentIDs)) || !r.Taken(later, "c0") {
		t.Error("what is remembered is wrong after making room")
	}
	if len(store.values) > maxSegments+1 {
		t.Errorf("the store holds %d values", len(store.values))
	}
	again, err := OpenReplays(t.Context(), store, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if again.Taken(later, "a0") || !again.Taken(later, "a"+strconv.Itoa(segmentIDs)) || !again.Taken(later, "c0") {
		t.Error("what is remembered is wrong after a restart")
	}
	// Everything is over: the next segment forgets all before it.
	end := later.Add(2 * time.Hour)
	if err := fill("d", end, segmentIDs); err != nil {
		t.Fatal(err)
	}
	if len(r.ring) > 2 || len(r.until) > 2*segmentIDs {
		t.Errorf("%d segments and %d ids are kept for nothing", len(r.ring), len(r.until))
	}
}

// TestIDsOutliveTheSignedTime: a time ahead of ours is let in for longer than from now.
func TestIDsOutliveTheSignedTime(t *testing.T) {
	t.Parallel()
	v := verifier(t, timedSettings, map[string]string{"key": testKey})
	at := instant.Add(4 * time.Minute)
	d, err := v.Verify(instant, timed("a", at, "x"))
	if err != nil || !d.Until.Equal(at.Add(DefaultTolerance)) {
		t.Fatalf("got %+v, %v", d, err)
	}
	r, err := OpenReplays(t.Context(), &memory{}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Record(t.Context(), instant, d.Until, []string{"a"}); err != nil || !r.Taken(d.Until, "a") {
		t.Errorf("%v, or forgotten while the request would still be let in", err)
	}
}

// TestWithoutRoomNothingIsTaken: what could be replayed is not let in first.
func TestWithoutRoomNothingIsTaken(t *testing.T) {
	t.Parallel()
	o := opened(t, timedSettings, secrets(map[string]string{"key": testKey}), &memory{})
	o.hooks.mu.RLock()
	r := o.hooks.doors[address{"shop", "/in"}].replays
	o.hooks.mu.RUnlock()
	ids := make([]string, MaxRemembered)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	if err := r.Record(t.Context(), instant, instant.Add(time.Minute), ids); err != nil {
		t.Fatal(err)
	}
	var no *Refusal
	if _, err := o.receive(t, timed("a", instant, "x")); !errors.As(err, &no) || no.Code != Busy || o.sink.count() != 0 {
		t.Errorf("got %v and %d events", err, o.sink.count())
	}
	o.wait(2 * time.Minute)
	if _, err := o.receive(t, timed("a", instant, "x")); err != nil || o.sink.count() != 1 {
		t.Errorf("got %v and %d events", err, o.sink.count())
	}
}

// TestReplaysSurviveEveryCrash stops the store after each of its writes, and opens again
// what was on disk then: what Record acknowledged is known, whenever it happens.
func TestReplaysSurviveEveryCrash(t *testing.T) {
	t.Parallel()
	const groups, size = 9, 300 // several segments
	for stop := 1; ; stop++ {
		store := &stopping{left: stop}
		r, err := OpenReplays(t.Context(), store, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for g := range groups {
			ids := make([]string, size)
			for i := range ids {
				ids[i] = fmt.Sprintf("%d/%d", g, i)
			}
			if r.Record(t.Context(), instant, instant.Add(time.Minute), ids) == nil {
				kept = append(kept, ids...)
			}
		}
		again, err := OpenReplays(t.Context(), &store.memory, time.Hour)
		if err != nil {
			t.Fatalf("after %d writes: %v", stop, err)
		}
		for _, id := range kept {
			if !again.Taken(instant, id) {
				t.Fatalf("after %d writes: %s is forgotten", stop, id)
			}
		}
		if err := again.Record(t.Context(), instant, instant, []string{"after"}); err != nil || !again.Taken(instant, "after") {
			t.Fatalf("after %d writes: %v", stop, err)
		}
		if len(kept) == groups*size {
			return
		}
	}
}

// TestReplayStoreThatIsDamagedIsSaid: to begin with an empty one would let replays in.
func TestReplayStoreThatIsDamagedIsSaid(t *testing.T) {
	t.Parallel()
	store := &memory{}
	r, _ := OpenReplays(t.Context(), store, time.Hour)
	if err := r.Record(t.Context(), instant, instant, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string][]byte){
		"head cut":       func(v map[string][]byte) { v["replay"] = v["replay"][:15] },
		"head beyond":    func(v map[string][]byte) { v["replay"] = bytes.Repeat([]byte{0xff}, 16) },
		"head reversed":  func(v map[string][]byte) { v["replay"][0] = 9 },
		"segment cut":    func(v map[string][]byte) { v["replay-0"] = v["replay-0"][:20] },
		"segment ahead":  func(v map[string][]byte) { v["replay-0"][0] = 9 },
		"segment shrunk": func(v map[string][]byte) { v["replay-0"] = v["replay-0"][:4] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			damaged := &memory{values: make(map[string][]byte)}
			for k, v := range store.values {
				damaged.values[k] = append([]byte(nil), v...)
			}
			change(damaged.values)
			if _, err := OpenReplays(t.Context(), damaged, time.Hour); !errors.Is(err, errReplays) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDoors(t *testing.T) {
	t.Parallel()
	key := secrets(map[string]string{"key": testKey})
	o := opened(t, timedSettings, key, &memory{})
	var no *Refusal
	for _, at := range [][2]string{{"shop", "/other"}, {"bank", "/in"}} {
		if _, err := o.hooks.Receive(t.Context(), at[0], at[1], timed("a", instant, "x")); !errors.As(err, &no) || no.Code != NotFound {
			t.Errorf("%v: got %v", at, err)
		}
	}
	binding := source.Binding{
		Ref: function.Ref{Namespace: "shop", Name: "g"}, Trigger: *trigger(timedSettings), Connection: key, Store: &memory{},
	}
	if err := o.hooks.Run(t.Context(), binding); err == nil || !strings.Contains(err.Error(), "path") {
		t.Errorf("a second trigger with the path: got %v", err)
	}
	binding.Trigger = *trigger(strings.Replace(timedSettings, `"/in"`, `"/two"`, 1))
	binding.Connection = secrets(nil)
	if err := o.hooks.Run(t.Context(), binding); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("without a key: got %v", err)
	}
	o.stop()
	if _, err := o.receive(t, timed("a", instant, "x")); !errors.As(err, &no) || no.Code != NotFound {
		t.Errorf("after the end: got %v", err)
	}
}

// ---- CloudEvents

const (
	ceSettings = `{"path":"/in","provider":"cloudevents","cloudevents":{"origins":["events.example.com"],"rate":60}}`
	ceEvent    = `{"specversion":"1.0","id":"1","source":"//shop","type":"order.created","data":{},"principal":"admin","claimedsource":"//bank"}`
)

func ce(token, body string, header ...string) Request {
	return post(body, append([]string{
		"authorization", "Bearer " + token, "webhook-request-origin", "events.example.com", "content-type", "application/cloudevents+json",
	}, header...)...)
}

func TestCloudEvents(t *testing.T) {
	t.Parallel()
	v := verifier(t, ceSettings, map[string]string{"key": testKey, "key-previous": "previous-" + testKey})
	m := taken(t, v, instant, ce(testKey, ceEvent))
	if m.Type != "order.created" || m.Extensions["claimedsource"] != "//shop" || m.Extensions["principal"] != "" ||
		m.Detail["claimed.principal"] != "admin" || m.Detail["claimed.claimedsource"] != "//bank" || m.Detail["cloudevents.id"] != "1" {
		t.Errorf("got %+v", m)
	}
	taken(t, v, instant, ce("previous-"+testKey, ceEvent))
	wantCode(t, v, instant, ce(testKey+"x", ceEvent), BadSignature)
	wantCode(t, v, instant, ce("", ceEvent), Malformed)
	noToken := ce(testKey, ceEvent)
	delete(noToken.Header, "authorization")
	wantCode(t, v, instant, noToken, MissingHeader)
	elsewhere := ce(testKey, ceEvent)
	elsewhere.Header["webhook-request-origin"] = []string{"evil.example.com"}
	wantCode(t, v, instant, elsewhere, WrongOrigin)
	// An id is one of its source's: the same id of another source is another event.
	other := taken(t, v, instant, ce(testKey, strings.Replace(ceEvent, "//shop", "//bank2", 1)))
	if other.ID == m.ID {
		t.Error("two sources' events with one id are one event")
	}
	binary := post("x", "authorization", "Bearer "+testKey, "webhook-request-origin", "events.example.com", "content-type", "text/plain",
		"ce-specversion", "1.0", "ce-id", "1", "ce-source", "//shop", "ce-type", "t")
	taken(t, v, instant, binary)
	wantCode(t, v, instant, ce(testKey, `{`), Malformed)
	avro := ce(testKey, ``)
	avro.Header["content-type"] = []string{"application/cloudevents+avro"}
	wantCode(t, v, instant, avro, Unsupported)
}

func TestCloudEventsBatch(t *testing.T) {
	t.Parallel()
	const settings = `{"path":"/in","provider":"cloudevents","events":["order.*"]}`
	o := opened(t, settings, secrets(map[string]string{"key": testKey}), &memory{})
	event := func(id, typ string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"//shop","type":"` + typ + `"}`
	}
	send := func(body string, want int) {
		t.Helper()
		o.sink.forget()
		r := ce(testKey, body)
		r.Header["content-type"] = []string{"application/cloudevents-batch+json"}
		if a, err := o.receive(t, r); err != nil || a.Status != 202 || o.sink.count() != want {
			t.Errorf("got %+v, %v, %d events; want %d", a, err, o.sink.count(), want)
		}
	}
	send(`[`+event("1", "order.a")+`,`+event("2", "order.b")+`,`+event("3", "user.a")+`,`+event("1", "order.a")+`]`, 2)
	// The batch comes again in another order, with one more: that one is taken.
	send(`[`+event("4", "order.a")+`,`+event("2", "order.b")+`,`+event("1", "order.a")+`]`, 3)
	send(`[]`, 3)
}

// TestSignedCloudEventsAreNotBinary: a signature of the body says nothing of the headers.
func TestSignedCloudEventsAreNotBinary(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"cloudevents","cloudevents":{"auth":"hmac"},"hmac":{"header":"x-sig"}}`, map[string]string{"key": testKey})
	sign := func(body string, header ...string) Request {
		return post(body, append(header, "x-sig", hex.EncodeToString(mac256(testKey, body)))...)
	}
	taken(t, v, instant, sign(ceEvent, "content-type", "application/cloudevents+json"))
	wantCode(t, v, instant, sign("x", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "//shop", "ce-type", "t"), BadSignature)
	wantCode(t, v, instant, ce(testKey, ceEvent), MissingHeader)
}

func TestCloudEventsHandshake(t *testing.T) {
	t.Parallel()
	o := opened(t, ceSettings, secrets(map[string]string{"key": testKey}), &memory{})
	ask := Request{Method: "OPTIONS", Header: map[string][]string{"webhook-request-origin": {"events.example.com"}, "webhook-request-rate": {"120"}}}
	a, err := o.receive(t, ask)
	if err != nil || a.Status != 200 || a.Header["webhook-allowed-origin"] != "events.example.com" || a.Header["webhook-allowed-rate"] != "60" {
		t.Errorf("got %+v, %v", a, err)
	}
	ask.Header["webhook-request-origin"] = []string{"evil.example.com"}
	var no *Refusal
	if _, err := o.receive(t, ask); !errors.As(err, &no) || no.Status() != 403 {
		t.Errorf("got %v", err)
	}
	wantCode(t, verifier(t, timedSettings, map[string]string{"key": testKey}), instant, Request{Method: "OPTIONS"}, BadMethod)
}

// What is too large is refused before anything is computed over it.
func TestAttackOversizedBodies(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"github"}`, map[string]string{"key": testKey})
	body := strings.Repeat("x", cloudevent.MaxBody+1)
	for name, signature := range map[string]string{"forged": strings.Repeat("00", 32), "signed": hex.EncodeToString(mac256(testKey, body))} {
		r := post(body, "x-hub-signature-256", "sha256="+signature, "x-github-event", "push", "x-github-delivery", "1", "content-type", "application/json")
		if _, err := v.Verify(instant, r); err == nil {
			t.Errorf("%s: taken", name)
		} else if no := (*Refusal)(nil); !errors.As(err, &no) || no.Code != TooLarge {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A signature is good for as long as its time: what a function logs must not have it.
func TestSignaturesAreNotShown(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"github"}`, map[string]string{"key": testKey})
	signed := "sha256=" + hex.EncodeToString(mac256(testKey, "{}"))
	m := taken(t, v, instant, post("{}", "x-hub-signature-256", signed, "x-github-event", "push", "x-github-delivery", "1", "content-type", "application/json",
		"x-github-copy-signature", signed, "webhook-signature", signed, "x-slack-signature", signed, "x-github-hook-id", "7"))
	if m.Detail["header.x-github-hook-id"] != "7" {
		t.Errorf("got %v", m.Detail)
	}
	for name, value := range m.Detail {
		if strings.Contains(value, signed) {
			t.Errorf("%s shows the signature", name)
		}
	}
}
