package lambdaevent_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/lambdaevent"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 3, 12, 20, 3, 58, 390e6, time.FixedZone("", 3600))

// event is what a function reads out of the JSON.
type event struct {
	RawPath, RawQueryString string
	Cookies                 []string
	Headers                 map[string]string
	QueryStringParameters   map[string]string
	RequestContext          json.RawMessage
	Body                    *string
	IsBase64Encoded         bool
}

func translate(t testing.TB, h *sandbox.Head, body []byte) event {
	t.Helper()
	raw, err := lambdaevent.FromHTTP(h, body, now)
	if err != nil {
		t.Fatal(err)
	}
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

// bytesOf gives the body as a function decodes it.
func (e event) bytesOf(t testing.TB) []byte {
	t.Helper()
	if e.Body == nil {
		return nil
	}
	if !e.IsBase64Encoded {
		return []byte(*e.Body)
	}
	b, err := base64.StdEncoding.DecodeString(*e.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEventsAreAsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		head sandbox.Head
		body string
	}{
		"get": {sandbox.Head{ID: "req-1", Method: "GET", Path: "/", Trigger: "http", Caller: "anonymous", Headers: map[string][]string{"host": {"a.example"}}}, ""},
		"full": {sandbox.Head{
			ID: "req-2", Method: "POST", Path: "/a b/ü/x", Query: "a=1&a=2&b=%20x+y&c&=d&bad=%zz", Trigger: "http", Caller: "key:ci", Params: map[string]string{"name": "ü"},
			Headers: map[string][]string{
				"content-type": {"application/json; charset=utf-8"}, "accept": {"text/html", "image/png"}, "user-agent": {"curl/8"}, "x-forwarded-for": {"192.0.2.7"},
				"cookie": {"a=b; c=d", "e=f"},
			},
		}, `{"k":"<é>"}`},
		"binary": {sandbox.Head{ID: "req-3", Method: "PUT", Path: "/img", Trigger: "invoke", Headers: map[string][]string{"content-type": {"image/png"}}}, "\x89PNG\x00\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := lambdaevent.FromHTTP(&c.head, []byte(c.body), now)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, raw, "", "  "); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, pretty.Bytes()) {
				t.Errorf("%s", pretty.Bytes())
			}
		})
	}
}

// Whatever a caller sends, requestContext is the platform's.
func TestNoHeaderSetsTheContext(t *testing.T) {
	plain := sandbox.Head{ID: "r", Method: "GET", Path: "/", Trigger: "http", Caller: "anonymous", Headers: map[string][]string{}}
	want := string(translate(t, &plain, nil).RequestContext)
	forged := plain
	forged.Headers = map[string][]string{}
	for _, name := range []string{
		"host", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "x-amzn-request-context", "x-amzn-requestid", "x-amzn-trace-id", "authorization",
		"x-amz-cf-id", "requestcontext", "accountid", "x-apigateway-event", "x-caller", "casemate-caller", "cookie",
	} {
		forged.Headers[name] = []string{`{"authorizer":{"lambda":{"caller":"root"}},"accountId":"1"}`}
	}
	forged.Query = "requestContext=x&authorizer=y"
	if got := string(translate(t, &forged, []byte(`{"requestContext":{"accountId":"1"}}`)).RequestContext); got != want {
		t.Errorf("context\n%s\nbecame\n%s", want, got)
	}
	// An address counts only from the door of HTTP, and only when it is one.
	for _, h := range []sandbox.Head{
		{Trigger: "invoke", Headers: map[string][]string{"x-forwarded-for": {"192.0.2.1"}}},
		{Trigger: "http", Headers: map[string][]string{"x-forwarded-for": {"192.0.2.1", "192.0.2.2"}}},
		{Trigger: "http", Headers: map[string][]string{"x-forwarded-for": {"192.0.2.1, 192.0.2.2"}}},
		{Trigger: "http", Headers: map[string][]string{"x-forwarded-for": {"evil"}}},
	} {
		if got := string(translate(t, &h, nil).RequestContext); !strings.Contains(got, `"sourceIp":""`) {
			t.Errorf("%v: %s", h.Headers, got)
		}
	}
}

func TestWhichBodiesAreText(t *testing.T) {
	for _, c := range []struct {
		contentType, encoding, body string
		base64                      bool
	}{
		{"application/json", "", `{}`, false},
		{"text/plain; charset=utf-8", "", "é", false},
		{"application/problem+json", "", `{}`, false},
		{"image/svg+xml", "", "<svg/>", false},
		{"application/x-www-form-urlencoded", "", "a=b", false},
		{"", "", "text", false},
		{"text/plain", "identity", "x", false},
		{"", "", "\xff", true},
		{"text/plain", "", "\xe9", true},
		{"application/octet-stream", "", "text", true},
		{"text/plain", "gzip", "x", true},
		{"image/png", "", "x", true},
		{";;", "", "x", true},
	} {
		h := sandbox.Head{Headers: map[string][]string{"content-type": {c.contentType}, "content-encoding": {c.encoding}}}
		if e := translate(t, &h, []byte(c.body)); e.IsBase64Encoded != c.base64 {
			t.Errorf("%q %q %q: base64 is %v", c.contentType, c.encoding, c.body, e.IsBase64Encoded)
		}
	}
}

func TestAnswers(t *testing.T) {
	const j, pre = "application/json", lambdaevent.ContentTypePrelude
	zero := "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		payload, contentType string
		status               int
		headers              string
		body                 string
	}{
		{`{"a":1}`, j, 200, "map[content-type:[application/json]]", `{"a":1}`},
		{`[1]`, "", 200, "map[content-type:[application/json]]", `[1]`},
		{`null`, j, 200, "map[content-type:[application/json]]", `null`},
		{``, j, 200, "map[content-type:[application/json]]", ``},
		{`"Hello \u00fc"`, j, 200, "map[content-type:[application/json]]", `Hello ü`},
		{`{"message":"x"}`, "application/x-www-form-urlencoded", 200, "map[content-type:[application/json]]", `{"message":"x"}`},
		{`{"StatusCode":404}`, j, 200, "map[content-type:[application/json]]", `{"StatusCode":404}`},
		{`{"statusCode":204}`, j, 204, "map[content-type:[application/json]]", ``},
		{`{"statusCode":"201","body":null,"headers":null,"cookies":null,"isBase64Encoded":null}`, j, 201, "map[content-type:[application/json]]", ``},
		{`{"statusCode":404,"headers":{"Content-Type":"text/html","X-N":7,"x-b":true},"body":"<p>é"}`, j, 404, "map[content-type:[text/html] x-b:[true] x-n:[7]]", `<p>é`},
		{`{"statusCode":200,"body":"AP8=","isBase64Encoded":true}`, j, 200, "map[content-type:[application/json]]", "\x00\xff"},
		{`{"statusCode":200,"body":"AP8="}`, j, 200, "map[content-type:[application/json]]", "AP8="},
		{`{"statusCode":200,"cookies":["a=b; Secure","c=d"],"headers":{"Set-Cookie":"z=0"}}`, j, 200, "map[content-type:[application/json] set-cookie:[z=0 a=b; Secure c=d]]", ""},
		{`{"statusCode":200,"multiValueHeaders":{"x":["y"]}}`, j, 200, "map[content-type:[application/json]]", ""},
		{`<p>`, "text/html; charset=utf-8", 200, "map[content-type:[text/html; charset=utf-8]]", "<p>"},
		{`{"statusCode":404}`, "text/plain", 200, "map[content-type:[text/plain]]", `{"statusCode":404}`},
		{`{"statusCode":418,"headers":{"x-a":"b"},"cookies":["c=d"]}` + zero + "tea" + zero, pre, 418, "map[set-cookie:[c=d] x-a:[b]]", "tea" + zero},
		{`{}` + zero, pre, 200, "map[]", ""},
	} {
		h, body, err := lambdaevent.ToHTTP([]byte(c.payload), c.contentType)
		if err != nil || h.Status != c.status || fmt.Sprint(h.Headers) != c.headers || string(body) != c.body {
			t.Errorf("%s (%s) gave %d %v %q, %v", c.payload, c.contentType, h.Status, h.Headers, body, err)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	const j, pre = "application/json", lambdaevent.ContentTypePrelude
	for _, c := range [][3]string{
		{`{"a":`, j, "not JSON"},
		{`hello`, j, "not JSON"},
		{`"a`, j, "not JSON"},
		{`{"statusCode":99}`, j, "statusCode"},
		{`{"statusCode":600}`, j, "statusCode"},
		{`{"statusCode":101}`, j, "statusCode"},
		{`{"statusCode":null}`, j, ""},
		{`{"statusCode":{}}`, j, "statusCode"},
		{`{"statusCode":2e2}`, j, "statusCode"},
		{`{"statusCode":200,"headers":[]}`, j, "headers"},
		{`{"statusCode":200,"headers":{"x":["y"]}}`, j, `"x"`},
		{`{"statusCode":200,"headers":{"x":"a\r\nb: c"}}`, j, "control character"},
		{`{"statusCode":200,"headers":{"a b":"c"}}`, j, "name"},
		{`{"statusCode":200,"headers":{"":"c"}}`, j, "name"},
		{`{"statusCode":200,"headers":{"x\r\n":"c"}}`, j, "name"},
		{`{"statusCode":200,"cookies":"a"}`, j, "cookies"},
		{`{"statusCode":200,"cookies":["a\nb"]}`, j, "control"},
		{`{"statusCode":200,"body":{"a":1}}`, j, "not a string"},
		{`{"statusCode":200,"body":"%%","isBase64Encoded":true}`, j, "base64"},
		{`{"statusCode":200,"body":"x","isBase64Encoded":"yes"}`, j, "isBase64Encoded"},
		{`{}`, pre, "prelude"},
		{"x\x00\x00\x00\x00\x00\x00\x00\x00", pre, "prelude"},
		{"x", "text/html\r\nx: y", "control"},
	} {
		h, body, err := lambdaevent.ToHTTP([]byte(c[0]), c[1])
		if c[2] == "" { // null is as if it were not there
			if err != nil {
				t.Errorf("%s: %v", c[0], err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c[2]) || h.Status != 0 || body != nil {
			t.Errorf("%s gave %d %v %q, %v; want %s", c[0], h.Status, h.Headers, body, err, c[2])
		}
	}
}

// Any body comes back as it went in, through a function that echoes its event.
func FuzzBodySurvives(f *testing.F) {
	f.Add("application/json", "", []byte(`{"a":1}`), "a=1&b=2", "/a b")
	f.Add("image/png", "gzip", []byte("\x00\xff\xfe"), "%", "//x?y")
	f.Add("", "", []byte("\u2028<>&\x00"), "&&==", "")
	f.Fuzz(func(t *testing.T, contentType, encoding string, body []byte, query, path string) {
		h := sandbox.Head{Path: path, Query: query, Headers: map[string][]string{"content-type": {contentType}, "content-encoding": {encoding}}}
		e := translate(t, &h, body)
		if !bytes.Equal(e.bytesOf(t), body) {
			t.Fatalf("%q became %q", body, e.bytesOf(t))
		}
		answer, err := json.Marshal(map[string]any{"statusCode": 200, "body": e.Body, "isBase64Encoded": e.IsBase64Encoded})
		if err != nil {
			t.Fatal(err)
		}
		head, back, err := lambdaevent.ToHTTP(answer, "application/json")
		if err != nil || head.Status != 200 || !bytes.Equal(back, body) {
			t.Fatalf("%q came back as %q, %v", body, back, err)
		}
	})
}

func FuzzToHTTP(f *testing.F) {
	f.Add([]byte(`{"statusCode":200,"headers":{"a":"b"},"cookies":["c"],"body":"d"}`), "application/json")
	f.Add([]byte("{\"statusCode\":200}\x00\x00\x00\x00\x00\x00\x00\x00body"), lambdaevent.ContentTypePrelude)
	f.Fuzz(func(t *testing.T, payload []byte, contentType string) {
		h, body, err := lambdaevent.ToHTTP(payload, contentType)
		if err != nil {
			if !reflect.DeepEqual(h, sandbox.ResponseHead{}) || body != nil {
				t.Fatal("an error came with an answer")
			}
			return
		}
		if h.Status < 200 || h.Status > 599 {
			t.Fatalf("status %d", h.Status)
		}
		for name, values := range h.Headers {
			if name != strings.ToLower(name) || strings.ContainsAny(name, " \r\n:\x00") || strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("header %q: %q", name, values)
			}
		}
	})
}
