package gateway

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type logLine struct {
	Msg, ID, Method, Path, Route, Function, Principal, Receipt, Remote, Code, Error string
	Status, BytesIn, BytesOut                                                       int
	Duration                                                                        time.Duration
}

func logLines(t *testing.T, w *world) []logLine {
	t.Helper()
	var lines []logLine
	for text := range strings.Lines(w.logs.String()) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("not one record a line: %v\n%q", err, text)
		}
		lines = append(lines, l)
	}
	return lines
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	w.do(t, "POST", "/~shop/cart?secret=query", strings.NewReader("12345"), bearer(goodKey), "X-Request-Id: id-1", "X-Private: header-value", "Cookie: cookie-value")
	w.do(t, "GET", "/nowhere", nil)
	eventually(t, "two records", func() bool { return len(logLines(t, w)) == 2 })
	lines := logLines(t, w)
	l := lines[0]
	if l.Duration <= 0 {
		t.Error("no duration")
	}
	l.Duration = 0
	want := logLine{
		Msg: "request", ID: "id-1", Method: "POST", Path: "/~shop/cart", Route: "POST /cart", Function: "shop/cart", Principal: "key:good",
		Receipt: "receipt-1", Remote: "127.0.0.1", Status: 200, BytesIn: 5, BytesOut: 6,
	}
	if l != want {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	if l := lines[1]; l.Status != 404 || l.Code != "not_found" || l.Error != "" || l.Function != "" {
		t.Errorf("got %+v", l)
	}
	for _, secret := range []string{"query", "header-value", "cookie-value", keySecret} {
		if strings.Contains(w.logs.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestAttackLogInjection(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, target := range []string{
		"/a%0a%7b%22msg%22:%22request%22%7d", "/%1b[2Jx", "/%e2%80%ae%e2%81%a6x", "/%c2%9b31m", "/\xff\xfe", "/" + strings.Repeat("%20", 5000),
	} {
		w.raw(t, get1(target))
	}
	for _, line := range logLines(t, w) {
		if line.Msg != "request" || len(line.Path) > maxLoggedPath*6+100 {
			t.Errorf("got %+.200v", line)
		}
		for _, c := range line.Path {
			if c < ' ' || c > '~' {
				t.Errorf("the logged path %q holds %q", line.Path, c)
			}
		}
	}
	for in, want := range map[string]string{
		"/echo/cache": "/echo/cache", "/a\nb": `/a\nb`, "/cm_abc/x": "/[key]/x", "/x/acm_abc": "/x/a[key]", "": "", "é": `\u00e9`,
	} {
		if got := loggable(in); got != want {
			t.Errorf("%q: logged as %q, want %q", in, got, want)
		}
	}
}

func TestNewRefusesAHalfConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	whole := Config{Invoker: w.invoker, Keys: w.keys, Logger: w.logger, Clock: time.Now, NewID: func() string { return "x" }}
	for field, spoil := range map[string]func(*Config){
		"Invoker": func(c *Config) { c.Invoker = nil }, "Keys": func(c *Config) { c.Keys = nil }, "Logger": func(c *Config) { c.Logger = nil },
		"Clock": func(c *Config) { c.Clock = nil }, "NewID": func(c *Config) { c.NewID = nil },
		"HeaderBytes": func(c *Config) { c.Limits.HeaderBytes = 1 }, "MinRate": func(c *Config) { c.Limits.MinRate = -1 },
		"BodyMemory": func(c *Config) { c.Limits.BodyMemory = 1 }, "raise BodyTime": func(c *Config) { c.Limits.BodyTime = time.Second },
		"Connections": func(c *Config) { c.Limits.Connections = -1 },
	} {
		c := whole
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := New(whole); err != nil {
		t.Error(err)
	}
}
