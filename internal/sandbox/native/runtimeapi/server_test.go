package runtimeapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/native/runtimeapi"
)

const root = "/2018-06-01/runtime/"

// fixture is a Server and somebody who speaks to it as a guest would.
type fixture struct {
	*runtimeapi.Server
	t      testing.TB
	addr   string
	client *http.Client
}

func serve(t testing.TB, o runtimeapi.Options) *fixture {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4}
	f := &fixture{
		Server: runtimeapi.New(l, o), t: t, addr: l.Addr().String(),
		client: &http.Client{Transport: transport},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := f.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

// reply is what the guest got.
type reply struct {
	status int
	header http.Header
	body   string
}

func (f *fixture) do(method, path string, header map[string]string, body io.Reader) reply {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.addr+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := f.client.Do(r)
	if err != nil {
		f.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func (f *fixture) next() reply { f.t.Helper(); return f.do("GET", root+"invocation/next", nil, nil) }

func (f *fixture) post(path, body string) reply {
	f.t.Helper()
	return f.do("POST", root+path, nil, strings.NewReader(body))
}

func (r reply) refused(t testing.TB, status int, errType string) {
	t.Helper()
	var said struct{ ErrorType, ErrorMessage string }
	if err := json.Unmarshal([]byte(r.body), &said); err != nil {
		t.Errorf("answer %d %q is not JSON: %v", r.status, r.body, err)
	}
	if r.status != status || said.ErrorType != errType || said.ErrorMessage == "" {
		t.Errorf("answered %d %q, want %d %s", r.status, r.body, status, errType)
	}
}

func (r reply) accepted(t testing.TB) {
	t.Helper()
	if r.status != 202 || strings.TrimSpace(r.body) != `{"status":"OK"}` {
		t.Errorf("answered %d %q, want 202 OK", r.status, r.body)
	}
}

// called is an Invoke under way.
type called struct {
	response runtimeapi.Response
	err      error
}

func (f *fixture) invoke(ctx context.Context, id string) <-chan called {
	c := make(chan called, 1)
	go func() {
		r, err := f.Invoke(ctx, event(id))
		c <- called{r, err}
	}()
	return c
}

func event(id string) runtimeapi.Event {
	return runtimeapi.Event{RequestID: id, ARN: "arn:aws:lambda:local:0:function:f", Deadline: time.UnixMilli(1700000000123), Payload: []byte(`{"id":"` + id + `"}`)}
}

func TestHandsOverAnEventAndTakesItsAnswer(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := make(chan called, 1)
	go func() {
		e := event("one")
		e.TraceID, e.ClientContext = "Root=1-2-3", `{"custom":{}}`
		r, err := f.Invoke(t.Context(), e)
		c <- called{r, err}
	}()
	n := f.next()
	<-f.Ready()
	want := map[string]string{
		"Lambda-Runtime-Aws-Request-Id": "one", "Lambda-Runtime-Deadline-Ms": "1700000000123", "Lambda-Runtime-Trace-Id": "Root=1-2-3",
		"Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:local:0:function:f", "Lambda-Runtime-Client-Context": `{"custom":{}}`,
		"Content-Type": "application/json", "Content-Length": "12",
	}
	for k, v := range want {
		if n.header.Get(k) != v {
			t.Errorf("%s is %q, want %q", k, n.header.Get(k), v)
		}
	}
	if n.status != 200 || n.body != `{"id":"one"}` {
		t.Fatalf("next gave %d %q", n.status, n.body)
	}
	f.do("POST", root+"invocation/one/response", map[string]string{"Content-Type": "application/json"}, strings.NewReader(`{"ok":1}`)).accepted(t)
	got := <-c
	if got.err != nil || string(got.response.Body) != `{"ok":1}` || got.response.ContentType != "application/json" || got.response.Streamed || got.response.Fault != nil {
		t.Errorf("Invoke gave %+v", got)
	}
}

func TestOnlyTheActiveIDIsAccepted(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	f.post("invocation/one/response", "early").refused(t, 400, "InvalidRequestID")
	for i, id := range []string{"one", "two"} {
		c := f.invoke(t.Context(), id)
		f.next()
		for _, wrong := range []string{"zero", "", "ONE", id + "x", []string{"two", "one"}[i]} {
			f.post("invocation/"+wrong+"/response", "forged").refused(t, 400, "InvalidRequestID")
			f.post("invocation/"+wrong+"/error", "{}").refused(t, 400, "InvalidRequestID")
		}
		f.post("invocation/"+id+"/response", "mine").accepted(t)
		f.post("invocation/"+id+"/response", "again").refused(t, 400, "InvalidRequestID")
		f.post("invocation/"+id+"/error", "{}").refused(t, 400, "InvalidRequestID")
		if got := <-c; string(got.response.Body) != "mine" || got.err != nil {
			t.Errorf("Invoke gave %+v", got)
		}
	}
}

func TestFaults(t *testing.T) {
	big := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		header, body, errType, message, payload string
	}{
		"as documented":  {"", `{"errorMessage":"no","errorType":"Oops","stackTrace":["a"]}`, "Oops", "no", `{"errorMessage":"no","errorType":"Oops","stackTrace":["a"]}`},
		"header alone":   {"Runtime.Crash", `{}`, "Runtime.Crash", "", `{}`},
		"no JSON":        {"Runtime.Crash", `it broke`, "Runtime.Crash", "it broke", `{"errorMessage":"it broke","errorType":"Runtime.Crash"}`},
		"nothing":        {"", ``, "Function.Unknown", "", `{"errorMessage":"","errorType":"Function.Unknown"}`},
		"other types":    {"", `{"errorMessage":{"a":1},"errorType":7}`, "Function.Unknown", "", `{"errorMessage":{"a":1},"errorType":7}`},
		"hostile type":   {"", `{"errorMessage":"m","errorType":"a\r\nb"}`, "Function.Unknown", "m", `{"errorMessage":"m","errorType":"a\r\nb"}`},
		"invalid UTF-8":  {"", "\xff", "Function.Unknown", "\uFFFD", `{"errorMessage":"` + "\uFFFD" + `","errorType":"Function.Unknown"}`},
		"longer than it": {"T", `{"errorMessage":"` + big, "T", `{"errorMessage":"` + big[:183], `{"errorMessage":"{\"errorMessage\":\"` + big[:183] + `","errorType":"T"}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, runtimeapi.Options{MaxFault: 200})
			got := f.invoke(t.Context(), "one")
			f.next()
			h := map[string]string{}
			if c.header != "" {
				h["Lambda-Runtime-Function-Error-Type"] = c.header
			}
			f.do("POST", root+"invocation/one/error", h, strings.NewReader(c.body)).accepted(t)
			r := <-got
			if r.err != nil || r.response.Fault == nil || r.response.Body != nil {
				t.Fatalf("Invoke gave %+v", r)
			}
			fault := r.response.Fault
			if fault.Type != c.errType || fault.Message != c.message || string(fault.Payload) != c.payload {
				t.Errorf("fault %s: %s %s\nwant %s: %s %s", fault.Type, fault.Message, fault.Payload, c.errType, c.message, c.payload)
			}
		})
	}
}

func TestTheLimitOnAnswers(t *testing.T) {
	const limit = 100_000
	for _, chunked := range []bool{false, true} {
		for _, size := range []int{0, 1, limit - 1, limit, limit + 1, 20 * limit} {
			f := serve(t, runtimeapi.Options{MaxResponse: limit})
			c := f.invoke(t.Context(), "one")
			f.next()
			var body io.Reader = bytes.NewReader(bytes.Repeat([]byte("a"), size))
			if chunked {
				body = struct{ io.Reader }{body}
			}
			r := f.do("POST", root+"invocation/one/response", nil, body)
			got := <-c
			if size <= limit {
				r.accepted(t)
				if len(got.response.Body) != size || got.response.Fault != nil {
					t.Errorf("%d bytes arrived as %d, fault %v", size, len(got.response.Body), got.response.Fault)
				}
				continue
			}
			r.refused(t, 413, "RequestEntityTooLarge")
			if !strings.Contains(r.body, "Exceeded maximum allowed payload size (100000 bytes).") {
				t.Errorf("said %s", r.body)
			}
			if got.response.Fault == nil || got.response.Fault.Type != "Function.ResponseSizeTooLarge" || len(got.response.Body) != 0 {
				t.Errorf("%d bytes gave %+v", size, got.response)
			}
		}
	}
}

// stream posts a chunked body with trailers.
func (f *fixture) stream(id, mode, contentType, body string, trailer http.Header) reply {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", "http://"+f.addr+root+"invocation/"+id+"/response", struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Lambda-Runtime-Function-Response-Mode", mode)
	r.Header.Set("Content-Type", contentType)
	r.Trailer = trailer
	resp, err := f.client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func TestStreaming(t *testing.T) {
	f := serve(t, runtimeapi.Options{MaxResponse: 1000})
	run := func(mode, body string, trailer http.Header) (reply, called) {
		c := f.invoke(t.Context(), "one")
		if n := f.next(); n.status != 200 {
			t.Fatalf("next: %+v", n)
		}
		r := f.stream("one", mode, "text/html", body, trailer)
		if r.status == 400 {
			f.post("invocation/one/response", "").accepted(t)
		}
		return r, <-c
	}
	r, got := run("streaming", "<p>", nil)
	r.accepted(t)
	if !got.response.Streamed || string(got.response.Body) != "<p>" || got.response.ContentType != "text/html" {
		t.Errorf("stream gave %+v", got.response)
	}
	report := `{"errorMessage":"half way","errorType":"Broken"}`
	r, got = run("streaming", "<p>", http.Header{
		"Lambda-Runtime-Function-Error-Type": {"Function.Broken"},
		"Lambda-Runtime-Function-Error-Body": {base64.StdEncoding.EncodeToString([]byte(report))},
	})
	r.accepted(t)
	if f := got.response.Fault; f == nil || f.Type != "Broken" || f.Message != "half way" || string(f.Payload) != report || got.response.Body != nil {
		t.Errorf("a stream with an error trailer gave %+v", got.response)
	}
	r, got = run("streaming", "<p>", http.Header{"Lambda-Runtime-Function-Error-Type": {"Broken"}, "Lambda-Runtime-Function-Error-Body": {"%%%"}})
	r.accepted(t)
	if f := got.response.Fault; f == nil || f.Type != "Broken" || !json.Valid(f.Payload) {
		t.Errorf("a broken trailer gave %+v", got.response)
	}
	r, got = run("streaming", strings.Repeat("x", 1001), nil)
	r.refused(t, 413, "RequestEntityTooLarge")
	if got.response.Fault == nil {
		t.Error("a stream past the limit was accepted")
	}
	r, _ = run("sideways", "x", nil)
	r.refused(t, 400, "InvalidFunctionResponseMode")
	r, got = run("buffered", "x", nil)
	r.accepted(t)
	if got.response.Streamed {
		t.Error("a buffered answer counts as streamed")
	}
	// Errors in trailers belong to streams: a buffered answer is whole, or none.
	r, got = run("buffered", "x", http.Header{"Lambda-Runtime-Function-Error-Type": {"Broken"}})
	r.accepted(t)
	if got.response.Fault != nil || string(got.response.Body) != "x" {
		t.Errorf("a buffered answer with an error trailer gave %+v", got.response)
	}
}

// What breaks off half way is no answer, and another one may come.
func TestAnAnswerThatBreaksOffIsNone(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	got := f.invoke(t.Context(), "one")
	if n := f.next(); n.status != 200 {
		t.Fatalf("next: %+v", n)
	}
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST %sinvocation/one/response HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", root); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(c); err != nil || !strings.Contains(string(said), " 400 ") || !strings.Contains(string(said), "TruncatedHTTPRequest") {
		t.Errorf("it was answered %q, %v", said, err)
	}
	if r := f.post("invocation/one/response", `"whole"`); r.status != 202 {
		t.Fatalf("the whole answer: %+v", r)
	}
	if r := <-got; r.err != nil || string(r.response.Body) != `"whole"` {
		t.Errorf("Invoke gave %+v", r)
	}
}

func TestInitError(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := f.invoke(t.Context(), "one")
	if f.InitError() != nil {
		t.Error("there is an init error before there was one")
	}
	f.do("POST", root+"init/error", map[string]string{"Lambda-Runtime-Function-Error-Type": "Runtime.ImportModuleError"}, strings.NewReader(`{"errorMessage":"no module"}`)).accepted(t)
	if got := <-c; !errors.Is(got.err, runtimeapi.ErrInit) {
		t.Errorf("Invoke gave %+v", got)
	}
	<-f.InitFailed()
	if e := f.InitError(); e == nil || e.Type != "Runtime.ImportModuleError" || e.Message != "no module" {
		t.Errorf("InitError is %+v", e)
	}
	if _, err := f.Invoke(t.Context(), event("two")); !errors.Is(err, runtimeapi.ErrInit) {
		t.Errorf("a later Invoke gave %v", err)
	}
	f.post("init/error", `{"errorMessage":"another"}`).refused(t, 403, "InvalidStateTransition")
	f.next().refused(t, 403, "InvalidStateTransition")
	if e := f.InitError(); e.Message != "no module" {
		t.Errorf("the reason was replaced by %+v", e)
	}
}

// What was initialised stays so: whoever runs in the box later cannot say otherwise.
func TestNoInitErrorAfterTheFirstEvent(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := f.invoke(t.Context(), "one")
	f.next()
	f.post("init/error", "{}").refused(t, 403, "InvalidStateTransition")
	f.post("invocation/one/response", "x").accepted(t)
	<-c
	f.post("init/error", "{}").refused(t, 403, "InvalidStateTransition")
	if f.InitError() != nil {
		t.Error("a function unmade its initialisation")
	}
}

func TestASecondNextIsRefused(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	first := make(chan reply, 1)
	go func() { first <- f.next() }()
	<-f.Ready()
	f.next().refused(t, 403, "InvalidStateTransition") // while the first waits
	c := f.invoke(t.Context(), "one")
	if r := <-first; r.status != 200 {
		t.Fatalf("the first next got %d", r.status)
	}
	f.next().refused(t, 403, "InvalidStateTransition") // while one is under way
	f.post("invocation/one/response", "x").accepted(t)
	<-c
}

func TestARuntimeThatHungUpMayAskAgain(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+f.addr+root+"invocation/next", nil)
		if resp, err := f.client.Do(r); err == nil {
			resp.Body.Close()
		}
	}()
	<-f.Ready()
	cancel()
	<-gone
	serving, stop := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() { defer close(served); f.echo(serving) }()
	for i := 1; ; i++ { // one that went to the dead connection is lost, and the server learns of its end when it does
		wait, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Second)
		r, err := f.Invoke(wait, event(fmt.Sprint(i)))
		cancel()
		if err == nil {
			if want := string(event(fmt.Sprint(i)).Payload); string(r.Body) != want {
				t.Errorf("answered %q, want %q", r.Body, want)
			}
			break
		}
	}
	stop()
	<-served
}

// echo is a runtime that answers each event with itself, until the context ends.
func (f *fixture) echo(ctx context.Context) {
	for ctx.Err() == nil {
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+f.addr+root+"invocation/next", nil)
		resp, err := f.client.Do(r)
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
		if id == "" {
			continue
		}
		r, _ = http.NewRequestWithContext(ctx, "POST", "http://"+f.addr+root+"invocation/"+id+"/response", bytes.NewReader(body))
		if resp, err := f.client.Do(r); err == nil {
			resp.Body.Close()
		}
	}
}

func TestInvokeIsOneAtATime(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := f.invoke(t.Context(), "one")
	f.next()
	if _, err := f.Invoke(t.Context(), event("two")); !errors.Is(err, runtimeapi.ErrBusy) {
		t.Errorf("a second Invoke gave %v", err)
	}
	f.post("invocation/one/response", "x").accepted(t)
	<-c
}

func TestNobodyWaitsAnyMore(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	late := errors.New("too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := f.invoke(ctx, "one")
	f.next()
	// An answer is under way when the wait ends: its connection is cut.
	body, write := io.Pipe()
	cut := make(chan reply, 1)
	go func() {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+f.addr+root+"invocation/one/response", body)
		resp, err := f.client.Do(r)
		if err != nil {
			cut <- reply{}
			return
		}
		defer resp.Body.Close()
		cut <- reply{status: resp.StatusCode}
	}()
	_, _ = write.Write([]byte("the first half"))
	cancel(late)
	if got := <-c; !errors.Is(got.err, late) {
		t.Errorf("Invoke gave %+v", got)
	}
	if r := <-cut; r.status/100 == 2 {
		t.Errorf("half an answer after the end was accepted with %d", r.status)
	}
	write.Close()
	f.post("invocation/one/response", "late").refused(t, 400, "InvalidRequestID")
	// The server itself goes on; whether the box does is not for it to say.
	c = f.invoke(t.Context(), "two")
	f.next()
	f.post("invocation/two/response", "x").accepted(t)
	if got := <-c; got.err != nil || string(got.response.Body) != "x" {
		t.Errorf("the next Invoke gave %+v", got)
	}
}

// begin posts the head of an answer and waits until its body is being read.
func (f *fixture) begin(id string) net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "POST %sinvocation/%s/response HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", root, id)
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(goOn))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != goOn {
		f.t.Fatalf("%q, %v", got, err)
	}
	return c
}

func TestOneBodyIsReadAtATime(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := f.invoke(t.Context(), "one")
	f.next()
	first := f.begin("one")
	f.post("invocation/one/response", "second").refused(t, 400, "InvalidRequestID")
	fmt.Fprint(first, "mine")
	if got := <-c; string(got.response.Body) != "mine" {
		t.Errorf("Invoke gave %+v", got)
	}
}

func TestABodyIsCutWhenNobodyWaits(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	c := f.invoke(ctx, "one")
	f.next()
	conn := f.begin("one")
	cancel()
	<-c
	if b, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("answered %q, %v", b, err)
	}
}

func TestAnEventWhoseTimeIsOverIsNeverHandedOver(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	first := make(chan reply, 1)
	go func() { first <- f.next() }()
	<-f.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if _, err := f.Invoke(ctx, event("dead")); !errors.Is(err, context.Canceled) {
			t.Fatalf("Invoke gave %v", err)
		}
	}
	c := f.invoke(t.Context(), "alive")
	if r := <-first; r.header.Get("Lambda-Runtime-Aws-Request-Id") != "alive" {
		t.Errorf("the runtime got %q", r.body)
	}
	f.post("invocation/alive/response", "").accepted(t)
	<-c
}

func TestClose(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	waiting := f.invoke(t.Context(), "one")
	f.next()
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := <-waiting; !errors.Is(got.err, runtimeapi.ErrClosed) {
		t.Errorf("Invoke gave %+v", got)
	}
	if _, err := f.Invoke(t.Context(), event("two")); !errors.Is(err, runtimeapi.ErrClosed) {
		t.Errorf("Invoke after Close gave %v", err)
	}
	if c, err := net.Dial("tcp", f.addr); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

// A function cannot be given code or configuration by what runs in its box
// (CVE-2018-11756): apart from four paths there is nothing.
func TestNothingElseExists(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	c := f.invoke(t.Context(), "one")
	f.next()
	for path, method := range map[string]string{
		root + "invocation/next": "GET", root + "invocation/one/response": "POST", root + "invocation/one/error": "POST", root + "init/error": "POST",
	} {
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "INIT"} {
			if m == method {
				continue
			}
			if r := f.do(m, path, nil, nil); r.status != 405 || r.header.Get("Allow") != method {
				t.Errorf("%s %s: %d, Allow %q", m, path, r.status, r.header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{
		"/", "/init", "/run", "/update", "/2018-06-01", "/2018-06-01/", root, root + "init", root + "init/", root + "init/error/", root + "init/error/x",
		root + "invocation", root + "invocation/", root + "invocation/next/", root + "invocation/one", root + "invocation/one/", root + "invocation/one/response/", root + "invocation/one/respons",
		root + "invocation//next", root + "invocation/one/response?x=1", root + "invocation/one%2fresponse", root + "invocation/one/%72esponse/x", root + "./init/error",
		root + "restore/next", root + "restore/error", root + "code", root + "config", root + "environment",
		"/2018-06-02/runtime/invocation/next", "/2020-01-01/extension/register", "/2020-01-01/extension/event/next", "/2020-08-15/logs", "/2022-07-01/telemetry",
		"/2015-03-31/functions/f/invocations", "/2015-03-31/functions/f/code", "/debug/pprof/", "/metrics",
	} {
		for _, m := range []string{"GET", "POST", "PUT", "DELETE"} {
			if r := f.do(m, path, nil, nil); r.status != 404 {
				t.Errorf("%s %s: %d", m, path, r.status)
			}
		}
	}
	f.post("invocation/one/response", "still mine").accepted(t)
	if got := <-c; string(got.response.Body) != "still mine" {
		t.Errorf("Invoke gave %+v", got)
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	f := serve(t, runtimeapi.Options{MaxConnections: 4})
	var held []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("one too many was served: %q, %v", b, err)
	}
	_, _ = held[0].Write([]byte("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	if b, _ := io.ReadAll(held[0]); !strings.HasPrefix(string(b), "HTTP/1.1 404") {
		t.Errorf("one within the limit was answered %q", b)
	}
	held[0].Close()
	for { // the place is free when the server has seen the end
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c)
		c.Close()
		if strings.HasPrefix(string(b), "HTTP/1.1 404") {
			return
		}
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	f := serve(t, runtimeapi.Options{})
	r := f.do("GET", root+"invocation/next", map[string]string{"X": strings.Repeat("x", 32<<10)}, nil)
	if r.status != 431 {
		t.Errorf("32 KiB of header: %d", r.status)
	}
	select {
	case <-f.Ready():
		t.Error("the request was taken")
	default:
	}
}

// Guests that do everything wrong at once; the runtime among them is served all the same.
func TestHammer(t *testing.T) {
	f := serve(t, runtimeapi.Options{MaxResponse: 64 << 10, MaxConnections: 64})
	ctx, stop := context.WithCancel(t.Context())
	var guests, runtime sync.WaitGroup
	junk := []string{
		"GET " + root + "invocation/next HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST " + root + "init/error HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"POST " + root + "invocation/none/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
		"POST " + root + "invocation/none/response HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
		"\x00\x01\x02\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	}
	runtime.Go(func() { f.echo(ctx) })
	<-f.Ready() // before that a guest could end it all with init/error
	for i := range 6 {
		guests.Go(func() {
			for n := range 100 {
				c, err := net.Dial("tcp", f.addr)
				if err != nil {
					return
				}
				if i > 0 || n%50 == 0 { // the first steals events, and should not steal all
					_, _ = io.WriteString(c, junk[i])
				}
				if i%2 == 0 {
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, io.LimitReader(c, 64))
				}
				c.Close()
			}
		})
	}
	over := make(chan struct{})
	go func() { guests.Wait(); close(over) }()
	isOver := func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	afterwards, patience := 0, 100*time.Millisecond
	for i := 0; afterwards < 10; i++ {
		alone := isOver()
		id := fmt.Sprint("id-", i)
		// A hostile neighbour in the box may take an event and drop it: the wait has an end.
		wait, cancel := context.WithTimeout(t.Context(), patience)
		r, err := f.Invoke(wait, event(id))
		cancel()
		if err != nil {
			if alone {
				patience *= 2 // the machine may be slower than that
			}
			continue
		}
		if string(r.Body) != `{"id":"`+id+`"}` {
			t.Fatalf("%s was answered %q", id, r.Body)
		}
		if alone {
			afterwards++
		}
	}
	stop()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	runtime.Wait()
}

func FuzzConnection(f *testing.F) {
	f.Add([]byte("GET " + root + "invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST " + root + "invocation/one/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\r\n3\r\nabc\r\n0\r\nLambda-Runtime-Function-Error-Type: X\r\n\r\n"))
	f.Add([]byte("POST " + root + "init/error HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		s := serve(t, runtimeapi.Options{MaxResponse: 1 << 10})
		ctx, cancel := context.WithCancel(t.Context())
		c := s.invoke(ctx, "one")
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Skip(err)
		}
		defer conn.Close()
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(conn)
		if bytes.Contains(got, []byte("HTTP/1.1 500")) {
			t.Errorf("answered %q", got)
		}
		cancel()
		if r := <-c; r.err == nil && r.response.Fault != nil && !json.Valid(r.response.Fault.Payload) {
			t.Errorf("a fault without JSON: %q", r.response.Fault.Payload)
		}
	})
}

// BenchmarkInvoke is one warm invocation, guest's side included.
func BenchmarkInvoke(b *testing.B) {
	f := serve(b, runtimeapi.Options{})
	go func() {
		for {
			resp, err := f.client.Get("http://" + f.addr + root + "invocation/next")
			if err != nil {
				return
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
			resp, err = f.client.Post("http://"+f.addr+root+"invocation/"+id+"/response", "application/json", bytes.NewReader(body))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	e := event("one")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Invoke(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}
