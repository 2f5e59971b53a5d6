package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
	kept "github.com/casemate-dev/casemate/internal/outcome"
	"github.com/casemate-dev/casemate/internal/state"
)

// node converts one into the other.
var _ = Invocation(kept.Invocation{})

// later is a queue and the memory of what became of its calls.
type later struct {
	mu       sync.Mutex
	log      []string
	kept     []event.Message
	refs     []function.Ref
	known    map[string]*Invocation
	queueErr error
	memErr   error
	getErr   error
}

func (l *later) Async(_ context.Context, ref function.Ref, principal string, m event.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, "queue "+m.ID)
	if l.queueErr != nil {
		return l.queueErr
	}
	// As the intake does.
	m.Source = "/namespaces/" + ref.Namespace + "/functions/" + ref.Name
	m.Extensions = map[string]string{"principal": principal}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	stored, err := event.Decode(b)
	if err != nil {
		return err
	}
	l.kept, l.refs = append(l.kept, *stored), append(l.refs, ref)
	return nil
}

func (l *later) Pending(_ context.Context, id string, ref function.Ref, principal string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, "pending "+id)
	if l.memErr != nil {
		return l.memErr
	}
	l.known[id] = &Invocation{ID: id, Ref: ref, Principal: principal, State: statePending, Accepted: time.Unix(1e9, 0).UTC()}
	return nil
}

func (l *later) Forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, "forget "+id)
	delete(l.known, id)
}

func (l *later) Get(_ context.Context, id string) (*Invocation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.getErr != nil {
		return nil, l.getErr
	}
	if inv := l.known[id]; inv != nil {
		return inv, nil
	}
	return nil, fmt.Errorf("looking for %s: %w", id, state.ErrNotFound)
}

func (l *later) messages() []event.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

func newLater(w *world) *later {
	l := &later{known: map[string]*Invocation{}}
	functions := deployed{}
	for _, r := range routesForTests() {
		functions[r.Ref] = []*function.Version{versionOf(r.Ref, 1)}
	}
	delete(functions, function.Ref{Namespace: "default", Name: "any"}) // just deleted
	w.async = &Async{Versions: functions, Queue: l, Outcomes: l}
	return l
}

// TestPostponedCallIsTheSameCall sends each request twice, and compares what runs.
func TestPostponedCallIsTheSameCall(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	l := newLater(w)
	for _, c := range []struct {
		method, path, body string
		fields             []string
	}{
		{"POST", "/echo", "a body \x00\xff", []string{"Content-Type: text/plain", "X-Some: ä", "Cookie: a=b", bearer(goodKey)}},
		{"GET", "/orders/17?a=b&c=%2F", "", []string{"X-API-Key: " + goodKey}},
		{"GET", "/~shop/cart/x%20y", "", []string{bearer(goodKey), "Accept: a", "Accept: b"}},
		{"GET", "/open", "", []string{bearer(goodKey)}}, // public, and the caller is known all the same
	} {
		fields := append(c.fields, "Prefer: respond-async", "X-Request-Id: given")
		a := w.do(t, c.method, c.path, strings.NewReader(c.body), fields...)
		var got struct {
			ID        string `json:"id"`
			StatusURL string `json:"status_url"`
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 202 || got.ID == "" || got.ID == "given" || got.StatusURL != "/.casemate/invocations/"+got.ID ||
			a.header.Get("Location") != got.StatusURL || a.header.Get("Preference-Applied") != "respond-async" || a.header.Get("Casemate-Invocation") != got.ID {
			t.Fatalf("%s: %v %s", c.path, err, a.text)
		}
		if w.invoker.count.Load() != 0 {
			t.Fatal("it ran at once")
		}
		m := l.messages()[len(l.messages())-1]
		call, ok := Recall(l.refs[len(l.refs)-1], &m)
		if !ok || m.ID != got.ID {
			t.Fatalf("%s: stored %+v", c.path, m)
		}
		if strings.Contains(fmt.Sprint(m), keySecret) {
			t.Errorf("%s: the key is stored: %v", c.path, m)
		}
		was := w.async
		w.async = nil
		w.do(t, c.method, c.path, strings.NewReader(c.body), fields...)
		w.async = was
		now := *w.invoker.last(t)
		w.invoker.count.Store(0)
		if call.Event.ID != got.ID || call.Principal.String() != now.Principal.String() || !call.Principal.May("invoke", now.Ref) || len(call.Principal.Scopes) != 1 {
			t.Errorf("%s: %+v by %+v", c.path, call.Event, call.Principal)
		}
		if len(now.Body) == 0 {
			now.Body = call.Body
		}
		call.Event, call.Principal, now.Public = invoke.Event{}, now.Principal, false
		if !reflect.DeepEqual(call, &now) {
			t.Errorf("%s:\nlater %+v\nnow   %+v", c.path, call, now)
		}
	}
	if got := l.log[:2]; !strings.HasPrefix(got[0], "pending ") || !strings.HasPrefix(got[1], "queue ") {
		t.Errorf("order: %v", got)
	}
}

// TestAttackRespondAsyncOnPublicRoute has nobody make the node keep anything. The
// preference is not honoured, which RFC 7240 wants, in place of an error.
func TestAttackRespondAsyncOnPublicRoute(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	l := newLater(w)
	for name, fields := range map[string][]string{
		"anonymous":         nil,
		"own token":         {"Authorization: Bearer eyJhbGciOiJub25lIn0.e30."},
		"key without scope": {bearer(readKey)},
		"elsewhere's key":   {bearer(otherKey)},
	} {
		a := w.do(t, "POST", "/open", strings.NewReader("x"), append(fields, "Prefer: respond-async")...)
		if a.status != 200 || a.header.Get("Preference-Applied") != "" || a.header.Get("Location") != "" {
			t.Errorf("%s: %s", name, a.text)
		}
	}
	if w.invoker.count.Load() != 4 || len(l.log) != 0 {
		t.Errorf("%d ran, kept: %v", w.invoker.count.Load(), l.log)
	}
	w.do(t, "POST", "/echo", strings.NewReader("x"), "Prefer: respond-async").want(t, problem.Unauthenticated)
	w.do(t, "POST", "/echo", strings.NewReader("x"), "Prefer: respond-async", bearer(readKey)).want(t, problem.Forbidden)
	w.do(t, "POST", "/~shop/cart", strings.NewReader("x"), "Prefer: respond-async", bearer(otherKey)).want(t, problem.Forbidden)
	w.do(t, "POST", "/echo", strings.NewReader(strings.Repeat("x", 64<<10+1)), "Prefer: respond-async", bearer(goodKey)).want(t, problem.BodyTooLarge)
	w.do(t, "POST", "/any", strings.NewReader("x"), "Prefer: respond-async", bearer(goodKey)).want(t, problem.NotFound)
	if len(l.log) != 0 {
		t.Errorf("kept: %v", l.log)
	}
}

func TestPostponeRefusals(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{HeaderBytes: 256 << 10})
	l := newLater(w)
	send := func(fields ...string) answer {
		a := w.do(t, "POST", "/echo", strings.NewReader("x"), append(fields, "Prefer: respond-async", bearer(goodKey))...)
		if a.header.Get("Location") != "" || a.header.Get("Preference-Applied") != "" || a.header.Get("Casemate-Invocation") != "" || strings.Contains(a.text, "planted") {
			t.Errorf("a refusal looks like an acceptance, or leaks: %s", a.text)
		}
		return a
	}
	send("X-Large: "+strings.Repeat("x", 40<<10)).want(t, problem.HeadersTooLarge)
	if len(l.log) != 0 {
		t.Errorf("kept: %v", l.log)
	}
	l.memErr = fmt.Errorf("%s: %w", planted, state.ErrFull)
	if a := send(); a.status != 429 || a.header.Get("Retry-After") != "5" {
		t.Errorf("too many pending: %s", a.text)
	}
	l.memErr = errors.New(planted)
	send().want(t, problem.Internal)
	l.memErr, l.log = nil, nil
	for err, code := range map[error]problem.Code{
		&BusyError{RetryAfter: time.Second}:        problem.BacklogFull,
		&EventError{Field: "data", Reason: "is x"}: problem.InvalidEvent,
		errors.New(planted):                        problem.Internal,
	} {
		l.queueErr = err
		send().want(t, code)
		if len(l.known) != 0 || len(l.log) != 3 || !strings.HasPrefix(l.log[2], "forget ") {
			t.Errorf("%v: %v, known: %v", err, l.log, l.known)
		}
		l.log = nil
	}
	if w.invoker.count.Load() != 0 {
		t.Error("it ran")
	}
}

// TestAttackStatusOfAnothersInvocation asks with every key that may not know.
func TestAttackStatusOfAnothersInvocation(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	l := newLater(w)
	id := w.do(t, "POST", "/~shop/cart", strings.NewReader("x"), "Prefer: respond-async", bearer(goodKey)).header.Get("Casemate-Invocation")
	address := "/.casemate/invocations/"
	w.do(t, "GET", address+id, nil).want(t, problem.Unauthenticated)
	w.do(t, "GET", address+id, nil, bearer(revokedKey)).want(t, problem.Unauthenticated)
	stripped := func(a answer) string {
		d := a.problem(t)
		d.RequestID = ""
		return fmt.Sprint(d)
	}
	for name, key := range map[string]string{"another namespace's": otherKey, "reader": readKey, "publisher": ordersKey} {
		theirs, nobodys := w.do(t, "GET", address+id, nil, bearer(key)), w.do(t, "GET", address+"no-such", nil, bearer(key))
		theirs.want(t, problem.NotFound)
		if stripped(theirs) != stripped(nobodys) || len(theirs.header) != len(nobodys.header) {
			t.Errorf("%s key learns that there is one:\n%s\n%s", name, theirs.text, nobodys.text)
		}
	}
	for _, path := range []string{address, address + "a/b", address + "a%20b", address + strings.Repeat("x", 65), "/~shop" + address + id} {
		w.do(t, "GET", path, nil, bearer(goodKey)).want(t, problem.NotFound)
	}
	if a := w.do(t, "DELETE", address+id, nil, bearer(goodKey)); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("deleting: %s", a.text)
	}
	a := w.do(t, "GET", address+id, nil, bearer(goodKey))
	if want := `{"id":"` + id + `","function":"shop/cart","status":"pending","accepted":"2001-09-09T01:46:40Z","attempts":0}` + "\n"; a.status != 200 || a.body != want || a.header.Get("Retry-After") != "1" {
		t.Errorf("pending: %s", a.text)
	}
	inv := l.known[id]
	inv.State, inv.Ended, inv.Attempts, inv.Receipt, inv.Version = "succeeded", time.Unix(1e9+1, 0).UTC(), 2, "r", "v"
	inv.Status, inv.Headers, inv.Body = 201, map[string][]string{"a": {"b"}}, []byte("\x00<hello>")
	a = w.do(t, "GET", address+id, nil, bearer(goodKey))
	if !strings.Contains(a.body, `"status":"succeeded","accepted":"2001-09-09T01:46:40Z","ended":"2001-09-09T01:46:41Z","attempts":2,"receipt":"r","version":"v","answer":{"status":201,"headers":{"a":["b"]},"body":"ADxoZWxsbz4="}}`) || a.header.Get("Retry-After") != "" {
		t.Errorf("succeeded: %s", a.text)
	}
	if a := w.do(t, "HEAD", address+id, nil, bearer(goodKey)); a.status != 200 || a.body != "" {
		t.Errorf("head: %s", a.text)
	}
	inv.State, inv.Reason, inv.Code, inv.Detail, inv.Status = "failed", "attempts", "function_timeout", "the function did not finish within 1s", 0
	a = w.do(t, "GET", address+id, nil, bearer(goodKey))
	if !strings.Contains(a.body, `"reason":"attempts","error":{"code":"function_timeout","title":"The function took too long","detail":"the function did not finish within 1s"}}`) {
		t.Errorf("failed: %s", a.text)
	}
	l.getErr = errors.New(planted)
	if a := w.do(t, "GET", address+id, nil, bearer(goodKey)); a.status != 500 || strings.Contains(a.text, "planted") {
		t.Errorf("store down: %s", a.text)
	}
	w.async = nil
	w.do(t, "GET", address+id, nil, bearer(goodKey)).want(t, problem.NotFound)
}

func TestLambdaEventIsKept(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	l := &later{known: map[string]*Invocation{}}
	w.async = &Async{Versions: w.functions, Queue: l, Outcomes: l}
	kind := "X-Amz-Invocation-Type: Event"
	version := w.functions[function.Ref{Namespace: "default", Name: "hello"}][1].ID.Hex()
	a := w.ask(t, w.hello, "POST", "/2015-03-31/functions/hello/invocations?Qualifier="+version, `{"a":1}`, kind, "X-Amz-Client-Context: e30=", "X-Amz-Log-Type: Tail")
	if a.status != 202 || a.body != "" || a.header.Get("X-Amzn-RequestId") == "" || a.header.Get("X-Amz-Log-Result") != "" || a.header.Get("Casemate-Invocation") == "" {
		t.Fatalf("accepted: %s", a.text)
	}
	m := l.messages()[0]
	call, ok := Recall(function.Ref{Namespace: "default", Name: "hello"}, &m)
	if !ok || call.Trigger != invoke.TriggerLambda || call.Qualifier != version || string(call.Body) != `{"a":1}` || call.Path != "/" || call.Method != http.MethodPost ||
		call.RequestID != a.header.Get("X-Amzn-RequestId") || fmt.Sprint(call.Headers["x-amz-client-context"]) != "[e30=]" || !strings.HasPrefix(call.Principal.String(), "aws") && call.Principal.ID == "" {
		t.Errorf("kept: %+v", call)
	}
	if a := w.ask(t, w.full, "POST", helloPath, "", kind); a.status != 202 || string(l.messages()[1].Data) != "{}" {
		t.Errorf("without an event: %s", a.text)
	}
	before := len(l.log)
	w.ask(t, w.looking, "POST", helloPath, "{}", kind).wantAWS(t, 403, "AccessDeniedException")
	w.ask(t, w.hello, "POST", "/2015-03-31/functions/shop_cart/invocations", "{}", kind).wantAWS(t, 403, "AccessDeniedException")
	w.ask(t, w.full, "POST", "/2015-03-31/functions/nothing/invocations", "{}", kind).wantAWS(t, 404, "ResourceNotFoundException")
	w.ask(t, w.full, "POST", helloPath+"?Qualifier=nothing", "{}", kind).wantAWS(t, 404, "ResourceNotFoundException")
	w.ask(t, w.full, "POST", helloPath, "{", kind).wantAWS(t, 400, "InvalidRequestContentException")
	if len(l.log) != before {
		t.Errorf("kept: %v", l.log[before:])
	}
	l.queueErr = fmt.Errorf("%s: %w", planted, &BusyError{RetryAfter: 3 * time.Second})
	a = w.ask(t, w.full, "POST", helloPath, "{}", kind)
	a.wantAWS(t, 429, "TooManyRequestsException")
	if a.header.Get("Retry-After") != "3" || a.header.Get("Casemate-Invocation") != "" {
		t.Errorf("busy: %s", a.text)
	}
	l.queueErr = errors.New(planted)
	w.ask(t, w.full, "POST", helloPath, "{}", kind).wantAWS(t, 500, "ServiceException")
	if w.invoker.count.Load() != 0 {
		t.Error("it ran at once")
	}
}

// TestAttackForgedPostponedCall has other events pass for accepted calls.
func TestAttackForgedPostponedCall(t *testing.T) {
	t.Parallel()
	ref := function.Ref{Namespace: "shop", Name: "cart"}
	good := func() *event.Message {
		m, err := messageOf("id", &invoke.Call{Ref: ref, Trigger: invoke.TriggerHTTP, Method: "GET", Path: "/"})
		if err != nil {
			t.Fatal(err)
		}
		m.Source = "/namespaces/shop/functions/cart"
		return m
	}
	if _, ok := Recall(ref, good()); !ok {
		t.Fatal("a good one is refused")
	}
	for name, change := range map[string]func(*event.Message){
		"of a topic":         func(m *event.Message) { m.Source = "/namespaces/shop/topics/cart" },
		"of a trigger":       func(m *event.Message) { m.Source += "/triggers/in" },
		"of another":         func(m *event.Message) { m.Source = "/namespaces/shop/functions/other" },
		"of another house":   func(m *event.Message) { m.Source = "/namespaces/default/functions/cart" },
		"of a destination":   func(m *event.Message) { m.Type = "casemate.delivery.succeeded" },
		"without details":    func(m *event.Message) { m.Detail = nil },
		"by the operator":    func(m *event.Message) { m.Detail[asyncTrigger] = invoke.TriggerInvoke },
		"with other headers": func(m *event.Message) { m.Detail[asyncHeaders] = `{"a":"b"}` },
		"with other params":  func(m *event.Message) { m.Detail[asyncParams] = `[]` },
	} {
		m := good()
		change(m)
		if c, ok := Recall(ref, m); ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
