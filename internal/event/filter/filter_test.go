package filter_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/filter"
)

func message() *event.Message {
	return &event.Message{
		Event: event.Event{
			ID: "7", Source: "/namespaces/shop/topics/orders", Type: "com.example.order.created", Subject: "orders/42.pdf",
			Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), DataContentType: "application/json",
			Extensions: map[string]string{"region": "eu", "size": "12"},
		},
		Key: "customer-1",
	}
}

func TestDialects(t *testing.T) {
	t.Parallel()
	for f, want := range map[string]bool{
		``:     true,
		`null`: true,
		`[]`:   true,
		`{"exact":{"type":"com.example.order.created"}}`:                  true,
		`{"exact":{"type":"com.example.order"}}`:                          false,
		`{"exact":{"type":"com.example.order.created","region":"eu"}}`:    true,
		`{"exact":{"type":"com.example.order.created","region":"us"}}`:    false,
		`{"exact":{"missing":"x"}}`:                                       false,
		`{"exact":{"partitionkey":"customer-1"}}`:                         true,
		`{"exact":{"specversion":"1.0"}}`:                                 true,
		`{"prefix":{"type":"com.example."}}`:                              true,
		`{"prefix":{"type":"com.other."}}`:                                false,
		`{"prefix":{"missing":"x"}}`:                                      false,
		`{"prefix":{"time":"2026-01-02T"}}`:                               true,
		`{"suffix":{"subject":".pdf"}}`:                                   true,
		`{"suffix":{"subject":".png"}}`:                                   false,
		`{"not":{"suffix":{"subject":".png"}}}`:                           true,
		`{"not":{"exact":{"missing":"x"}}}`:                               true,
		`{"all":[{"exact":{"region":"eu"}},{"prefix":{"type":"com."}}]}`:  true,
		`{"all":[{"exact":{"region":"eu"}},{"prefix":{"type":"org."}}]}`:  false,
		`{"any":[{"exact":{"region":"us"}},{"prefix":{"type":"com."}}]}`:  true,
		`{"any":[{"exact":{"region":"us"}},{"prefix":{"type":"org."}}]}`:  false,
		`[{"exact":{"region":"eu"}},{"suffix":{"subject":".pdf"}}]`:       true,
		`[{"exact":{"region":"eu"}},{"suffix":{"subject":".png"}}]`:       false,
		`{"sql":"region = 'eu' AND subject LIKE '%.pdf'"}`:                true,
		`{"sql":"region = 'eu' AND subject LIKE '%.png'"}`:                false,
		`{"sql":"size > 10"}`:                                             true,
		`{"sql":"missing = 'x'"}`:                                         false,
		`{"sql":"NOT (missing = 'x')"}`:                                   false, // not decidable
		`{"sql":"EXISTS missing OR partitionkey = 'customer-1'"}`:         true,
		`{"sql":"SUBSTRING(type, 3, -1) = 'a'"}`:                          false, // the library panics
		`{"sql":"LENGTH(id)"}`:                                            true,
		`{"sql":"'TRUE'"}`:                                                true,
		`{"sql":"'no'"}`:                                                  false,
		`{"sql":"time = '2026-01-02T03:04:05Z'"}`:                         true,
		`{"sql":"source = '/namespaces/shop/topics/orders'"}`:             true,
		`{"sql":"datacontenttype = 'application/json' AND id = '7'"}`:     true,
		`{"not":{"any":[{"sql":"FALSE"},{"not":{"exact":{"id":"7"}}}]}} `: true,
	} {
		match, err := filter.Compile(json.RawMessage(f))
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if got := match(message()); got != want {
			t.Errorf("%s: got %v, want %v", f, got, want)
		}
	}
}

func nested(dialect string, depth int) string {
	open := `{"` + dialect + `":`
	end := `}`
	if dialect != "not" {
		open, end = open+"[", "]"+end
	}
	return strings.Repeat(open, depth) + `{"exact":{"id":"7"}}` + strings.Repeat(end, depth)
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	many := strings.TrimSuffix(strings.Repeat(`{"exact":{"id":"7"}},`, 60), ",")
	for f, want := range map[string]string{
		`{`:   "filter is not valid JSON",
		`"x"`: "filter must be a JSON object",
		`{}`:  "filter must be an object with one of",
		`{"exact":{"id":"1"},"not":{"sql":"TRUE"}}`:   "has 2 fields",
		`{"exact":{"id":"1"},"exact":{"id":"2"}}`:     `filter."exact" is there twice`,
		`{"exact":{"id":"1","id":"2"}}`:               `exact."id" is there twice`,
		`{"equals":{"id":"1"}}`:                       `"equals" is no dialect`,
		`{"exact":{}}`:                                "exact must name at least one attribute",
		`{"exact":{"id":7}}`:                          "exact.id must be text",
		`{"exact":{"id":""}}`:                         "exact.id must be text",
		`{"exact":{"Data-Key":"1"}}`:                  `exact."Data-Key" cannot name an attribute`,
		`{"prefix":{"data":"1"}}`:                     `prefix."data" cannot name an attribute`,
		`{"all":[]}`:                                  "all must not be empty",
		`{"any":{}}`:                                  "any must be a list",
		`{"any":null}`:                                "any must be a list",
		`{"not":[]}`:                                  "not must be a JSON object",
		`{"all":[{"sql":"TRUE"},{"exact":{"x":1}}]}`:  "all[1].exact.x must be text",
		`[{"sql":"TRUE"},{"sql":"a AND ("}]`:          "filter[1].sql is not an expression",
		`{"sql":"a = = b"}`:                           "sql is not an expression",
		`{"sql":"NOWHERE(id)"}`:                       "sql calls a function that there is not",
		`{"sql":"id ! '1'"}`:                          "sql is not an expression of CloudEvents SQL: at character 4",
		`{"sql":"` + strings.Repeat("(", 1000) + `"}`: "more than 64 brackets",
		`{"sql":"` + strings.Repeat(")", 900) + strings.Repeat("(", 900) + `"}`: "more than 64 brackets",
		`{"sql":7}`: "sql must be an expression as text",
		`{"sql":"` + strings.Repeat("x", 2049) + `"}`:                                  "sql has 2049 bytes",
		`{"sql":"` + strings.Repeat("(", 65) + "TRUE" + strings.Repeat(")", 65) + `"}`: "more than 64 brackets",
		`{"exact":{"id":"` + strings.Repeat("x", event.MaxAttribute+1) + `"}}`:         "exact.id is longer than",
		nested("not", filter.MaxDepth+1):                                               "nested deeper than 8",
		nested("all", filter.MaxDepth+1):                                               "nested deeper than 8",
		`{"all":[` + many + `]}`:                                                       "makes more than 100 parts",
		strings.Repeat(" ", filter.MaxBytes+1):                                         "filter has",
		"{\"exact\":{\"id\":\"\xff\"}}":                                                "UTF-8",
	} {
		_, err := filter.Compile(json.RawMessage(f))
		var fe *filter.Error
		if !errors.As(err, &fe) || fe.Field == "" || fe.Reason == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %s", f, err, want)
		}
	}
	for _, dialect := range []string{"not", "all", "any"} {
		if _, err := filter.Compile(json.RawMessage(nested(dialect, filter.MaxDepth))); err != nil {
			t.Errorf("%s at the bound: %v", dialect, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`{"exact":{"id":"1"}}`, `[{"sql":"a AND ("}]`, `{"not":{"any":[{"suffix":{"type":"x"}}]}}`, `{"sql":"SUBSTRING(type, 3, -1) = 'a'"}`, `{"sql":"LEFT(id,-1)"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		match, err := filter.Compile(raw)
		var fe *filter.Error
		switch {
		case err == nil:
			match(message())
			match(&event.Message{})
		case !errors.As(err, &fe):
			t.Fatalf("%T: %v", err, err)
		}
	})
}

// FuzzSQL goes to the language itself, behind the JSON.
func FuzzSQL(f *testing.F) {
	for _, s := range []string{"a AND (", "SUBSTRING(type, 3, -1) = 'a'", "id IN ('a', 'b')", "type LIKE '%a_\\%'", "-(2147483647) / 0", "CONCAT_WS(1)", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		quoted, _ := json.Marshal(text)
		match, err := filter.Compile(json.RawMessage(fmt.Sprintf(`{"sql":%s}`, quoted)))
		if err == nil {
			match(message())
		}
	})
}

func BenchmarkExact(b *testing.B) { bench(b, `{"exact":{"type":"com.example.order.created"}}`) }

func BenchmarkSQL(b *testing.B) { bench(b, `{"sql":"region = 'eu' AND subject LIKE '%.pdf'"}`) }

func bench(b *testing.B, f string) {
	match, err := filter.Compile(json.RawMessage(f))
	if err != nil {
		b.Fatal(err)
	}
	m := message()
	b.ReportAllocs()
	for b.Loop() {
		match(m)
	}
}
