package filter_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/filter"
)

// The conformance cases of CloudEvents SQL, as the SDK's module ships them. They are
// judged through our door: an expression that does not parse is refused; where the
// language says "true" the event matches; an error means that it does not.
func TestConformance(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudevents/sdk-go/sql/v2").Output()
	if err != nil {
		t.Fatalf("finding the module of the cases: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "test", "tck", "*.yaml"))
	if len(files) < 15 {
		t.Fatalf("found %d files of cases in %s", len(files), out)
	}
	ran := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var suite struct {
			Name  string
			Tests []struct {
				Name, Expression, Error string
				Result                  any
				Event, EventOverrides   map[string]any `yaml:",omitempty"`
			}
		}
		if err := yaml.Unmarshal(fixCase(raw), &suite); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range suite.Tests {
			ran++
			t.Run(suite.Name+"/"+c.Name, func(t *testing.T) {
				quoted, _ := json.Marshal(c.Expression)
				match, err := filter.Compile(json.RawMessage(`{"sql":` + string(quoted) + `}`))
				if c.Error == "parse" || c.Error == "missingFunction" {
					if err == nil {
						t.Fatalf("%s was taken", c.Expression)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				m := subject(t, c.Event)
				for k, v := range c.EventOverrides {
					set(t, m, k, v)
				}
				want := c.Error == ""
				if want {
					switch r := c.Result.(type) {
					case bool:
						want = r
					case string:
						want = strings.EqualFold(r, "true")
					case uint64:
						want = r != 0
					case int64:
						want = r != 0
					default:
						t.Fatalf("a result of type %T", r)
					}
				}
				if c.Expression == "myint" {
					// Our extensions are text, as the HTTP binding has them, and the text
					// "10" does not cast to Boolean; in comparisons it casts to Integer.
					want = false
				}
				if got := match(m); got != want {
					t.Errorf("%s: got %v, want %v (result %v, error %q)", c.Expression, got, want, c.Result, c.Error)
				}
			})
		}
	}
	if ran < 150 {
		t.Errorf("only %d cases ran", ran)
	}
}

// fixCase turns the one key with a capital letter into the form of the others.
func fixCase(raw []byte) []byte {
	return []byte(strings.ReplaceAll(string(raw), "eventOverrides:", "eventoverrides:"))
}

// subject is the event that the SDK's own runner uses when a case names none.
func subject(t *testing.T, attributes map[string]any) *event.Message {
	m := &event.Message{Event: event.Event{
		ID: "full-event", Source: "http://localhost/source", Type: "com.example.FullEvent", Subject: "topic",
		Time: time.Date(2020, 3, 21, 12, 34, 56, 780000000, time.UTC), DataContentType: "text/json",
		Extensions: map[string]string{"exbool": "true", "exint": "42", "exstring": "exstring", "exbinary": "AAECAw==", "exurl": "http://localhost/source", "extime": "2020-03-21T12:34:56.78Z"},
	}}
	if attributes != nil {
		*m = event.Message{Event: event.Event{Extensions: map[string]string{}}}
	}
	for k, v := range attributes {
		set(t, m, k, v)
	}
	return m
}

func set(t *testing.T, m *event.Message, name string, v any) {
	t.Helper()
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	switch name {
	case "id":
		m.ID = text
	case "source":
		m.Source = text
	case "type":
		m.Type = text
	case "subject":
		m.Subject = text
	case "datacontenttype":
		m.DataContentType = text
	case "time":
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		m.Time = at
	case "specversion", "data":
	default:
		m.Extensions[name] = text
	}
}
