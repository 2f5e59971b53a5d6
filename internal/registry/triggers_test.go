package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// usual is how triggers deliver whose manifest is silent.
func usual() function.Delivery {
	return function.Delivery{
		Concurrency: function.DefaultEventsAtOnce, Attempts: function.DefaultAttempts, MaxAge: function.DefaultEventAge,
		Backoff: function.DefaultBackoff, BackoffMost: function.DefaultBackoffMost, Backlog: function.DefaultBacklog,
	}
}

func trigger(name, kind, connection, settings string) function.Trigger {
	return function.Trigger{Name: name, Kind: kind, Connection: connection, Settings: json.RawMessage(settings), NoSchema: "x", Delivery: usual()}
}

// plan deploys from, unless it is nil, and gives the plan for to.
func planTriggers(t *testing.T, from, to []function.Trigger) Change {
	t.Helper()
	b := newBench(t)
	if from != nil {
		old := spec("hello", "one", "/a")
		old.Config.Triggers = from
		b.upload("one")
		if _, err := b.tryDeploy("default", "", old); err != nil {
			t.Fatal(err)
		}
	}
	next := spec("hello", "one", "/a")
	next.Config.Triggers = to
	p, err := b.Plan(ctx, "default", "", []Spec{next})
	if err != nil {
		t.Fatal(err)
	}
	return p.Changes[0]
}

func TestPlanSpellsTriggersOut(t *testing.T) {
	t.Parallel()
	nightly := trigger("nightly", "schedule", "", `{"cron":"0 2 * * *"}`)
	nightly.NoSchema = manifest.PlatformData
	nightly2 := nightly
	nightly2.Settings = json.RawMessage(`{"cron":"0 3 * * *","zone":"Europe/Berlin"}`)
	nightly2.Delivery.Attempts, nightly2.Delivery.MaxAge, nightly2.Delivery.Ordered = 8, 2*time.Hour, true
	uploads := trigger("uploads", "bucket", "s3", `{"bucket":"b","intervalNanos":90000000000}`)
	uploads.NoSchema = manifest.PlatformData
	orders := trigger("orders", "topic", "", `{"topic":"orders"}`)
	orders.Schema, orders.NoSchema = json.RawMessage(`{"type":"object"}`), ""
	orders.Delivery.OnFailure = []function.Destination{{Topic: "failed"}, {Function: "mourn"}}
	orders2 := orders
	orders2.Schema = json.RawMessage(`{"type":"array"}`)
	orders2.Delivery.OnFailure = nil
	jobs := trigger("jobs", "amqp", "rabbit", `{"queue":"jobs","filter":{"sql":"`+strings.Repeat("x", 500)+`"}}`)
	c := planTriggers(t, []function.Trigger{jobs, nightly, orders}, []function.Trigger{nightly2, orders2, uploads})

	want := map[string]Delta{}
	for _, d := range []Delta{
		{"triggers.nightly.schedule.cron", "0 2 * * *", "0 3 * * *"},
		{"triggers.nightly.schedule.zone", "", "Europe/Berlin"},
		{"triggers.nightly.delivery.attempts", "5", "8"},
		{"triggers.nightly.delivery.maxAge", "6h", "2h"},
		{"triggers.nightly.delivery.ordered", "", "true"},
		{"triggers.orders.schema", function.DigestOf(orders.Schema).Short(), function.DigestOf(orders2.Schema).Short()},
		{"triggers.orders.delivery.onFailure", "topic failed, function mourn", ""},
		{"triggers.uploads", "", "bucket"},
		{"triggers.uploads.connection", "", "s3"},
		{"triggers.uploads.bucket.bucket", "", "b"},
		{"triggers.uploads.bucket.interval", "", "1m30s"},
		{"triggers.jobs", "amqp", ""},
		{"triggers.jobs.connection", "rabbit", ""},
		{"triggers.jobs.schema", "none", ""},
		{"triggers.jobs.reason", `"x"`, ""},
		{"triggers.jobs.amqp.queue", "jobs", ""},
		{"triggers.jobs.amqp.filter", clipped(`{"sql":"` + strings.Repeat("x", 500) + `"}`), ""},
	} {
		want[d.Field] = d
	}
	for key, value := range map[string]string{"concurrency": "8", "attempts": "5", "maxAge": "6h", "backoff": "1s", "backoffMost": "5m", "backlog": "1000000"} {
		want["triggers.uploads.delivery."+key] = Delta{"triggers.uploads.delivery." + key, "", value}
		want["triggers.jobs.delivery."+key] = Delta{"triggers.jobs.delivery." + key, value, ""}
	}
	for _, d := range c.Diff {
		if want[d.Field] != d {
			t.Errorf("unexpected difference %+v", d)
		}
		delete(want, d.Field)
	}
	for field := range want {
		t.Errorf("no difference for %s", field)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// A change beyond what is shown of a long value is a difference.
func TestLongValuesDiffer(t *testing.T) {
	t.Parallel()
	filter := func(end string) function.Trigger {
		return trigger("a", "topic", "", `{"topic":"t","filter":{"sql":"`+strings.Repeat("x", 4*maxSpelled)+end+`"}}`)
	}
	c := planTriggers(t, []function.Trigger{filter("1")}, []function.Trigger{filter("2")})
	if len(c.Diff) != 1 || c.Diff[0].Field != "triggers.a.topic.filter" || len(c.Diff[0].From) > maxSpelled || len(c.Diff[0].To) > maxSpelled {
		t.Errorf("got %+v", c.Diff)
	}
}

func TestPlanWarnsOfWiderTriggers(t *testing.T) {
	t.Parallel()
	hook := func(connection, settings string) function.Trigger {
		return trigger("paid", "webhook", connection, `{"path":"/hooks/paid",`+settings+`}`)
	}
	github := hook("c", `"provider":"github"`)
	moved := github
	moved.Settings = json.RawMessage(`{"path":"/hooks/other","provider":"github"}`)
	const jwt = `"provider":"jwt","jwt":{"issuer":"i","audience":["a"],"algorithms":["ES256"],"body":"%s"}`
	orders := trigger("orders", "topic", "", `{"topic":"orders"}`)
	checked := orders
	checked.Schema, checked.NoSchema = json.RawMessage(`{}`), ""
	filtered := orders
	filtered.Settings = json.RawMessage(`{"topic":"orders","filter":{"exact":{"type":"x"}}}`)
	telling := orders
	telling.Delivery.OnSuccess = []function.Destination{{Webhook: "tell"}}
	more := orders
	more.Delivery.Concurrency, more.Delivery.Attempts, more.Delivery.MaxAge, more.Delivery.Batch = 1000, 100, function.MaxEventAge, 100
	rabbit, other := trigger("jobs", "amqp", "rabbit", `{"queue":"q"}`), trigger("jobs", "amqp", "other", `{"queue":"q"}`)

	const reachable = "anybody who reaches the gateway can send to "
	for name, c := range map[string]struct {
		from, to []function.Trigger
		want     []string
	}{
		"a new function with a webhook": {nil, []function.Trigger{github, orders}, []string{"webhook paid: " + reachable + "/hooks/paid; signatures are checked with the connection c"}},
		"a new webhook":                 {[]function.Trigger{orders}, []function.Trigger{orders, github}, []string{reachable + "/hooks/paid"}},
		"another path":                  {[]function.Trigger{github}, []function.Trigger{moved}, []string{reachable + "/hooks/other"}},
		"another provider":              {[]function.Trigger{github}, []function.Trigger{hook("c", `"provider":"stripe"`)}, []string{"signed in the way of stripe, where it was github"}},
		"another way of CloudEvents": {
			[]function.Trigger{hook("c", `"provider":"cloudevents","cloudevents":{"auth":"standard"}`)},
			[]function.Trigger{hook("c", `"provider":"cloudevents","cloudevents":{"auth":"bearer"}`)},
			[]string{"cloudevents (bearer), where it was cloudevents (standard)"},
		},
		"a body that nobody vouches for": {[]function.Trigger{hook("c", fmt.Sprintf(jwt, "claim"))}, []function.Trigger{hook("c", fmt.Sprintf(jwt, "unsigned"))}, []string{"no signature covers what is sent"}},
		"and from the beginning":         {nil, []function.Trigger{hook("c", fmt.Sprintf(jwt, "unsigned"))}, []string{reachable, "no signature covers what is sent"}},
		"another connection":             {[]function.Trigger{rabbit}, []function.Trigger{other}, []string{"trigger jobs takes events from amqp (connection other), where they came from amqp (connection rabbit)"}},
		"another key":                    {[]function.Trigger{github}, []function.Trigger{hook("d", `"provider":"github"`)}, []string{"webhook (connection d)"}},
		"another kind": {
			[]function.Trigger{trigger("orders", "schedule", "", `{"every":"1m"}`)}, []function.Trigger{orders}, []string{"trigger orders takes events from topic, where they came from schedule"},
		},
		"no schema any more": {[]function.Trigger{checked}, []function.Trigger{orders}, []string{"trigger orders has no schema any more"}},
		"no filter any more": {[]function.Trigger{filtered}, []function.Trigger{orders}, []string{"trigger orders has no filter any more"}},
		"an empty filter": {
			[]function.Trigger{filtered}, []function.Trigger{trigger("orders", "topic", "", `{"topic":"orders","filter":[]}`)}, []string{"trigger orders has no filter any more"},
		},
		"out of the platform":        {[]function.Trigger{orders}, []function.Trigger{telling}, []string{"sends the outcome of its events to the webhook tell"}},
		"more of the same":           {[]function.Trigger{orders}, []function.Trigger{more}, nil},
		"a schema, a filter":         {[]function.Trigger{orders}, []function.Trigger{func() function.Trigger { x := checked; x.Settings = filtered.Settings; return x }()}, nil},
		"fewer":                      {[]function.Trigger{github, telling}, []function.Trigger{orders}, nil},
		"a new one from the outside": {[]function.Trigger{orders}, []function.Trigger{rabbit, orders}, nil},
		"nothing":                    {[]function.Trigger{github, telling}, []function.Trigger{github, telling}, nil},
	} {
		got := planTriggers(t, c.from, c.to).Warnings
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", name, got)
		}
		for _, w := range c.want {
			if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, w) }) {
				t.Errorf("%s: no warning says %q in %q", name, w, got)
			}
		}
	}
}

func TestTriggersAreKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	want := spec("hello", "one", "/a")
	want.Config.Triggers = []function.Trigger{trigger("a", "topic", "", `{"topic":"t","filter":{"sql":"a < 'b' & c"}}`)}
	b.upload("one")
	done, err := b.tryDeploy("default", "", want)
	if err != nil {
		t.Fatal(err)
	}
	b.reopen()
	v, err := b.Version(ref("default", "hello"), string(done[0].Version))
	if err != nil || len(v.Config.Triggers) != 1 {
		t.Fatalf("version %+v, error %v", v, err)
	}
	var a, c any
	got := v.Config.Triggers[0]
	if json.Unmarshal(got.Settings, &a) != nil || json.Unmarshal(want.Config.Triggers[0].Settings, &c) != nil || fmt.Sprint(a) != fmt.Sprint(c) || got.Delivery.Attempts != function.DefaultAttempts {
		t.Errorf("got %+v", got)
	}
	p, err := b.Plan(ctx, "default", "", []Spec{want})
	if err != nil || p.Changes[0].Action != ActionNone {
		t.Errorf("the same again is %+v, %v", p.Changes, err)
	}
}

// TestVersionsWithoutTriggersKeepTheirID: nodes have versions from before there were
// triggers, and those must be what a deployment of the same makes today.
func TestVersionsWithoutTriggersKeepTheirID(t *testing.T) {
	t.Parallel()
	const want = "sha256:c01bf0df708544a7a9baf094e2da800df848dbc8cb30d68504dafbab620f3916"
	s := spec("hello", "one", "GET /a")
	for name, triggers := range map[string][]function.Trigger{"none": nil, "an empty list": {}} {
		s.Config.Triggers = triggers
		if id, err := function.VersionID(s.Artifact, s.Config); err != nil || id != want {
			t.Errorf("%s: %s, %v", name, id, err)
		}
	}
	s.Config.Triggers = []function.Trigger{trigger("a", "topic", "", `{"topic":"t"}`)}
	if id, err := function.VersionID(s.Artifact, s.Config); err != nil || id == want {
		t.Errorf("with a trigger: %s, %v", id, err)
	}
}

func TestPlanRefusesTriggersThatCannotBeToldApart(t *testing.T) {
	t.Parallel()
	many := make([]function.Trigger, function.MaxTriggers+1)
	for i := range many {
		many[i] = trigger(fmt.Sprintf("a%d", i), "topic", "", `{"topic":"t"}`)
	}
	hook := func(name, path string) function.Trigger {
		return trigger(name, "webhook", "c", `{"path":"`+path+`","provider":"github"}`)
	}
	for name, c := range map[string]struct {
		triggers []function.Trigger
		code     problem.Code
		field    string
	}{
		"too many":                {many, problem.InvalidManifest, "functions[0].triggers"},
		"no name":                 {[]function.Trigger{trigger("", "topic", "", `{}`)}, problem.InvalidManifest, "functions[0].triggers"},
		"a name with a dot":       {[]function.Trigger{trigger("a.b", "topic", "", `{}`)}, problem.InvalidManifest, "functions[0].triggers"},
		"one name twice":          {[]function.Trigger{trigger("a", "topic", "", `{}`), trigger("a", "kv", "", `{}`)}, problem.InvalidManifest, "functions[0].triggers.a"},
		"no kind":                 {[]function.Trigger{trigger("a", "", "", `{}`)}, problem.InvalidManifest, "functions[0].triggers.a"},
		"settings that are none":  {[]function.Trigger{trigger("a", "topic", "", `{`)}, problem.InvalidManifest, "functions[0].config"},
		"a webhook without path":  {[]function.Trigger{trigger("a", "webhook", "c", `[]`)}, problem.InvalidManifest, "functions[0].triggers.a.webhook.path"},
		"another namespace":       {[]function.Trigger{hook("a", "/~other/x")}, problem.InvalidManifest, "functions[0].triggers.a.webhook.path"},
		"the platform's own path": {[]function.Trigger{hook("a", "/.casemate/x")}, problem.InvalidManifest, "functions[0].triggers.a.webhook.path"},
		"one path twice":          {[]function.Trigger{hook("a", "/x"), hook("b", "/x")}, problem.RouteTaken, "functions[0].triggers"},
		"a route's path":          {[]function.Trigger{hook("a", "/post")}, problem.RouteTaken, "functions[0].triggers"},
		"too large":               {[]function.Trigger{trigger("a", "topic", "", `{"topic":"`+strings.Repeat("x", maxVersion)+`"}`)}, problem.InvalidManifest, "functions[0].config"},
	} {
		s := spec("hello", "one", "POST /post")
		s.Config.Triggers = c.triggers
		_, err := newBench(t).Plan(ctx, "default", "", []Spec{s})
		if p := wantCode(t, err, c.code); p != nil && p.Field != c.field {
			t.Errorf("%s: field %q: %v", name, p.Field, err)
		}
	}
	// Of another function, and in the same plan too.
	b := newBench(t)
	b.upload("one")
	s := spec("hello", "one")
	s.Config.Triggers = []function.Trigger{hook("a", "/x")}
	if _, err := b.tryDeploy("default", "", s); err != nil {
		t.Fatal(err)
	}
	if rs := b.Routes(); len(rs) != 1 || rs[0].Trigger.Webhook != "a" || rs[0].Trigger.Method != "POST" {
		t.Errorf("routes %+v", rs)
	}
	_, err := b.Plan(ctx, "default", "", []Spec{spec("other", "one", "POST /x")})
	wantCode(t, err, problem.RouteTaken)
	if _, err := b.Plan(ctx, "default", "", []Spec{spec("other", "one", "GET /x")}); err != nil {
		t.Error(err)
	}
}
