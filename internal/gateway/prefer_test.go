package gateway

import (
	"reflect"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func TestPreferences(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"respond-async": true, "Respond-ASYNC": true, " respond-async ": true, "wait=10, respond-async": true,
		"respond-async, wait=10": true, "respond-async;foo=bar": true, "respond-async ; foo": true, `respond-async=""`: true,
		"respond-async=": true, `foo="a, b", respond-async`: true, `foo="a\", b", respond-async`: true, ",,respond-async": true,
		"": false, "respond-asyncx": false, "x-respond-async": false, "respond-async=1": false, `respond-async="x"`: false,
		`foo="respond-async"`: false, `foo="a, respond-async"`: false, `foo="a\", respond-async"`: false, "respond_async": false,
		"return=respond-async": false, "foo; respond-async": false, `"respond-async"`: false, "respond-async x": false,
	} {
		if got := asksAsync([]string{value}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if !asksAsync([]string{"wait=1", "respond-async"}) || asksAsync(nil) {
		t.Error("fields that are there twice, or not")
	}
}

// FuzzPreferences must end, and find the preference after whatever is a list before it.
func FuzzPreferences(f *testing.F) {
	for _, s := range []string{"respond-async", `a="\"`, "a,b;c=d", `a="b,c"`, `"`, "\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		asksAsync([]string{s})
		if strings.Count(s, `"`) == 0 && !asksAsync([]string{s + ",respond-async"}) {
			t.Errorf("lost behind %q", s)
		}
		if asksAsync([]string{s}) && !strings.Contains(strings.ToLower(s), "respond-async") {
			t.Errorf("found in %q", s)
		}
	})
}

// FuzzRecall reads what it wrote, and nothing else as a call with more rights.
func FuzzRecall(f *testing.F) {
	f.Add("GET", "/a", "b=c", "x", "y", "key:a", []byte("body"), `{"a":["b"]}`)
	f.Add("POST", "/ä", "", "content-type", "text/plain", "", []byte{0, 0xff}, `{"a":`)
	ref := function.Ref{Namespace: "shop", Name: "cart"}
	f.Fuzz(func(t *testing.T, method, path, query, name, value, principal string, body []byte, raw string) {
		c := &invoke.Call{
			Ref: ref, Trigger: invoke.TriggerHTTP, RequestID: "r", Method: method, Path: path, Query: query,
			Headers: map[string][]string{name: {value, value}}, Params: map[string]string{name: value}, Body: body,
		}
		m, err := messageOf("id", c)
		if err != nil {
			return
		}
		m.Source, m.Extensions = "/namespaces/shop/functions/cart", map[string]string{"principal": principal}
		if len(principal) == 0 {
			m.Extensions = nil
		}
		b, err := m.Encode()
		if err != nil || m.Validate() != nil {
			return // the intake refuses it
		}
		stored, err := event.Decode(b)
		if err != nil {
			return
		}
		got, ok := Recall(ref, stored)
		if !ok {
			t.Fatalf("not read again: %+v", stored)
		}
		if valid := strings.ToValidUTF8(method+path+query+name+value, "") == method+path+query+name+value; valid {
			if got.Method != method || got.Path != path || got.Query != query || !reflect.DeepEqual(got.Headers, c.Headers) || !reflect.DeepEqual(got.Params, c.Params) || string(got.Body) != string(body) {
				t.Errorf("\ngot  %+v\nwant %+v", got, c)
			}
		}
		stored.Detail[asyncHeaders] = raw
		if got, ok := Recall(ref, stored); ok && (got.Ref != ref || got.Public || len(got.Principal.Scopes) != 1 || got.Principal.May("invoke", function.Ref{Namespace: "shop", Name: "other"})) {
			t.Errorf("more rights than were given: %+v", got)
		}
	})
}
