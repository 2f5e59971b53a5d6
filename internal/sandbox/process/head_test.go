package process

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// asJSON is what the encoder is held against.
func asJSON(t testing.TB, h *sandbox.Head) []byte {
	t.Helper()
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sameHead compares byte for byte where encoding/json had nothing to sort, and by
// what is decoded everywhere.
func sameHead(t testing.TB, h *sandbox.Head) {
	t.Helper()
	got, want := appendHead(nil, h), asJSON(t, h)
	if len(got) == 0 || got[len(got)-1] != '\n' || bytes.Count(got, []byte{'\n'}) != 1 {
		t.Fatalf("not one line: %q", got)
	}
	got = got[:len(got)-1]
	if len(h.Headers) < 2 && len(h.Params) < 2 && !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var a, b sandbox.Head
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) || len(got) != len(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// fullHead sets every field, so that one that is added must be written too.
func fullHead(t testing.TB) *sandbox.Head {
	t.Helper()
	h := &sandbox.Head{
		ID: "id", Method: "POST", Path: "/a/ü/<b>", Query: "a=1&b=2",
		Headers: map[string][]string{"accept": {"*/*", "b"}, "host": {"localhost"}, "empty": {}, "none": nil, "x\"y": {"\\ \u2028 \x01"}},
		Params:  map[string]string{"name": "Ada", "other": ""},
		Trigger: "http", Caller: "key:abc", Deadline: 1_800_000_000_123,
	}
	v := reflect.ValueOf(h).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the field %s is not part of this test", v.Type().Field(i).Name)
		}
	}
	return h
}

func TestHeadIsWhatEncodingJSONMakes(t *testing.T) {
	t.Parallel()
	sameHead(t, fullHead(t))
	for i := range reflect.TypeFor[sandbox.Head]().NumField() {
		h := fullHead(t)
		v := reflect.ValueOf(h).Elem().Field(i)
		v.SetZero()
		sameHead(t, h)
	}
	sameHead(t, &sandbox.Head{})
	sameHead(t, &sandbox.Head{Headers: map[string][]string{}, Params: map[string]string{}})
	sameHead(t, &sandbox.Head{ID: "\xff\xfe", Headers: map[string][]string{"a": {"\xc3\x28"}}})
}

// FuzzHead holds the encoder against encoding/json.
func FuzzHead(f *testing.F) {
	f.Add("id", "GET", "/p", "q=1", "accept", "*/*", "b", "x", "y", "http", "key:1", int64(5))
	f.Add("<&>", "\"", "\\", "\x00", "\xff", "\u2028", "é", "", "", "", "", int64(-1))
	f.Fuzz(func(t *testing.T, id, method, path, query, name, v1, v2, param, value, trigger, caller string, deadline int64) {
		sameHead(t, &sandbox.Head{
			ID: id, Method: method, Path: path, Query: query, Headers: map[string][]string{name: {v1, v2}},
			Params: map[string]string{param: value}, Trigger: trigger, Caller: caller, Deadline: deadline,
		})
	})
}

func BenchmarkHead(b *testing.B) {
	h := fullHead(b)
	h.Headers = map[string][]string{
		"accept": {"*/*"}, "content-type": {"application/json"}, "content-length": {"14"}, "host": {"127.0.0.1:8443"}, "user-agent": {"wrk"},
		"x-forwarded-host": {"127.0.0.1:8443"}, "x-forwarded-for": {"127.0.0.1"}, "x-forwarded-proto": {"https"},
		"x-request-id": {"019aabb5-8d8f-7e02-9d1f-7a6e8f0c1d2e"},
	}
	h.Path, h.Query = "/hello", ""
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = appendHead(buf[:0], h)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = asJSON(b, h)
		}
	})
}

// sameAnswer holds the quick reader of head lines against encoding/json.
func sameAnswer(t testing.TB, line []byte) (quick bool) {
	t.Helper()
	got, ok := quickHead(line)
	if !ok {
		return false
	}
	want, err := slowHead(line)
	if err != nil {
		t.Fatalf("%q was taken, and encoding/json says: %v", line, err)
	}
	if got.Status != want.Status || len(got.Headers) != len(want.Headers) {
		t.Fatalf("%q: got %+v, want %+v", line, got, want)
	}
	for name, values := range want.Headers {
		have, there := got.Headers[name]
		if !there || len(have) != len(values) || len(have) > 0 && !reflect.DeepEqual(have, values) {
			t.Fatalf("%q: got %+v, want %+v", line, got, want)
		}
	}
	return true
}

func TestCommonAnswersAreReadQuicklyAndOthersAllTheSame(t *testing.T) {
	t.Parallel()
	for line, quick := range map[string]bool{
		`{"status":200}`:              true,
		`{"status":404,"headers":{}}`: true,
		`{"status":200,"headers":{"content-type":"application/json"}}`:               true,
		`{"headers":{"Content-Type":"text/html","x":["a","b"],"y":[]},"status":299}`: true,
		"\t{ \"status\" : 200 , \"headers\" : { \"a\" : [ \"b\" , \"c\" ] } }\r":     true,
		`{"Status":200}`: false, `{"status":200.0}`: false, `{"status":2e2}`: false, `{"status":0200}`: false, `{"status":2000}`: false,
		`{"status":"200"}`: false, `{"status":199}`: false, `{"status":600}`: false, `{"status":-20}`: false,
		`{"status":200,"status":201}`: false, `{"headers":{"a":"b"},"headers":{"c":"d"},"status":200}`: false,
		`{"status":200,"headers":{"a":"b","A":"c"}}`: false, `{"status":200,"headers":{"a":"b","a":"c"}}`: false,
		`{"status":200,"headers":{"a b":"c"}}`: false, `{"status":200,"headers":{"":"c"}}`: false,
		`{"status":200,"headers":{"a":"\n"}}`: false, "{\"status\":200,\"headers\":{\"a\":\"\u00fc\"}}": false,
		"{\"status\":200,\"headers\":{\"a\":\"\x7f\"}}": false, "{\"status\":200,\"headers\":{\"a\":\"\x01\"}}": false,
		`{"status":200,"headers":null}`: false, `{"status":200,"headers":{"a":null}}`: false, `{"status":200,"headers":{"a":1}}`: false,
		`{"status":200,"other":1}`: false, `{"status":200}x`: false, `{"status":200,}`: false, `{"status":200`: false,
		`{,"status":200}`: false, `{"status":200,"headers":{"a":["b",]}}`: false, `{"status":200,"headers":{"a":"b",}}`: false,
		`{"status":200,"headers":{"a":["b"}}`: false, `{}`: false, ``: false, `[]`: false, `{"stat":200}`: false, `{"":200}`: false,
	} {
		if got := sameAnswer(t, []byte(line)); got != quick {
			t.Errorf("%q: read quickly: %v, want %v", line, got, quick)
		}
	}
}

// FuzzQuickHead looks for a line that both readers take and understand differently.
func FuzzQuickHead(f *testing.F) {
	f.Add([]byte(`{"status":200,"headers":{"content-type":"application/json","x":["a","b"]}}`))
	f.Add([]byte(` { "headers":{"A":[]} , "status":404 } `))
	f.Fuzz(func(t *testing.T, line []byte) { sameAnswer(t, line) })
}

func BenchmarkSplitAnswer(b *testing.B) {
	line := []byte(`{"status":200,"headers":{"content-type":"application/json"}}`)
	out := append(append([]byte(nil), line...), "\n{\"hello\":\"Ada\"}\n"...)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := splitAnswer(out); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := slowHead(line); err != nil {
				b.Fatal(err)
			}
		}
	})
}
