// Package farside shows the examples of events at work: for each folder of
// examples/events it starts what is on the far side (a real server on loopback where there
// is one), makes the connection, deploys the function, brings one event about, and follows
// it to the function's log and its receipt.
//
// The showcase and the end-to-end tests import it, nothing else does. It knows the
// platform as its users do: by the casemate program, HTTPS, and the clients of others. Several may be
// shown at the same time, each on ports of its own. What is not installed skips the test,
// as servertest has it.
package farside

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// Node is the node that the functions are deployed to.
type Node struct {
	Gateway string       // URL
	Client  *http.Client // trusts the node's authority
	Folder  string       // the node watches it under the name inbox
	// Command prepares a run of the casemate program against the node.
	Command func(ctx context.Context, args ...string) *exec.Cmd
}

// Run runs the casemate program and decodes the JSON that it prints into v, unless that is nil.
func (n *Node) Run(t testing.TB, v any, args ...string) {
	t.Helper()
	cmd := n.Command(t.Context(), append(args, "-o", "json")...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err == nil && v != nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		t.Fatalf("casemate %s: %v\n%s%s", strings.Join(args, " "), err, out, complaints.Bytes())
	}
}

// Key makes a key with scopes.
func (n *Node) Key(t testing.TB, scopes ...string) string {
	t.Helper()
	args := []string{"key", "create", "sender"}
	for _, s := range scopes {
		args = append(args, "--scope", s)
	}
	var k api.CreatedKey
	n.Run(t, &k, args...)
	return k.Secret
}

// Event is the content of an example's test.json: what happens on the far side, and what
// the function says to it in its log.
type Event struct {
	Name   string          `json:"name"` // of a type, subject, key or file, as the kind has it
	Data   json.RawMessage `json:"data"` // or
	Text   string          `json:"text"`
	Every  string          `json:"every"`  // in place of a schedule's cron
	Before []string        `json:"before"` // SQL that makes ready
	SQL    []string        `json:"sql"`    // SQL that brings the event about
	Says   string          `json:"says"`
}

// Body is Data or Text.
func (e *Event) Body() []byte {
	var b bytes.Buffer
	if len(e.Data) == 0 || json.Compact(&b, e.Data) != nil {
		return []byte(e.Text)
	}
	return b.Bytes()
}

// Example is a folder of examples/events.
type Example struct {
	Dir      string // absolute
	Kind     string // of its trigger
	Trigger  string // its name
	Function manifest.Function
	Event    Event

	start func(testing.TB, *Event) *far
}

// far is a far side that is there.
type far struct {
	kind     string // of the connection; empty for none
	settings map[string]any
	secrets  map[string]string
	cause    func(testing.TB, *Node, *Event)
}

// Load reads all examples, in the order of sources.
func Load(root string) ([]Example, error) {
	var all []Example
	for _, s := range sources() {
		dir, err := filepath.Abs(filepath.Join(root, s.example))
		if err != nil {
			return nil, fmt.Errorf("finding %s: %v", s.example, err)
		}
		m, err := manifest.Load(filepath.Join(dir, manifest.FileName))
		if err != nil {
			return nil, fmt.Errorf("reading the example %s: %w", s.example, err)
		}
		if len(m.Functions) != 1 || len(m.Functions[0].Config.Triggers) != 1 {
			return nil, fmt.Errorf("reading the example %s: it must be one function with one trigger", s.example)
		}
		t := m.Functions[0].Config.Triggers[0]
		e := Example{Dir: dir, Kind: t.Kind, Trigger: t.Name, Function: m.Functions[0], start: s.start}
		b, err := os.ReadFile(filepath.Join(dir, "test.json"))
		if err != nil {
			return nil, fmt.Errorf("reading the event: %v", err)
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&e.Event); err != nil || e.Event.Says == "" {
			return nil, fmt.Errorf("reading test.json of %s: %v (it must at least say what the function says)", s.example, err)
		}
		all = append(all, e)
	}
	return all, nil
}

// Shown is what became of an event.
type Shown struct {
	Event   string // its id
	Said    string // the line of the function's log
	Receipt api.Receipt
	Took    time.Duration // from causing it to the receipt; a schedule's has no beginning
}

// Show does it all for one example. What it starts ends with t.
func (e *Example) Show(t testing.TB, n *Node, clock func() time.Time) Shown {
	t.Helper()
	e.check(t)
	far := e.start(t, &e.Event)
	if far.kind != "" {
		e.connect(t, n, far)
	}
	n.Run(t, nil, "deploy", e.folder(t), "--yes")
	e.listening(t, n)

	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	log, stop := e.follow(ctx, t, n)
	defer stop()
	began := clock()
	if far.cause != nil {
		far.cause(t, n, &e.Event)
	}
	said, receipt, err := e.await(log)
	if err != nil {
		var health, events json.RawMessage
		n.Run(t, &health, "triggers", "list", e.Function.Name)
		n.Run(t, &events, "events", "list", e.Function.Name)
		t.Fatalf("the event did not arrive: %v\ntriggers: %s\nevents: %s", err, health, events)
	}
	took := clock().Sub(began)
	if e.Event.Every != "" { // once is enough
		n.Run(t, nil, "triggers", "pause", e.Function.Name+"/"+e.Trigger)
	}
	return Shown{Event: receipt.Event, Said: said, Receipt: *receipt, Took: took}
}

// check skips the test when a compiler is missing.
func (e *Example) check(t testing.TB) {
	t.Helper()
	c := e.Function.Config
	err := build.Check(t.Context(), build.Request{
		Name: e.Function.Name, Dir: e.Dir, Source: e.Function.Source, Runtime: c.Runtime, Entry: c.Entry, Handler: c.Handler, Command: c.Command,
	})
	var missing *build.ToolchainError
	switch {
	case errors.As(err, &missing):
		servertest.Missing(t, missing.Missing+" is not installed")
	case err != nil:
		t.Fatal(err)
	}
}

// connect makes the connection that the example's manifest names. Credentials go into
// files that only their owner may read.
func (e *Example) connect(t testing.TB, n *Node, far *far) {
	t.Helper()
	dir := t.TempDir()
	if far.settings == nil {
		far.settings = map[string]any{}
	}
	settings, err := json.Marshal(far.settings)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "settings.json")
	files := map[string][]byte{file: settings}
	args := []string{"connection", "create", e.Function.Config.Triggers[0].Connection, "--kind", far.kind, "--settings", file}
	for name, value := range far.secrets {
		secret := filepath.Join(dir, name)
		files[secret] = []byte(value)
		args = append(args, "--secret", name+"="+secret)
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.Run(t, nil, args...)
}

// schedules are the lines of a manifest that say when.
var schedules = regexp.MustCompile(`(?m)^ +(cron|zone): .*\n`)

// folder is what is deployed: the example as it is, but for a schedule, which nobody would
// wait for.
func (e *Example) folder(t testing.TB) string {
	t.Helper()
	if e.Event.Every == "" {
		return e.Dir
	}
	dir := filepath.Join(t.TempDir(), filepath.Base(e.Dir))
	if err := os.CopyFS(dir, os.DirFS(e.Dir)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, manifest.FileName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first := true
	edited := schedules.ReplaceAllStringFunc(string(text), func(line string) string {
		if !first {
			return ""
		}
		first = false
		return line[:strings.IndexFunc(line, func(r rune) bool { return r != ' ' })] + "every: " + e.Event.Every + "\n"
	})
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listening waits until the source says that it runs.
func (e *Example) listening(t testing.TB, n *Node) {
	t.Helper()
	err := servertest.Eventually(t.Context(), func(context.Context) error {
		var all []api.TriggerStatus
		n.Run(t, &all, "triggers", "list", e.Function.Name)
		for _, s := range all {
			if s.Name != e.Trigger {
				continue
			}
			if s.Running && (s.Source == nil || s.Source.State == "running") {
				return nil
			}
			return fmt.Errorf("the trigger %s/%s is not running: %+v", e.Function.Name, e.Trigger, s.Source)
		}
		return fmt.Errorf("there is no trigger %s/%s", e.Function.Name, e.Trigger)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// follow reads the function's log as it is written, until stop.
func (e *Example) follow(ctx context.Context, t testing.TB, n *Node) (log *json.Decoder, stop func()) {
	t.Helper()
	cmd := n.Command(ctx, "logs", e.Function.Name, "--follow", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("following the log: %v", err)
	}
	return json.NewDecoder(out), func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	}
}

// await reads until the function has said what it should, and the receipt of that
// invocation is there, which may come before.
func (e *Example) await(log *json.Decoder) (said string, receipt *api.Receipt, err error) {
	request, seen := "", ""
	receipts := map[string]*api.Receipt{}
	for {
		var r api.LogRecord
		if err := log.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the log ended")
			}
			return "", nil, fmt.Errorf("waiting for %q: %v; the log said:%s", e.Event.Says, err, cmp.Or(seen, " nothing"))
		}
		switch {
		case r.Receipt != nil:
			receipts[r.RequestID] = r.Receipt
			seen += fmt.Sprintf("\n  receipt %s: %d %s", r.Receipt.ID, r.Receipt.Status, r.Receipt.Outcome)
		case request == "" && strings.Contains(r.Text, e.Event.Says):
			request, said = r.RequestID, r.Text
		default:
			seen += "\n  " + r.Text
		}
		if receipt := receipts[request]; request != "" && receipt != nil {
			return said, receipt, nil
		}
	}
}
