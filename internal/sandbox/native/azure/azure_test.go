package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/web"
)

const plainHost = `{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}}}`

const forwardHost = `{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}, "enableForwardingHttpRequest": true}}`

const httpOnly = `{"bindings": [
	{"type": "httpTrigger", "authLevel": "function", "direction": "in", "name": "req", "methods": ["get", "post"]},
	{"type": "http", "direction": "out", "name": "res"}]}`

const order = `{"bindings": [
	{"type": "httpTrigger", "direction": "in", "name": "req", "methods": ["post"]},
	{"type": "http", "direction": "out", "name": "res"},
	{"type": "queue", "name": "message", "direction": "out", "queueName": "orders", "connection": "AzureWebJobsStorage"}]}`

const queue = `{"bindings": [
	{"name": "myQueueItem", "type": "queueTrigger", "direction": "in", "queueName": "messages-incoming", "connection": "AzureWebJobsStorage"},
	{"name": "$return", "type": "queue", "direction": "out", "queueName": "messages-outgoing", "connection": "AzureWebJobsStorage"}]}`

func appOf(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

func load(t *testing.T, files map[string]string) *App {
	t.Helper()
	a, err := Load(appOf(files))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func fixed() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// handlerOf connects an app with a server of the test's own.
func handlerOf(t *testing.T, a *App, h http.HandlerFunc) *Handler {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return connect(t, a, s.Listener.Addr().String())
}

func connect(t *testing.T, a *App, addr string) *Handler {
	t.Helper()
	c := web.New(web.Options{MaxResponse: 1 << 20, Clock: fixed, Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}})
	t.Cleanup(c.Close)
	if err := c.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return NewHandler(a, c, fixed)
}

func post(path, body string) (*sandbox.Head, []byte) {
	return &sandbox.Head{ID: "i-1", Method: "POST", Path: path, Trigger: "http", Headers: map[string][]string{
		"host": {"localhost:7071"}, "content-type": {"application/json"},
	}}, []byte(body)
}

// TestDocumentedOrder is the example of Microsoft's page, request and answer to the
// letter.
func TestDocumentedOrder(t *testing.T) {
	type invokeRequest struct {
		Data     map[string]json.RawMessage
		Metadata map[string]any
	}
	var seen map[string]any
	h := handlerOf(t, load(t, map[string]string{"host.json": plainHost, "order/function.json": order}), func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/order" {
			http.NotFound(w, r)
			return
		}
		var in invokeRequest
		json.NewDecoder(r.Body).Decode(&in)
		json.Unmarshal(in.Data["req"], &seen)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"Outputs": map[string]any{"message": seen["Body"], "res": map[string]any{"body": "Order enqueued"}}, "Logs": nil, "ReturnValue": nil,
		})
	})
	head, body := post("/api/order", `{"id":1005,"quantity":2,"color":"black"}`)
	got, err := h.Invoke(t.Context(), head, body, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if got.Response.Status != 200 || string(got.Body) != "Order enqueued" || got.Response.Headers["content-type"][0] != "text/plain; charset=utf-8" {
		t.Errorf("got %+v %q", got.Response, got.Body)
	}
	if !slices.Equal(got.Dropped, []string{"message"}) {
		t.Errorf("dropped %v", got.Dropped)
	}
	delete(seen, "Identities")
	want := map[string]any{
		"Url": "http://localhost:7071/api/order", "Method": "POST", "Query": "{}", "Params": map[string]any{},
		"Headers": map[string]any{"Content-Type": []any{"application/json"}, "Host": []any{"localhost:7071"}},
		"Body":    `{"id":1005,"quantity":2,"color":"black"}`,
	}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("the handler saw %v\nwant %v", seen, want)
	}
}

func TestForwarding(t *testing.T) {
	files := map[string]string{"host.json": forwardHost, "hello/function.json": httpOnly, "order/function.json": order}
	for _, host := range []string{forwardHost, strings.Replace(forwardHost, "Forwarding", "Proxying", 1)} {
		files["host.json"] = host
		h := handlerOf(t, load(t, files), func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("X-Id", r.Header.Get("X-Azure-Functions-InvocationId"))
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, b)
		})
		head, body := post("/api/hello", "hi")
		head.Query = "a=%20b"
		head.Headers["x-azure-functions-invocationid"] = []string{"forged"}
		got, err := h.Invoke(t.Context(), head, body, "shop")
		if err != nil || got.Response.Status != 202 || string(got.Body) != "POST /api/hello?a=%20b hi" || !slices.Equal(got.Response.Headers["x-id"], []string{"i-1"}) {
			t.Errorf("got %+v %q, %v", got.Response, got.Body, err)
		}
		// With another output the host makes the request, and 202 with such a body is no
		// answer.
		head, body = post("/api/order", "{}")
		var failed *Error
		if _, err := h.Invoke(t.Context(), head, body, "shop"); !errors.As(err, &failed) || failed.Kind != BadAnswer {
			t.Errorf("a function with a queue was forwarded: %v", err)
		}
	}
}

func TestNodeHandler(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node on the path")
	}
	code := os.DirFS("testdata/node")
	a, err := Load(code)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	command := a.Command(func(string) (string, bool) { return "", false })
	if command[0] != "node" {
		t.Fatalf("the command is %v", command)
	}
	cmd := exec.CommandContext(t.Context(), node, command[1:]...)
	cmd.Dir = "testdata/node"
	cmd.Env = Environment("/var/task", "w1", addr.Port)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	h := connect(t, a, addr.String())
	head, body := post("/api/Products/tools/7", "größe")
	head.Query, head.Headers["user-agent"] = "colour=red&colour=blue", []string{"curl/8"}
	got, err := h.Invoke(t.Context(), head, body, "shop")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"url":"http://localhost:7071/api/Products/tools/7?colour=red&colour=blue","colour":"red,blue","agent":["curl/8"],"params":{"category":"tools","id":"7"},"body":"größe"}`
	if got.Response.Status != 201 || string(got.Body) != want {
		t.Errorf("got %d %s\nwant %s", got.Response.Status, got.Body, want)
	}
	if !slices.Equal(got.Response.Headers["set-cookie"], []string{"a=1", "b=2"}) || !slices.Equal(got.Response.Headers["x-method"], []string{"POST"}) {
		t.Errorf("headers %v", got.Response.Headers)
	}
	if !slices.Equal(got.Logs, []string{"asked for tools", "by products"}) || !slices.Equal(got.Dropped, []string{"audit"}) {
		t.Errorf("logs %q, dropped %q", got.Logs, got.Dropped)
	}
}

func TestTriggersOtherThanHTTP(t *testing.T) {
	trigger := func(kind string) string {
		return `{"bindings": [{"name": "in", "type": "` + kind + `", "direction": "in"}]}`
	}
	event := map[string][]string{"ce-id": {"7"}, "ce-type": {"a.b"}, "ce-source": {"/s"}, "ce-subject": {"gr%C3%B6%C3%9Fe"}, "content-type": {"application/json"}}
	for _, c := range []struct {
		kind, function, body string
		headers              map[string][]string
		data                 string
	}{
		{"queue", queue, `{ "message": "sent" }`, nil, `{"myQueueItem":"{ \"message\": \"sent\" }"}`},
		{"binary", trigger("queueTrigger"), "\xff\x00", nil, `{"in":"/wA="}`},
		{
			"event", trigger("eventGridTrigger"), `{"n":1}`, event,
			`{"in":{"data":{"n":1},"datacontenttype":"application/json","id":"7","source":"/s","subject":"größe","type":"a.b"}}`,
		},
		{"timer", trigger("timerTrigger"), "", nil, `{"in":{"IsPastDue":false,"Schedule":{"AdjustForDST":true},"ScheduleStatus":null}}`},
	} {
		t.Run(c.kind, func(t *testing.T) {
			var seen struct {
				Data     json.RawMessage
				Metadata map[string]any
			}
			h := handlerOf(t, load(t, map[string]string{"host.json": plainHost, "work/function.json": c.function}), func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/work" {
					json.NewDecoder(r.Body).Decode(&seen)
				}
				io.WriteString(w, `{"outputs":{},"logs":["line", 7, {"a":1}],"returnValue":"{\"hello\":\"world\"}"}`)
			})
			got, err := h.Invoke(t.Context(), &sandbox.Head{ID: "i-2", Method: "POST", Path: "/", Trigger: "event", Headers: c.headers}, []byte(c.body), "work")
			if err != nil {
				t.Fatal(err)
			}
			if string(seen.Data) != c.data {
				t.Errorf("data %s, want %s", seen.Data, c.data)
			}
			sys, _ := seen.Metadata["sys"].(map[string]any)
			if sys["MethodName"] != "work" || sys["UtcNow"] != "2026-01-02T03:04:05Z" || !guidForm.MatchString(fmt.Sprint(sys["RandGuid"])) {
				t.Errorf("metadata %v", seen.Metadata)
			}
			if got.Response.Status != 200 || string(got.Body) != `{"hello":"world"}` || !slices.Equal(got.Logs, []string{"line", "7", `{"a":1}`}) {
				t.Errorf("got %+v %q", got, got.Body)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	named, returned := `{"type": "http", "direction": "out", "name": "res"}`, `{"type": "http", "direction": "out", "name": "$return"}`
	for _, c := range []struct {
		what, output, answer string
		status               int
		body, kind           string
	}{
		{"text", named, `{"Outputs":{"res":{"body":"hi"}}}`, 200, "hi", "text/plain; charset=utf-8"},
		{"object", named, `{"Outputs":{"res":{"statusCode":404,"body":{"a":[1]}}}}`, 404, `{"a":[1]}`, "application/json; charset=utf-8"},
		{"status as text", named, `{"Outputs":{"res":{"status":"503","body":""}}}`, 503, "", "text/plain; charset=utf-8"},
		{"letter case", named, `{"outputs":{"res":{"StatusCode":"201","Status":null,"Body":"x","Headers":{"Content-Type":"text/html"}}}}`, 201, "x", "text/html"},
		{"no body", named, `{"Outputs":{"res":{"statusCode":302,"headers":{"Location":"/x"}}}}`, 302, "", ""},
		{"plain value", named, `{"Outputs":{"res":"hi"}}`, 200, "hi", "text/plain; charset=utf-8"},
		{"number", named, `{"Outputs":{"res":{"body":7}}}`, 200, "7", "application/json; charset=utf-8"},
		{"text that is JSON stays text", named, `{"Outputs":{"res":{"body":"{\"statusCode\":500}"}}}`, 200, `{"statusCode":500}`, "text/plain; charset=utf-8"},
		{"not set", named, `{"Outputs":{}}`, 204, "", ""},
		{"null", named, `{"Outputs":null,"ReturnValue":"x"}`, 204, "", ""},
		{"returned text", returned, `{"ReturnValue":"hello"}`, 200, "hello", "text/plain; charset=utf-8"},
		{"returned object", returned, `{"ReturnValue":{"hello":"world"}}`, 200, `{"hello":"world"}`, "application/json; charset=utf-8"},
		{"returned response", returned, `{"ReturnValue":{"statusCode":418,"body":"tea"}}`, 418, "tea", "text/plain; charset=utf-8"},
		{"returned response as text", returned, `{"ReturnValue":"{\"status\":418,\"body\":\"tea\"}"}`, 418, "tea", "text/plain; charset=utf-8"},
		{"no output", `{"type": "queue", "direction": "out", "name": "q"}`, `{"Outputs":{"q":"x"},"ReturnValue":"x"}`, 204, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := `{"bindings":[{"type":"httpTrigger","direction":"in","name":"req"},` + c.output + `]}`
			h := handlerOf(t, load(t, map[string]string{"host.json": plainHost, "f/function.json": f}), func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, c.answer)
			})
			head, body := post("/api/f", "")
			got, err := h.Invoke(t.Context(), head, body, "")
			kind := strings.Join(got.Response.Headers["content-type"], "")
			if err != nil || got.Response.Status != c.status || string(got.Body) != c.body || kind != c.kind {
				t.Errorf("got %+v %q, %v", got.Response, got.Body, err)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		want   Kind
	}{
		{500, `{"Outputs":{"res":{"body":"hi"}}}`, Failed},
		{302, "", Failed},
		{200, "", BadAnswer},
		{200, "hello world", BadAnswer},
		{200, `[1]`, BadAnswer},
		{200, `{"Outputs":[]}`, BadAnswer},
		{200, `{"Logs":"x"}`, BadAnswer},
		{200, `{"Outputs":{"res":{"statusCode":"x"}}}`, BadAnswer},
		{200, `{"Outputs":{"res":{"statusCode":101}}}`, BadAnswer},
		{200, `{"Outputs":{"res":{"statusCode":1000}}}`, BadAnswer},
		{200, `{"Outputs":{"res":{"headers":{"a b":"c"}}}}`, BadAnswer},
		{200, `{"Outputs":{"res":{"headers":{"a":"b\r\nc: d"}}}}`, BadAnswer},
		{200, `{"Outputs":{"res":{"headers":[1]}}}`, BadAnswer},
	} {
		t.Run(c.answer, func(t *testing.T) {
			h := handlerOf(t, load(t, map[string]string{"host.json": plainHost, "f/function.json": httpOnly}), func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			})
			head, body := post("/api/f", "")
			got, err := h.Invoke(t.Context(), head, body, "")
			var failed *Error
			if !errors.As(err, &failed) || failed.Kind != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestCallerAndBinaryBodies(t *testing.T) {
	f := &Function{Name: "f", Trigger: Binding{Name: "req", Type: "httpTrigger"}}
	head, _ := post("/api/f", "")
	head.Caller, head.Params = "key:alice", map[string]string{"id": "1"}
	head.Headers["content-type"] = []string{"multipart/form-data; boundary=x"}
	b, err := encode(f, head, nil, []byte{0xff, 0}, fixed())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Data struct {
			Req struct {
				Identities string
				Params     map[string]string
				Body       []byte
			}
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var who []identity
	if err := json.Unmarshal([]byte(got.Data.Req.Identities), &who); err != nil || len(who) != 1 || !who[0].IsAuthenticated || *who[0].Name != "key:alice" {
		t.Errorf("identities %s", got.Data.Req.Identities)
	}
	if !slices.Equal(got.Data.Req.Body, []byte{0xff, 0}) || got.Data.Req.Params["id"] != "1" {
		t.Errorf("got %+v", got.Data.Req)
	}
	if !strings.Contains(identities("anonymous"), `"IsAuthenticated":false`) {
		t.Error("nobody is somebody")
	}
}

func TestEnvironmentAndCommand(t *testing.T) {
	a := load(t, map[string]string{"f/function.json": queue, "host.json": "\ufeff" + `{"version":"2.0","customHandler":{"description":{
		"defaultExecutablePath":"app/handler.exe","arguments":["--db","%DB%","100%","%NONE%"],"workingDirectory":"app/"}}}`})
	got := a.Command(func(name string) (string, bool) { return "value of " + name, name == "DB" })
	if want := []string{"app/handler.exe", "--db", "value of DB", "100%", "%NONE%"}; !slices.Equal(got, want) {
		t.Errorf("command %q", got)
	}
	if a.WorkingDirectory != "app" {
		t.Errorf("working directory %q", a.WorkingDirectory)
	}
	if env := Environment("/var/task", "w", 9000); !slices.Contains(env, "FUNCTIONS_CUSTOMHANDLER_PORT=9000") {
		t.Errorf("environment %v", env)
	}
}
