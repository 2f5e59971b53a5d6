package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/webhook"
	"github.com/casemate-dev/casemate/internal/state"
)

// fakeHooks keeps what it was handed.
type fakeHooks struct {
	mu     sync.Mutex
	got    []HookRequest
	answer HookAnswer
	err    error
	gate   chan struct{}
	wait   time.Duration
	from   netip.Addr
	size   int64
}

func (f *fakeHooks) Receive(_ context.Context, r HookRequest) (HookAnswer, error) {
	f.mu.Lock()
	f.got = append(f.got, r)
	answer, err := f.answer, f.err
	f.mu.Unlock()
	if f.gate != nil {
		<-f.gate
	}
	if answer.Status == 0 {
		answer.Status = 202
	}
	return answer, err
}

func (f *fakeHooks) Admit(_, _ string, from netip.Addr, size int64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.size = from, size
	return f.wait
}

func (f *fakeHooks) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

func (f *fakeHooks) last(t testing.TB) HookRequest {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.got) == 0 {
		t.Fatal("nothing was handed to the hooks")
	}
	return f.got[len(f.got)-1]
}

func hookRoute(ns, path string, limit int64) Route {
	return Route{
		Ref:     function.Ref{Namespace: ns, Name: "taker"},
		Trigger: function.HTTPTrigger{Method: http.MethodPost, Path: path, BodyLimit: limit, Webhook: "in"},
	}
}

// hookWorld serves two webhooks beside the usual routes.
func hookWorld(t testing.TB, hooks Hooks, limits Limits) *world {
	t.Helper()
	w := newWorld(t, limits, append(routesForTests(), hookRoute("default", "/in", 0), hookRoute("shop", "/deep/in", 64))...)
	w.hooks = hooks
	w.serve(t)
	return w
}

// realHooks runs the real source of web hooks for shop's trigger, for GitHub.
type realHooks struct {
	*webhook.Hooks
	mu     sync.Mutex
	events []event.Message
}

const githubKey = "a-key-that-only-tests-have"

func (h *realHooks) Accept(_ context.Context, all []event.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, all...)
	return nil
}

func (h *realHooks) Get(context.Context, string) ([]byte, error) { return nil, nil }
func (h *realHooks) Put(context.Context, string, []byte) error   { return nil }
func (h *realHooks) Delete(context.Context, string) error        { return nil }

func (h *realHooks) Receive(ctx context.Context, r HookRequest) (HookAnswer, error) {
	a, err := h.Hooks.Receive(ctx, r.Namespace, r.Path, webhook.Request{Method: r.Method, Header: r.Header, Body: r.Body})
	var no *webhook.Refusal
	if errors.As(err, &no) {
		return HookAnswer{}, &HookRefusal{Status: no.Status(), Reason: no.Reason}
	}
	return HookAnswer{a.Status, a.Header, a.Body}, err
}

func newRealHooks(t testing.TB) *realHooks {
	t.Helper()
	h := &realHooks{Hooks: &webhook.Hooks{}}
	ctx, stop := context.WithCancel(t.Context())
	running, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- h.Run(ctx, source.Binding{
			Ref:     function.Ref{Namespace: "shop", Name: "taker"},
			Trigger: function.Trigger{Name: "in", Kind: "webhook", Connection: "hook", Settings: json.RawMessage(`{"path":"/deep/in","provider":"github","rate":40}`)},
			Connection: &source.Connection{Namespace: "shop", Name: "hook", Kind: "webhook", Secret: func(name string) ([]byte, error) {
				if name == "key" {
					return []byte(githubKey), nil
				}
				return nil, errors.New("there is none")
			}},
			Sink: h, Store: h, Log: slog.New(slog.DiscardHandler), Clock: time.Now,
			Report: func(source.Health) { once.Do(func() { close(running) }) },
		})
	}()
	select {
	case <-running:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

func githubSignature(key, body string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(body))
	return fmt.Sprintf("X-Hub-Signature-256: sha256=%x", m.Sum(nil))
}

// TestAttackUnsignedWebhook goes through the real verifier.
func TestAttackUnsignedWebhook(t *testing.T) {
	t.Parallel()
	h := newRealHooks(t)
	w := hookWorld(t, h, Limits{})
	body := `{"a":1}`
	fields := []string{"X-GitHub-Event: push", "X-GitHub-Delivery: 1", "Content-Type: application/json"}
	var answers []string
	for name, c := range map[string]struct {
		body  string
		extra []string
		code  problem.Code
	}{
		"no signature":     {body, nil, problem.BadRequest},
		"a guess":          {body, []string{"X-Hub-Signature-256: sha256=" + strings.Repeat("0", 64)}, problem.Unauthenticated},
		"another key":      {body, []string{githubSignature("another-key-of-the-same-length", body)}, problem.Unauthenticated},
		"another body":     {`{"a":2}`, []string{githubSignature(githubKey, body)}, problem.Unauthenticated},
		"two signatures":   {body, []string{githubSignature(githubKey, body), githubSignature("another-key-of-the-same-length", body)}, problem.BadRequest},
		"a good API key":   {body, []string{bearer(goodKey)}, problem.Unauthenticated},
		"API key, signed":  {body, []string{bearer(goodKey), githubSignature(githubKey, body)}, problem.Unauthenticated},
		"public, in words": {body, []string{"X-Casemate-Public: true", "Casemate-Principal: node"}, problem.BadRequest},
	} {
		a := w.do(t, "POST", "/~shop/deep/in", strings.NewReader(c.body), append(c.extra, fields...)...)
		if d := a.problem(t); d.Code != c.code {
			t.Errorf("%s: got %s", name, a.text)
		} else if c.code == problem.Unauthenticated && !strings.Contains(name, "API") {
			answers = append(answers, d.Detail+d.Remedy)
		}
	}
	for _, a := range answers {
		if a != answers[0] || strings.Contains(a, "active key") {
			t.Errorf("what is wrong with a signature can be told: %q", answers)
		}
	}
	if len(h.events) != 0 || w.invoker.count.Load() != 0 {
		t.Fatalf("%d events were taken, %d calls made", len(h.events), w.invoker.count.Load())
	}
	if len(answers) != 3 || !strings.Contains(w.logs.String(), "web hook refused: ") {
		t.Error("the log does not say why")
	}
	a := w.do(t, "POST", "/~shop/deep/in", strings.NewReader(body), append(fields, githubSignature(githubKey, body))...)
	if a.status != 202 || a.body != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("signed: %s", a.text)
	}
	if len(h.events) != 1 || h.events[0].Type != "casemate.webhook.github.push" || string(h.events[0].Data) != body {
		t.Errorf("taken: %+v", h.events)
	}
	if w.invoker.count.Load() != 0 {
		t.Error("a web hook was made a call")
	}
}

// TestAttackWebhookIsNeverACall sends what elsewhere would run a function or keep a call.
func TestAttackWebhookIsNeverACall(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{}
	w := hookWorld(t, h, Limits{})
	later := newLater(w)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH"} {
		if a := w.do(t, method, "/in", nil, bearer(goodKey)); a.status != 405 || a.header.Get("Allow") != "OPTIONS, POST" {
			t.Errorf("%s: %s", method, a.text)
		}
	}
	for _, fields := range [][]string{nil, {"Prefer: respond-async"}, {"X-HTTP-Method-Override: GET"}, {"Authorization: Bearer somebody-elses"}} {
		if a := w.do(t, "POST", "/in", strings.NewReader("x"), fields...); a.status != 202 || a.header.Get("Preference-Applied") != "" {
			t.Errorf("%v: %s", fields, a.text)
		}
	}
	w.do(t, "POST", "/in", strings.NewReader("x"), "X-API-Key: "+goodKey).want(t, problem.Unauthenticated)
	w.do(t, "POST", "/in", strings.NewReader("x"), "X-API-Key: whatever").want(t, problem.Unauthenticated)
	if h.count() != 4 || w.invoker.count.Load() != 0 || len(later.messages()) != 0 {
		t.Errorf("%d at the hooks, %d calls, %d kept", h.count(), w.invoker.count.Load(), len(later.messages()))
	}
	if !strings.Contains(w.logs.String(), `"principal":"webhook"`) || strings.Contains(w.logs.String(), keySecret) {
		t.Error("the log names another caller, or a key")
	}
}

// TestAttackWebhooksAreNotReadBeyondTheirRate announces a large body and sends none of it:
// an answer must not wait for it.
func TestAttackWebhooksAreNotReadBeyondTheirRate(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{wait: 90 * time.Second}
	w := hookWorld(t, h, Limits{})
	a := w.rawAnswer(t, "POST /in HTTP/1.1\r\nHost: "+w.addr+"\r\nContent-Length: 1048576\r\nExpect: 100-continue\r\n\r\n")
	a.want(t, problem.TooManyRequests)
	if a.header.Get("Retry-After") != "90" || strings.Contains(a.text, "100 Continue") {
		t.Errorf("answer: %s", a.text)
	}
	if h.count() != 0 || h.size != 1<<20 || !h.from.IsLoopback() {
		t.Errorf("%d were received; asked for %d bytes from %v", h.count(), h.size, h.from)
	}
	h.wait = 0
	if a := w.do(t, "POST", "/in", strings.NewReader("x")); a.status != 202 {
		t.Errorf("afterwards: %s", a.text)
	}
}

// TestAttackForgedWebhooksEndAtTheRate goes through the real verifier: a flood of forged
// requests is verified no oftener than the trigger's rate has it.
func TestAttackForgedWebhooksEndAtTheRate(t *testing.T) {
	t.Parallel()
	h := newRealHooks(t)
	w := hookWorld(t, h, Limits{})
	verified, turned := 0, 0
	for range 400 {
		a := w.do(t, "POST", "/~shop/deep/in", strings.NewReader("{}"), "X-GitHub-Event: push", "X-GitHub-Delivery: 1", githubSignature("another-key-of-the-same-length", "{}"))
		switch a.status {
		case 401:
			verified++
		case 429:
			turned++
		default:
			t.Fatal(a.text)
		}
		if turned > 0 {
			break
		}
	}
	if turned == 0 || verified < 20 {
		t.Errorf("%d were verified, %d turned away", verified, turned)
	}
}

func TestWebhookGetsWhatWasSent(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{answer: HookAnswer{Status: 200, Header: map[string]string{"webhook-allowed-origin": "a.example", "content-type": "text/plain"}, Body: []byte("challenge")}}
	w := hookWorld(t, h, Limits{})
	a := w.do(t, "POST", "/~shop/deep/in?x=1", strings.NewReader("body"), "X-Hub-Signature-256: sha256=1", "Authorization: Bearer token",
		"X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4", "Casemate-Principal: node", "Webhook-Id: a", "Webhook-Id: b")
	if a.status != 200 || a.body != "challenge" || a.header.Get("Webhook-Allowed-Origin") != "a.example" || a.header.Get("Content-Type") != "text/plain" {
		t.Errorf("answer: %s", a.text)
	}
	r := h.last(t)
	if r.Namespace != "shop" || r.Path != "/deep/in" || r.Method != "POST" || string(r.Body) != "body" || !r.From.IsLoopback() || r.From != h.from {
		t.Errorf("handed over: %+v", r)
	}
	for name, want := range map[string]string{
		"x-hub-signature-256": "[sha256=1]", "authorization": "[Bearer token]", "webhook-id": "[a b]",
		"x-forwarded-for": "[]", "forwarded": "[]", "x-real-ip": "[]", "casemate-principal": "[]", "host": "[]",
	} {
		if got := fmt.Sprint(r.Header[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	// The handshake of CloudEvents, and a preflight, which is no different here.
	for _, fields := range [][]string{{"WebHook-Request-Origin: a.example"}, {"Origin: https://a.example", "Access-Control-Request-Method: POST"}} {
		if a := w.do(t, "OPTIONS", "/in", nil, fields...); a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("handshake: %s", a.text)
		}
		if r := h.last(t); r.Method != "OPTIONS" || r.Path != "/in" || r.Namespace != "default" {
			t.Errorf("handed over: %+v", r)
		}
	}
	// A namespace's hook is at its own address alone.
	before := h.count()
	for _, path := range []string{"/deep/in", "/~shop/in", "/~default/in", "/in/", "/~shop/deep/in/x"} {
		w.do(t, "POST", path, strings.NewReader("x")).want(t, problem.NotFound)
	}
	if h.count() != before {
		t.Error("the hooks were asked")
	}
}

func TestWebhookRefusals(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{}
	w := hookWorld(t, h, Limits{})
	for _, c := range []struct {
		err         error
		code        problem.Code
		name, value string
	}{
		{&HookRefusal{Status: 400, Reason: planted}, problem.BadRequest, "", ""},
		{&HookRefusal{Status: 401, Reason: planted}, problem.Unauthenticated, "Www-Authenticate", hookChallenge},
		{&HookRefusal{Status: 403, Reason: planted}, problem.Forbidden, "", ""},
		{&HookRefusal{Status: 404, Reason: planted}, problem.NotFound, "", ""},
		{&HookRefusal{Status: 405, Reason: planted}, problem.MethodNotAllowed, "Allow", "POST"},
		{&HookRefusal{Status: 410, Reason: planted}, problem.Gone, "", ""},
		{&HookRefusal{Status: 413, Reason: planted}, problem.BodyTooLarge, "", ""},
		{&HookRefusal{Status: 415, Reason: planted}, problem.UnsupportedMedia, "", ""},
		{&HookRefusal{Status: 422, Reason: planted}, problem.InvalidEvent, "", ""},
		{&HookRefusal{Status: 429, Reason: planted, RetryAfter: 7 * time.Second}, problem.BacklogFull, "Retry-After", "7"},
		{&HookRefusal{Status: 503, Reason: planted}, problem.Overloaded, "Retry-After", "5"},
		{&HookRefusal{Status: 200, Reason: planted}, problem.Internal, "", ""},
		{&HookRefusal{Reason: planted}, problem.Internal, "", ""},
		{fmt.Errorf("taking in: %w", &BusyError{RetryAfter: 90 * time.Second}), problem.BacklogFull, "Retry-After", "90"},
		{&EventError{Index: -1, Field: "data/price", Reason: "must be a number"}, problem.InvalidEvent, "", ""},
		{fmt.Errorf("%s: %w", planted, state.ErrFull), problem.BacklogFull, "Retry-After", "5"},
		{errors.New(planted), problem.Internal, "", ""},
	} {
		h.err = c.err
		a := w.do(t, "POST", "/in", strings.NewReader("x"))
		a.want(t, c.code)
		if strings.Contains(a.text, "planted") || (c.name != "" && a.header.Get(c.name) != c.value) {
			t.Errorf("%v: %s", c.err, a.text)
		}
		if c.code == problem.InvalidEvent && strings.Contains(c.err.Error(), "price") && a.problem(t).Field != "data/price" {
			t.Errorf("the field is not named: %s", a.text)
		}
	}
	if !strings.Contains(w.logs.String(), "planted") {
		t.Error("the log does not say why")
	}
	for _, bad := range []HookAnswer{{Status: 99}, {Status: 301}, {Status: 200, Header: map[string]string{"a": "b\r\nc: d"}}, {Status: 200, Header: map[string]string{"a b": "c"}}} {
		h.err, h.answer = nil, bad
		w.do(t, "POST", "/in", strings.NewReader("x")).want(t, problem.Internal)
	}
	w.hooks = nil
	w.do(t, "POST", "/in", strings.NewReader("x")).want(t, problem.NotImplemented)
}

func TestAttackOversizedWebhook(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{}
	w := hookWorld(t, h, Limits{})
	w.do(t, "POST", "/~shop/deep/in", strings.NewReader(strings.Repeat("x", 65))).want(t, problem.BodyTooLarge)
	w.do(t, "POST", "/in", strings.NewReader(strings.Repeat("x", 1<<20+1))).want(t, problem.BodyTooLarge)
	if h.count() != 0 {
		t.Error("the hooks were asked")
	}
	if a := w.do(t, "POST", "/in", strings.NewReader(strings.Repeat("x", 1<<20))); a.status != 202 || len(h.last(t).Body) != 1<<20 {
		t.Errorf("as large as may be: %s", a.text)
	}
}

func TestWebhookRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	change := func(f func(r *function.HTTPTrigger)) Route {
		r := hookRoute("default", "/in", maxHookBody)
		f(&r.Trigger)
		return r
	}
	if err := w.SetRoutes([]Route{change(func(*function.HTTPTrigger) {})}); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]Route{
		"public":      change(func(r *function.HTTPTrigger) { r.Public = true }),
		"cors":        change(func(r *function.HTTPTrigger) { r.CORS = &function.CORS{Origins: []string{"*"}} }),
		"parameters":  change(func(r *function.HTTPTrigger) { r.Path = "/{rest...}" }),
		"all methods": change(func(r *function.HTTPTrigger) { r.Method = "ANY" }),
		"no path":     change(func(r *function.HTTPTrigger) { r.Path = "" }),
		"ours":        change(func(r *function.HTTPTrigger) { r.Path = "/.casemate/topics/orders" }),
		"theirs":      change(func(r *function.HTTPTrigger) { r.Path = "/~shop/in" }),
		"Lambda's":    change(func(r *function.HTTPTrigger) { r.Path = "/2015-03-31/functions" }),
		"too large":   change(func(r *function.HTTPTrigger) { r.BodyLimit = maxHookBody + 1 }),
		"negative":    change(func(r *function.HTTPTrigger) { r.BodyLimit = -1 }),
	} {
		if err := w.SetRoutes([]Route{r}); err == nil {
			t.Errorf("%s: is served", name)
		}
	}
}

// TestAttackWebhooksLeaveRoomForCalls holds all the memory that unknown senders can get.
func TestAttackWebhooksLeaveRoomForCalls(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{gate: make(chan struct{})}
	w := newWorld(t, Limits{BodyMemory: 40 << 20}, append(routesForTests(), hookRoute("default", "/in", 9<<20))...)
	w.hooks = h
	w.serve(t)
	first := make(chan int, 1)
	go func() {
		resp, err := w.client.Post("https://"+w.addr+"/in", "text/plain", strings.NewReader(strings.Repeat("x", 9<<20)))
		if err != nil {
			first <- 0
			return
		}
		_ = resp.Body.Close()
		first <- resp.StatusCode
	}()
	eventually(t, "the first is in hand", func() bool { return h.count() == 1 })
	w.do(t, "POST", "/in", strings.NewReader(strings.Repeat("x", 2<<20))).want(t, problem.Overloaded)
	if a := w.do(t, "POST", "/echo", strings.NewReader(strings.Repeat("x", 60<<10)), bearer(goodKey)); a.status != 200 {
		t.Errorf("a call found no room: %s", a.text)
	}
	close(h.gate)
	if status := <-first; status != 202 {
		t.Errorf("the first: %d", status)
	}
	if a := w.do(t, "POST", "/in", strings.NewReader(strings.Repeat("x", 2<<20))); a.status != 202 {
		t.Errorf("the room is not given back: %s", a.text)
	}
	eventually(t, "all is given back", func() bool { return w.hookMemory.Load() == 0 && w.bodyMemory.Load() == 0 })
}
