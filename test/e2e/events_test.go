package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/jsengine"
	"github.com/casemate-dev/casemate/internal/source/servertest"
	"github.com/casemate-dev/casemate/test/harness"
)

// What happens to events is looked at as an operator does: by the casemate program.

// worker does what an event's data tell it to, and says in its log what it did. WORD is
// planted, to tell versions apart.
const worker = `
export default {
  async fetch(request) {
    const id = request.headers.get("ce-id");
    const attempt = Number(request.headers.get("casemate-attempt") ?? 1);
    const text = await request.text();
    const order = text === "" ? {} : JSON.parse(text);
    if (attempt <= (order.failures ?? 0)) {
      throw new Error("attempt " + attempt + " fails, as told");
    }
    console.log("WORD did " + (id ?? "a request") + ", " + (order.text ?? "nothing"));
    return Response.json({ word: "WORD", text: order.text, by: request.casemate?.caller });
  },
};
`

// eventNode is a node with the function worker, whose triggers the test sets.
type eventNode struct {
	*harness.Node
	t *testing.T
}

func newEventNode(t *testing.T) *eventNode {
	t.Helper()
	if _, err := jsengine.Module(); errors.Is(err, jsengine.ErrMissing) {
		harness.Lacking(t, err.Error())
	}
	return &eventNode{Node: harness.NewHome(t).Up(), t: t}
}

// deploy makes worker live with a word and triggers, written as in casemate.yaml, and
// gives its version.
func (n *eventNode) deploy(word, triggers string) string {
	n.t.Helper()
	dir := filepath.Join(n.Dir, "worker")
	for name, content := range map[string]string{
		"src/index.js": strings.ReplaceAll(worker, "WORD", word),
		"schema.json":  `{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}`,
		"casemate.yaml": "functions:\n  worker:\n    runtime: js\n    source: .\n    http:\n      - {method: POST, path: /worker}\n" +
			"    triggers:\n" + indent(triggers, 6),
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	n.Run("deploy", dir, "--yes")
	var f api.Function
	n.json(&f, "describe", "worker")
	if f.Live == nil {
		n.t.Fatalf("there is no live version: %+v", f)
	}
	return f.Live.ID
}

func indent(text string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(text, "\n")) {
		b.WriteString(strings.Repeat(" ", by) + line)
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// json runs a command and reads what it prints.
func (n *eventNode) json(v any, args ...string) {
	n.t.Helper()
	out := n.Run(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		n.t.Fatalf("casemate %s: %q: %v", strings.Join(args, " "), out, err)
	}
}

// refused runs a command that must fail and gives its complaint.
func (n *eventNode) refused(args ...string) string {
	n.t.Helper()
	out, err := n.Command(n.t.Context(), args...).CombinedOutput()
	if err == nil {
		n.t.Fatalf("casemate %s succeeded: %s", strings.Join(args, " "), out)
	}
	return string(out)
}

// publish publishes to the topic work and gives the event's id.
func (n *eventNode) publish(data string, more ...string) string {
	n.t.Helper()
	var p api.Published
	n.json(&p, append([]string{"events", "publish", "work", "--type", "com.example.work", "--data", data}, more...)...)
	if p.ID == "" || p.Sequence == 0 {
		n.t.Fatalf("published: %+v", p)
	}
	return p.ID
}

// eventually waits until try is content.
func (n *eventNode) eventually(try func() error) {
	n.t.Helper()
	if err := servertest.Eventually(n.t.Context(), func(context.Context) error { return try() }); err != nil {
		n.t.Fatalf("%v\n%s", err, n.Output())
	}
}

// story waits until an event has that state at a trigger, and gives what was done for it.
func (n *eventNode) story(id, trigger, state string) (d api.EventDelivery) {
	n.t.Helper()
	n.eventually(func() error {
		var s api.EventStory
		n.json(&s, "events", "show", id)
		i := slices.IndexFunc(s.Deliveries, func(d api.EventDelivery) bool { return d.Trigger == trigger })
		if i < 0 || s.Deliveries[i].State != state {
			return fmt.Errorf("event %s is not %s at %q: %+v", id, state, trigger, s.Deliveries)
		}
		d = s.Deliveries[i]
		return nil
	})
	return d
}

// said gives what worker did, in order, without the ids.
func (n *eventNode) said(match func(line string) bool) (lines []string) {
	n.t.Helper()
	for r, err := range n.Client.Logs(n.t.Context(), "default", api.LogQuery{Function: "worker", Tail: 1000}) {
		if err != nil {
			n.t.Fatal(err)
		}
		if r.Receipt == nil && match(r.Text) {
			lines = append(lines, r.Text)
		}
	}
	return lines
}

const onWork = `
in:
  topic: {topic: work}
  schema: none
  reason: a test's
  delivery: {attempts: 2, backoff: 10ms, onFailure: [{topic: failed}], onSuccess: [{topic: finished}]}
`

// An event that fails as often as it may becomes a dead letter with its reason, is told to
// the destination, and does not hold up its neighbour. Retried by hand, after somebody has
// mended the function, it is done.
func TestAnEventThatFailsBecomesADeadLetterAndCanBeRetried(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	n.deploy("first", onWork)
	bad := n.publish(`{"failures":2,"text":"bad"}`)
	good := n.publish(`{"failures":1,"text":"good"}`)

	done := n.story(good, "in", "done")
	if len(done.Attempts) != 2 || done.Attempts[0].Outcome == "ok" || done.Attempts[1].Outcome != "ok" || done.Attempts[1].Attempt != 2 ||
		done.Attempts[1].Event != good || done.Attempts[1].Source != "in" || !strings.HasPrefix(done.Attempts[1].Principal, "trigger:") {
		t.Errorf("the neighbour's attempts: %+v", done.Attempts)
	}
	dead := n.story(bad, "in", "dead")
	if len(dead.Attempts) != 2 || len(dead.DeadLetters) != 1 || dead.DeadLetters[0].Reason != "attempts" || dead.DeadLetters[0].Attempts != 2 ||
		dead.DeadLetters[0].Receipt != dead.Attempts[1].ID {
		t.Errorf("dead: %+v", dead)
	}
	var letters api.DeadList
	n.json(&letters, "dead-letters", "list", "worker/in")
	if len(letters.Items) != 1 || letters.Items[0].Event == nil || letters.Items[0].Event.ID != bad {
		t.Fatalf("dead letters: %+v", letters)
	}
	for topic, kind := range map[string]string{"failed": "casemate.delivery.failed", "finished": "casemate.delivery.succeeded"} {
		n.eventually(func() error {
			var told api.EventList
			n.json(&told, "events", "list", "--topic", topic)
			if len(told.Items) != 1 || told.Items[0].Type != kind || told.Items[0].Depth != 1 {
				return fmt.Errorf("the destination %s was told %+v", topic, told.Items)
			}
			return nil
		})
	}

	n.deploy("mended", strings.Replace(onWork, "attempts: 2", "attempts: 4", 1))
	n.Run("dead-letters", "retry", fmt.Sprint(letters.Items[0].Sequence))
	n.eventually(func() error {
		if lines := n.said(func(l string) bool { return strings.Contains(l, "mended did "+bad) }); len(lines) != 1 {
			return fmt.Errorf("after the retry: %q", lines)
		}
		return nil
	})
	n.json(&letters, "dead-letters", "list", "worker/in")
	if len(letters.Items) != 0 {
		t.Errorf("the dead letter is still there: %+v", letters.Items)
	}
	n.Stop()
}

// A replay runs stored events with a version that is not live, marked in every receipt.
func TestAReplayRunsAnotherVersionAndIsMarked(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	old := n.deploy("old", onWork)
	first, second := n.publish(`{"text":"first"}`), n.publish(`{"text":"second"}`)
	n.story(first, "in", "done")
	n.story(second, "in", "done")
	live := n.deploy("new", onWork)
	if old == live {
		t.Fatal("both versions are the same")
	}

	var job api.ReplayJob
	n.json(&job, "events", "replay", "worker/in", "--id", first, "--to", old)
	n.eventually(func() error {
		var s api.EventStory
		n.json(&s, "events", "show", first)
		for _, d := range s.Deliveries {
			for _, r := range d.Attempts {
				if r.Replay && r.Version == old && r.Outcome == "ok" && r.Event != first {
					return nil
				}
			}
		}
		return fmt.Errorf("no receipt of the replay: %+v", s.Deliveries)
	})
	if lines := n.said(func(l string) bool { return strings.HasPrefix(l, "new did") }); len(lines) != 0 {
		t.Errorf("the live version ran: %q", lines)
	}
	if lines := n.said(func(l string) bool { return strings.HasSuffix(l, ", second") }); len(lines) != 1 {
		t.Errorf("the other event ran again: %q", lines)
	}
	n.eventually(func() error {
		var jobs []api.ReplayJob
		n.json(&jobs, "events", "jobs")
		i := slices.IndexFunc(jobs, func(j api.ReplayJob) bool { return j.ID == job.ID })
		if i < 0 || jobs[i].State != "done" || jobs[i].Published != 1 {
			return fmt.Errorf("jobs: %+v", jobs)
		}
		return nil
	})

	// Without --to it is what triggers follow.
	n.Run("events", "replay", "worker/in", "--all")
	n.eventually(func() error {
		if lines := n.said(func(l string) bool { return strings.HasPrefix(l, "new did") }); len(lines) < 2 {
			return fmt.Errorf("all that was replayed: %q", lines)
		}
		return nil
	})
	n.Stop()
}

// A paused trigger keeps what comes, over a restart too, and does it when it is resumed.
func TestAPausedTriggerKeepsEventsOverARestart(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	n.deploy("patient", onWork)
	n.Run("triggers", "pause", "worker/in")
	id := n.publish(`{"text":"later"}`)
	waiting := func() error {
		var all []api.TriggerStatus
		n.json(&all, "triggers", "list", "worker")
		i := slices.IndexFunc(all, func(s api.TriggerStatus) bool { return s.Name == "in" })
		if i < 0 || !all[i].Paused || all[i].Waiting != 1 || all[i].Done.Total != 0 {
			return fmt.Errorf("the paused trigger: %+v", all)
		}
		return nil
	}
	n.eventually(waiting)
	n.Kill()
	n.Node = n.Home.Up()
	n.eventually(waiting)
	n.story(id, "in", "waiting")
	n.Run("triggers", "resume", "worker/in")
	n.story(id, "in", "done")
	n.Stop()
}

// Events of one key are done in their order, also when some of them fail at first.
func TestEventsOfAKeyStayInOrder(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	n.deploy("orderly", `
in:
  topic: {topic: work}
  schema: none
  reason: a test's
  delivery: {ordered: true, concurrency: 8, attempts: 5, backoff: 10ms}
`)
	const each = 8
	want := map[string][]string{}
	for i := range each {
		for _, key := range []string{"a", "b", "c"} {
			text := fmt.Sprintf("%s%d", key, i)
			n.publish(fmt.Sprintf(`{"text":%q,"failures":%d}`, text, (i+len(want))%2), "--key", key)
			want[key] = append(want[key], text)
		}
	}
	var got map[string][]string
	n.eventually(func() error {
		got = map[string][]string{}
		total := 0
		for _, line := range n.said(func(l string) bool { return strings.HasPrefix(l, "orderly did") }) {
			_, text, _ := strings.Cut(line, ", ")
			got[text[:1]] = append(got[text[:1]], text)
			total++
		}
		if total < 3*each {
			return fmt.Errorf("%d of %d events are done", total, 3*each)
		}
		return nil
	})
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			t.Errorf("key %s: %v, want %v", key, got[key], want[key])
		}
	}
	n.Stop()
}

// Data that break a trigger's schema never reach the function: a sender that waits is
// told, what a topic has goes to the dead letters.
func TestDataThatBreakTheSchemaNeverReachTheFunction(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	key := filepath.Join(n.Dir, "hook.key")
	if err := os.WriteFile(key, []byte("a-token-that-nobody-would-guess"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run("connection", "create", "hook", "--kind", "webhook", "--secret", "key="+key)
	n.deploy("strict", `
in:
  topic: {topic: work}
  schema: schema.json
hook:
  webhook: {path: /hooks/work, provider: cloudevents}
  connection: hook
  schema: schema.json
`)
	n.story(n.publish(`{"text":"fits"}`), "in", "done")
	bad := n.publish(`{"text":17}`)
	dead := n.story(bad, "in", "dead")
	if len(dead.Attempts) != 0 || len(dead.DeadLetters) != 1 || dead.DeadLetters[0].Reason != "invalid" || !strings.Contains(dead.DeadLetters[0].Field, "text") {
		t.Errorf("dead: %+v", dead)
	}
	if complaint := n.Run("dead-letters", "retry", fmt.Sprint(dead.DeadLetters[0].Sequence), "-o", "json"); !strings.Contains(complaint, `"left":1`) && !strings.Contains(complaint, `"left": 1`) {
		t.Errorf("what breaks the rules was retried: %s", complaint)
	}

	sent := 0
	hook := func(token, data string) (int, string) {
		sent++
		return n.ask(http.MethodPost, "/hooks/work", map[string]string{
			"Authorization": "Bearer " + token, "Content-Type": "application/json",
			"ce-specversion": "1.0", "ce-id": fmt.Sprint("hook-", sent), "ce-source": "/test", "ce-type": "com.example.hook",
		}, data)
	}
	if status, body := hook("a-token-that-nobody-would-guess", `{"text":17}`); status != http.StatusUnprocessableEntity || !strings.Contains(body, "text") {
		t.Errorf("the sender of what does not fit: %d %s", status, body)
	}
	if status, body := hook("another-token-that-nobody-has", `{"text":"forged"}`); status != http.StatusUnauthorized {
		t.Errorf("a forged sender: %d %s", status, body)
	}
	if status, body := hook("a-token-that-nobody-would-guess", `{"text":"hooked"}`); status < 200 || status > 299 {
		t.Errorf("what fits: %d %s", status, body)
	}
	n.eventually(func() error {
		if lines := n.said(func(l string) bool { return strings.HasSuffix(l, ", hooked") }); len(lines) != 1 {
			return fmt.Errorf("the web hook: %q", lines)
		}
		return nil
	})
	if lines := n.said(func(l string) bool { return strings.Contains(l, bad) || strings.Contains(l, "forged") }); len(lines) != 0 {
		t.Errorf("it reached the function: %q", lines)
	}
	n.Stop()
}

// ask makes a request of the gateway.
func (n *eventNode) ask(method, path string, header map[string]string, body string) (status int, answer string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.Gateway+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	got, err := n.HTTP().Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer got.Body.Close()
	b, err := io.ReadAll(got.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return got.StatusCode, string(b)
}

// Who does not want to wait gets an address, behind which the answer is later.
func TestARequestThatNobodyWaitsForHasAStatus(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	version := n.deploy("later", onWork)
	key := n.InvokeKey()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Gateway+"/worker", strings.NewReader(`{"text":"an answer"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Prefer", "respond-async")
	got, err := n.HTTP().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	got.Body.Close()
	at := got.Header.Get("Location")
	if got.StatusCode != http.StatusAccepted || got.Header.Get("Preference-Applied") != "respond-async" || !strings.HasPrefix(at, "/.casemate/invocations/") {
		t.Fatalf("%s %v", got.Status, got.Header)
	}
	var status struct {
		ID, Status, Receipt string
		Attempts            int
		Answer              *struct {
			Status int
			Body   []byte
		}
	}
	n.eventually(func() error {
		code, body := n.ask(http.MethodGet, at, map[string]string{"Authorization": "Bearer " + key}, "")
		if code != http.StatusOK || json.Unmarshal([]byte(body), &status) != nil || status.Status != "succeeded" {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if status.Answer == nil || status.Answer.Status != 200 || !strings.Contains(string(status.Answer.Body), `"text":"an answer"`) || status.Attempts != 1 {
		t.Errorf("the outcome: %+v", status)
	}
	receipt, err := n.Client.Receipt(t.Context(), status.Receipt)
	if err != nil || receipt.Event != status.ID || receipt.Version != version || !strings.HasPrefix(receipt.Principal, "key:") || receipt.Trigger != "http" {
		t.Errorf("receipt: %+v, %v", receipt, err)
	}
	stranger, err := n.Client.CreateKey(t.Context(), api.CreateKey{Name: "stranger", Scopes: []string{"invoke:default/another"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := n.ask(http.MethodGet, at, map[string]string{"Authorization": "Bearer " + stranger.Secret}, ""); code != http.StatusNotFound {
		t.Errorf("somebody else saw %d %s", code, body)
	}
	if code, body := n.ask(http.MethodGet, at, nil, ""); code != http.StatusUnauthorized && code != http.StatusNotFound {
		t.Errorf("nobody saw %d %s", code, body)
	}
	n.Stop()
}

// What the program refuses, it refuses with the remedy.
func TestTriggersThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	n.deploy("plain", onWork)
	for trigger, want := range map[string]string{
		"in:\n  topic: {topic: work}\n":                                                 "schema",
		"in:\n  carrier-pigeon: {loft: north}\n  schema: none\n  reason: r\n":           "carrier-pigeon",
		"in:\n  schedule: {cron: 61 * * * *}\n":                                         "cron",
		"in:\n  amqp: {queue: q}\n  connection: nowhere\n  schema: none\n  reason: r\n": "nowhere",
		"in:\n  folder: {root: etc}\n":                                                  "root",
		// Nothing refers across namespaces, in any field.
		"in:\n  topic: {topic: shop/work}\n  schema: none\n  reason: r\n":                                     "topic",
		"in:\n  topic: {topic: shop.work}\n  schema: none\n  reason: r\n":                                     "topic",
		"in:\n  bucket: {bucket: shop.photos}\n":                                                              "bucket",
		"in:\n  kv: {bucket: shop/flags}\n  schema: none\n  reason: r\n":                                      "bucket",
		"in:\n  folder: {root: ../shop}\n":                                                                    "root",
		"in:\n  amqp: {queue: q}\n  connection: shop/rabbit\n  schema: none\n  reason: r\n":                   "connection",
		"in:\n  schedule: {every: 1m}\n  delivery: {reply: shop/work}\n":                                      "reply",
		"in:\n  schedule: {every: 1m}\n  delivery: {onSuccess: [{function: shop/pay}]}\n":                     "function",
		"in:\n  schedule: {every: 1m}\n  delivery: {onFailure: [{topic: shop/work}]}\n":                       "topic",
		"in:\n  schedule: {every: 1m}\n  delivery: {onFailure: [{webhook: shop/hook}]}\n":                     "webhook",
		"in:\n  webhook: {path: /~shop/in, provider: github}\n  connection: c\n  schema: none\n  reason: r\n": "path",
	} {
		file := filepath.Join(n.Dir, "worker", "casemate.yaml")
		if err := os.WriteFile(file, []byte("functions:\n  worker:\n    runtime: js\n    source: .\n    triggers:\n"+indent(trigger, 6)), 0o600); err != nil {
			t.Fatal(err)
		}
		if said := n.refused("deploy", filepath.Dir(file), "--yes"); !strings.Contains(said, want) {
			t.Errorf("%q: %s", trigger, said)
		}
	}
	n.story(n.publish(`{"text":"still here"}`), "in", "done")
	n.Stop()
}
