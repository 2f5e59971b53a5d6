package connector

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

// conversation gives the lines of one side from the file that the library's tests read too.
func conversation(t testing.TB, side string) []string {
	t.Helper()
	b, err := os.ReadFile("../../../connector/testdata/conversation.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, side+" "); ok {
			lines = append(lines, strings.TrimSpace(text))
		}
	}
	return lines
}

func TestConversation(t *testing.T) {
	t.Parallel()
	var batches [][]event.Message
	for _, line := range conversation(t, "C") {
		m, err := parse([]byte(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch m.Message {
		case "ready":
			if k, v, err := choose(m, "redis"); err != nil || v != 1 || k.Name != "redis" {
				t.Errorf("%v: %s", err, line)
			}
		case "events":
			events, bad, reason, err := batch(m)
			if err != nil || (bad >= 0) != (m.ID == 2) {
				t.Errorf("%v %d %s: %s", err, bad, reason, line)
			}
			batches = append(batches, events)
		case "position", "health", "pong", "checked":
		default:
			t.Errorf("unknown: %s", line)
		}
	}
	// What we say has the form that the file shows.
	for _, line := range conversation(t, "N") {
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		var m message
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		b, err := json.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if json.Unmarshal(b, &got) != nil || json.Unmarshal([]byte(line), &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %s, want %s", b, line)
		}
	}
	e := batches[0]
	if len(e) != 2 || e[0].ID != "1700000000001-0" || e[0].Source != "" || e[0].Key != "k" || string(e[0].Data) != `{"n": 1}` ||
		e[0].Detail["queue.kind"] != "redis" || !e[0].Time.Equal(time.UnixMilli(1700000000001)) || len(e[0].Extensions) != 0 {
		t.Errorf("%+v", e[0])
	}
	if string(e[1].Data) != "\x00\xff" || e[1].Extensions["sequence"] != "7" || e[1].Extensions["urgent"] != "true" || e[1].Detail != nil {
		t.Errorf("%+v", e[1])
	}
}

func TestEventsThatAreNot(t *testing.T) {
	t.Parallel()
	for raw, attribute := range map[string]string{
		`[]`:                           "event",
		`{"id":"1","id":"2"}`:          `"id"`,
		`{"id":"1","type":"t"}`:        "specversion",
		`{"specversion":"0.3"}`:        "specversion",
		`{"specversion":"1.0","id":1}`: "id",
		`{"specversion":"1.0","id":"1","type":"t","time":"now"}`:                                  "time",
		`{"specversion":"1.0","id":"1","type":"t","data":1,"data_base64":""}`:                     "data_base64",
		`{"specversion":"1.0","id":"1","type":"t","data_base64":"?"}`:                             "data_base64",
		`{"specversion":"1.0","id":"1","type":"t","principal":"root"}`:                            "principal",
		`{"specversion":"1.0","id":"1","type":"t","chaindepth":1}`:                                "chaindepth",
		`{"specversion":"1.0","id":"1","type":"t","x":1.5}`:                                       `"x"`,
		`{"specversion":"1.0","id":"1","type":"t","x":{}}`:                                        `"x"`,
		`{"specversion":"1.0","id":"1","type":"t","subject":"` + strings.Repeat("x", 9000) + `"}`: "subject",
		`{"specversion":"1.0","id":"1","type":"t",` + many(17) + `}`:                              "extensions",
		`{"specversion":"1.0","id":"1","type":"t",` + many(100) + `}`:                             "event",
	} {
		_, err := cloudEvent(json.RawMessage(raw))
		var ae *event.AttributeError
		if !asAttribute(err, &ae) || ae.Attribute != attribute {
			t.Errorf("%.100s: %v, want %s", raw, err, attribute)
		}
	}
	for raw, data := range map[string]string{
		`{"specversion":"1.0","id":"1","type":"t","data":"x","datacontenttype":"text/plain"}`:         "x",
		`{"specversion":"1.0","id":"1","type":"t","data":"x"}`:                                        `"x"`,
		`{"specversion":"1.0","id":"1","type":"t","data":"x","datacontenttype":"application/a+json"}`: `"x"`,
		`{"specversion":"1.0","id":"1","type":"t","data":null}`:                                       "",
	} {
		if m, err := cloudEvent(json.RawMessage(raw)); err != nil || string(m.Data) != data {
			t.Errorf("%s: %v %q", raw, err, m.Data)
		}
	}
}

func asAttribute(err error, into **event.AttributeError) bool {
	ae, ok := err.(*event.AttributeError) //nolint:errorlint // it is not wrapped
	*into = ae
	return ok
}

func many(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(`"x%d":"1"`, i))
	}
	return strings.Join(parts, ",")
}

func FuzzLine(f *testing.F) {
	for _, line := range conversation(f, "C") {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"message":"events","id":1,"events":[{"specversion":"1.0","id":"1","type":"t","":""}],"detail":[{"":""}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parse(line)
		if err != nil {
			return
		}
		_, _, _ = choose(m, "redis")
		events, bad, _, err := batch(m)
		if err != nil || bad >= 0 {
			return
		}
		for i := range events {
			e := &events[i]
			e.Source = "/"
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
			for _, r := range reserved {
				if _, there := e.Extensions[r]; there {
					t.Fatalf("%s came in", r)
				}
			}
		}
	})
}

func FuzzRedact(f *testing.F) {
	f.Add("s3cret pass\nword", "before ", " after")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if len(secret) < shortSecret {
			return
		}
		r := &redactor{}
		r.learn(map[string][]byte{"password": []byte(secret)})
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			// What is left must not be there because the mark or the surroundings hold it.
			if got := r.text(before + form + after); strings.Contains(got, form) && !strings.Contains(before+redacted+after, form) && !strings.Contains(redacted, form) {
				t.Fatalf("%q shows %q", got, form)
			}
		}
	})
}

func TestCutLines(t *testing.T) {
	t.Parallel()
	in := bufio.NewReaderSize(strings.NewReader(strings.Repeat("a", 100)+"\r\nshort\nlast"), 16)
	for _, want := range []string{strings.Repeat("a", 40), "short", "last"} {
		line, cut, _ := readCut(in, 40)
		if string(line) != want || cut != (want[0] == 'a') {
			t.Errorf("got %q %v, want %q", line, cut, want)
		}
	}
	in = bufio.NewReaderSize(strings.NewReader(strings.Repeat("a", 40)+"\n"+strings.Repeat("a", 41)+"\n"), 16)
	if line, err := readLine(in, 40); err != nil || len(line) != 40 {
		t.Errorf("%q %v", line, err)
	}
	if _, err := readLine(in, 40); err == nil {
		t.Error("a line that is too long is read")
	}
}

func TestCutLineEndsBeforeASecretCould(t *testing.T) {
	t.Parallel()
	r := &redactor{}
	r.learn(map[string][]byte{"password": []byte("hunter2222")})
	if s := r.line("password: hunter2222 and hunter2", true); strings.Contains(s, "hunter") {
		t.Errorf("%q shows the beginning of a secret", s)
	}
	if s := r.line("hunter2222", false); s != redacted {
		t.Errorf("got %q", s)
	}
}
