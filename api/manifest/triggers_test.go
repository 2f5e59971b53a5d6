package manifest

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// every has each kind of trigger with each of its keys.
const every = `functions:
  f:
    runtime: ts
    triggers:
      nightly:
        schedule: {cron: "0 2 * * *", zone: Europe/Berlin, missed: once}
      often: {schedule: {every: 1h30m}}
      once: {schedule: {at: 2026-03-01T12:00:00Z}}
      paid:
        webhook:
          path: /hooks/paid
          provider: hmac
          keys: [key, key-previous]
          tolerance: 2m
          keep: 48h
          rate: 50
          events: [invoice.*]
          headers: [x-region]
          hmac: {header: x-signature, prefix: sha256=, encoding: hex, algorithm: sha256, key: text, signed: "{timestamp}.{id}.{body}", timestampHeader: x-time, timestampForm: seconds, idHeader: x-id, eventField: type, subjectField: data.id}
        connection: billing
        schema: schemas/paid.json
      tokens:
        webhook:
          path: /hooks/tokens
          provider: jwt
          jwt: {header: authorization, issuer: "https://id.example.com", audience: [orders], algorithms: [ES256], type: JWT, body: claim, bodyClaim: hash, bodyHash: sha256, bodyEncoding: hex, eventClaim: event}
        connection: billing
        schema: none
        reason: what comes has many forms
      events:
        webhook: {path: /hooks/events, provider: cloudevents, cloudevents: {auth: bearer, origins: [events.example.com], rate: 60}}
        connection: billing
        schema: none
        reason: what comes has many forms
      orders:
        topic: {topic: orders, filter: [{exact: {type: order.created}}, {any: [{prefix: {subject: eu/}}, {not: {suffix: {subject: /test}}}, {sql: "region = 'eu'"}]}]}
        schema: none
        reason: orders are checked where they are published
        delivery: {concurrency: 4, rate: 100, ordered: true, attempts: 8, maxAge: 2h, backoff: 1s, backoffMost: 5m, backlog: 100000, batch: 10, batchWindow: 2s, onFailure: [{topic: failed}], onSuccess: [{function: archive}, {webhook: tell}]}
      core: {nats: {subject: "orders.*", group: g, prefetch: 32, contentType: application/json, key: header.customer}, connection: nats, schema: none, reason: x}
      stream: {nats: {stream: ORDERS, subjects: [orders.eu], from: new}, connection: nats, schema: none, reason: x}
      consumer: {nats: {stream: ORDERS, consumer: mine}, connection: nats, schema: none, reason: x}
      jobs: {amqp: {queue: jobs, identity: content, prefetch: 32, contentType: application/json, key: header.customer}, connection: rabbit, schema: none, reason: x}
      log: {kafka: {topics: [a, b.c], group: g, from: new, prefetch: 1, contentType: text/plain, key: kafka.key}, connection: kafka, schema: none, reason: x}
      sensors: {mqtt: {topics: ["sensors/+/temperature"], qos: 2, prefetch: 1, contentType: text/plain, key: mqtt.topic}, connection: mqtt, schema: none, reason: x}
      entries: {redis: {stream: s, group: g, consumer: c, from: all, body: b, claimAfter: 90s, prefetch: 1, contentType: text/plain, key: header.k}, connection: redis, schema: none, reason: x}
      messages: {sqs: {queue: q.fifo, visibility: 2m, wait: 10s, prefetch: 1, contentType: text/plain, key: sqs.groupid}, connection: sqs, schema: none, reason: x}
      rows: {postgres: {tables: [public.orders], operations: [insert, update], publication: p, slot: s_1, snapshot: initial, lostSlot: snapshot, lagAlert: 512Mi, columns: {public.orders: [id, state]}}, connection: db, schema: none, reason: x}
      box: {outbox: {table: app.outbox, columns: {id: id, type: type, subject: subject, key: key, payload: payload, created: created}, after: mark, markColumn: done, contentType: application/json, batch: 50, poll: 250ms, maxPoll: 5s}, connection: db, schema: none, reason: x}
      settings: {kv: {bucket: settings, prefix: eu/, operations: [put, delete]}}
      uploads: {bucket: {bucket: uploads, prefix: in/, suffix: .csv, minSize: 1, maxSize: 10Mi, types: [text/csv, image/*], removed: true, existing: true}}
      remote: {bucket: {bucket: uploads, interval: 90s}, connection: s3}
      inbox: {folder: {root: inbox, path: a/b, recursive: true, include: ["*.csv"], exclude: ["*.tmp"], minSize: 1Ki, maxSize: 5Mi, types: [text/csv], removed: true, content: true, archive: done, settle: 5s}, schema: none, reason: files of CSV}
      mail: {connector: {kind: imap, settings: {folder: INBOX, every: 1.5, flags: {seen: true}, list: [1, a]}, filter: {exact: {type: mail}}}, connection: mail, schema: none, reason: x}
`

// write makes a manifest's folder, and gives the manifest's path.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, FileName)
}

const paidSchema = "{\n  \"type\": \"object\",\n  \"required\": [\"id\"]\n}\n"

// loadEvery gives the triggers of every by their names.
func loadEvery(t *testing.T) (Function, map[string]api.Trigger) {
	t.Helper()
	m, err := Load(write(t, map[string]string{FileName: every, "schemas/paid.json": paidSchema}))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]api.Trigger{}
	for _, tr := range m.Functions[0].Config.Triggers {
		byName[tr.Name] = tr
	}
	return m.Functions[0], byName
}

func TestTriggersBecomeWhatANodeReads(t *testing.T) {
	t.Parallel()
	fn, got := loadEvery(t)
	if !slices.Equal(fn.Schemas, []string{"schemas/paid.json"}) {
		t.Errorf("schemas %q", fn.Schemas)
	}
	if !slices.IsSortedFunc(fn.Config.Triggers, func(a, b api.Trigger) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the triggers are not in the order of their names")
	}
	want := api.Trigger{
		Name: "orders", Kind: "topic", NoSchema: "orders are checked where they are published",
		Settings: json.RawMessage(`{"filter":[{"exact":{"type":"order.created"}},{"any":[{"prefix":{"subject":"eu/"}},{"not":{"suffix":{"subject":"/test"}}},{"sql":"region = 'eu'"}]}],"topic":"orders"}`),
		Delivery: api.Delivery{
			Concurrency: 4, Rate: 100, Ordered: true, Attempts: 8, MaxAgeMillis: 7_200_000, BackoffMillis: 1000, BackoffMostMillis: 300_000,
			Backlog: 100_000, Batch: 10, BatchWindowMillis: 2000,
			OnFailure: []api.Destination{{Topic: "failed"}}, OnSuccess: []api.Destination{{Function: "archive"}, {Webhook: "tell"}},
		},
	}
	if !reflect.DeepEqual(got["orders"], want) {
		t.Errorf("got %+v\nwant %+v", got["orders"], want)
	}
	if p := got["paid"]; p.Connection != "billing" || string(p.Schema) != `{"type":"object","required":["id"]}` || p.NoSchema != "" {
		t.Errorf("got %+v", p)
	}
	for name, settings := range map[string]string{
		"nightly":  `{"cron":"0 2 * * *","missed":"once","zone":"Europe/Berlin"}`,
		"often":    `{"every":"1h30m"}`,
		"once":     `{"at":"2026-03-01T12:00:00Z"}`,
		"entries":  `{"body":"b","claimAfter":"90s","consumer":"c","contentType":"text/plain","from":"all","group":"g","key":"header.k","prefetch":1,"stream":"s"}`,
		"rows":     `{"columns":{"public.orders":["id","state"]},"lagAlertBytes":536870912,"lostSlot":"snapshot","operations":["insert","update"],"publication":"p","slot":"s_1","snapshot":"initial","tables":["public.orders"]}`,
		"box":      `{"after":"mark","batch":50,"columns":{"created":"created","id":"id","key":"key","payload":"payload","subject":"subject","type":"type"},"contentType":"application/json","markColumn":"done","maxPollMillis":5000,"pollMillis":250,"table":"app.outbox"}`,
		"uploads":  `{"bucket":"uploads","existing":true,"maxSize":10485760,"minSize":1,"prefix":"in/","removed":true,"suffix":".csv","types":["text/csv","image/*"]}`,
		"remote":   `{"bucket":"uploads","intervalNanos":90000000000}`,
		"inbox":    `{"archive":"done","content":true,"exclude":["*.tmp"],"include":["*.csv"],"maxSize":5242880,"minSize":1024,"path":"a/b","recursive":true,"removed":true,"root":"inbox","settleNanos":5000000000,"types":["text/csv"]}`,
		"mail":     `{"every":1.5,"filter":{"exact":{"type":"mail"}},"flags":{"seen":true},"folder":"INBOX","list":[1,"a"]}`,
		"settings": `{"bucket":"settings","operations":["put","delete"],"prefix":"eu/"}`,
	} {
		if string(got[name].Settings) != settings {
			t.Errorf("%s: %s", name, got[name].Settings)
		}
	}
	if got["mail"].Kind != "imap" {
		t.Errorf("the program's kind is %q", got["mail"].Kind)
	}
	if i := Check("f", WithDefaults(fn.Config)); len(i) > 0 {
		t.Errorf("what was read breaks the rules: %+v", i)
	}
}

func TestTriggerDefaults(t *testing.T) {
	t.Parallel()
	given := api.FunctionConfig{Runtime: "ts", Triggers: []api.Trigger{
		{Name: "a", Kind: "schedule", Settings: json.RawMessage(`{"every":"1m"}`)},
		{Name: "b", Kind: "topic", Settings: json.RawMessage(`{"topic":"t"}`), NoSchema: "x", Delivery: api.Delivery{BackoffMillis: 600_000, Batch: 1}},
	}}
	c := WithDefaults(given)
	want := api.Delivery{Concurrency: 8, Attempts: 5, MaxAgeMillis: 21_600_000, BackoffMillis: 1000, BackoffMostMillis: 300_000, Backlog: 1_000_000}
	if a := c.Triggers[0]; !reflect.DeepEqual(a.Delivery, want) || a.NoSchema != PlatformData {
		t.Errorf("got %+v", a)
	}
	want.BackoffMillis, want.BackoffMostMillis = 600_000, 600_000
	if b := c.Triggers[1]; !reflect.DeepEqual(b.Delivery, want) || b.NoSchema != "x" {
		t.Errorf("got %+v", b)
	}
	if given.Triggers[0].NoSchema != "" || given.Triggers[0].Delivery.Attempts != 0 {
		t.Error("the caller's triggers were changed")
	}
	if issues := Check("f", c); len(issues) > 0 {
		t.Errorf("the defaults break the rules: %+v", issues)
	}
	if again := WithDefaults(c); !reflect.DeepEqual(again, c) {
		t.Errorf("filled in twice: %+v", again)
	}
	if none := WithDefaults(api.FunctionConfig{Runtime: "ts"}); none.Triggers != nil {
		t.Error("a function without triggers got some")
	}
}

func TestSchemaFilesStayInTheFolder(t *testing.T) {
	t.Parallel()
	const with = `functions: {f: {runtime: ts, triggers: {a: {topic: {topic: t}, schema: NAME}}}}`
	outsideDir := t.TempDir()
	for _, name := range []string{"x.json", "good.json"} {
		if err := os.WriteFile(filepath.Join(outsideDir, name), []byte(`{"type":"object"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"there.json":         {`{"type":"object"}`, ""},
		"deep/er/there.json": {`true`, ""},
		"./deep/x/../y.json": {`{}`, ""},
		"within.json":        {"", ""}, // a link to there.json
		"absent.json":        {"", "is not there"},
		"folder":             {"", "is not a plain file"},
		"pipe":               {"", "is not a plain file"},
		"out.json":           {"", "cannot be read: path escapes from parent"},
		"relative.json":      {"", "cannot be read: path escapes from parent"},
		"way/x.json":         {"", "cannot be read: path escapes from parent"},
		"a/../../x.json":     {"", "leads out of the manifest's folder"},
		"..":                 {"", "leads out of the manifest's folder"},
		"~/x.json":           {"", "must be named relative to the manifest"},
		`a\x.json`:           {"", "no path here has"},
		"large.json":         {`"` + strings.Repeat("x", MaxTriggerSchema) + `"`, "is larger than 64Ki"},
		"syntax.json":        {"{\n  \"type\": \"object\",\n}\n", "is not JSON: line 3, column 1"},
		"two.json":           {"{} {}", "is not JSON"},
		"empty.json":         {"", "is not JSON"},
		"number.json":        {"7", "it must be an object"},
		"wrong.json":         {`{"type":"objekt"}`, "is not a JSON Schema"},
		"pattern.json":       {`{"pattern":"("}`, "is not a JSON Schema"},
		"remote.json":        {`{"$ref":"https://example.com/x.json"}`, "refers to https://example.com/x.json"},
		"file.json":          {`{"$ref":"file:///etc/passwd"}`, "refers to file:///etc/passwd"},
		"good.json":          {`{"$ref":"file://OUTSIDE/good.json"}`, "refers to file:///"},
		"beside.json":        {`{"$ref":"there.json"}`, "refers to trigger:///there.json"},
		"secret.json":        {"{\"title\": ghp_abcdefGHIJKLmnop1234}", "is not JSON"},
	} {
		path := write(t, map[string]string{
			FileName: strings.ReplaceAll(with, "NAME", "'"+name+"'"), "there.json": `{"type":"object"}`, "folder/x": "", "deep/x/z": "", "deep/y.json": "{}",
		})
		dir := filepath.Dir(path)
		if c.text != "" || name == "empty.json" {
			p := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(strings.ReplaceAll(c.text, "OUTSIDE", filepath.ToSlash(outsideDir))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		beside, err := filepath.Rel(dir, filepath.Join(outsideDir, "x.json"))
		if err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"out.json": filepath.Join(outsideDir, "x.json"), "relative.json": beside, "way": outsideDir, "within.json": "there.json"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Load(path)
		if c.want == "" {
			if err != nil || len(m.Functions[0].Config.Triggers[0].Schema) == 0 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var issues Issues
		if !errors.As(err, &issues) || len(issues) != 1 || !strings.Contains(issues[0].Message, c.want) || issues[0].Field != "functions.f.triggers.a.schema" || issues[0].Line != 1 || issues[0].Column != 72 {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "abcdefGHIJKL") {
			t.Errorf("%s shows too much: %v", name, err)
		}
	}
}

// TestTriggerRulesHoldWithoutTheSchema: a node has no manifest to check, only a request.
func TestTriggerRulesHoldWithoutTheSchema(t *testing.T) {
	t.Parallel()
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	hook := func(path string) api.Trigger {
		return api.Trigger{Name: "a", Kind: "webhook", Connection: "c", NoSchema: "x", Settings: raw(`{"path":"` + path + `","provider":"github"}`)}
	}
	at := func(settings string) api.Trigger {
		return api.Trigger{Name: "a", Kind: "schedule", Settings: raw(settings)}
	}
	delivered := func(d api.Delivery) api.Trigger {
		t := at(`{"every":"1m"}`)
		t.Delivery = d
		return t
	}
	for name, c := range map[string][]api.Trigger{
		"triggers":                          make([]api.Trigger, MaxTriggers+1),
		"triggers.":                         {{Kind: "schedule"}},
		"triggers.A":                        {{Name: "A", Kind: "schedule"}},
		"triggers.a":                        {at(`{}`), at(`{}`)},
		"triggers.a: kind":                  {{Name: "a"}},
		"triggers.a.connector.kind":         {{Name: "a", Kind: "Imap", NoSchema: "x"}},
		"triggers.a.connector.kind: itself": {{Name: "a", Kind: "connector", NoSchema: "x"}},
		"triggers.a.connection":             {{Name: "a", Kind: "amqp", NoSchema: "x", Settings: raw(`{"queue":"q"}`)}},
		"triggers.a.connection: none":       {{Name: "a", Kind: "topic", NoSchema: "x", Connection: "c"}},
		"triggers.a.connection: name":       {{Name: "a", Kind: "bucket", Connection: "../c"}},
		"triggers.a.schedule":               {at(`[]`)},
		"triggers.a.schedule: null":         {at(`null`)},
		"triggers.a.schedule: two":          {at(`{} {}`)},
		"triggers.a.schedule: large":        {at(`{"cron":"` + strings.Repeat("x", MaxTriggerSettings) + `"}`)},
		"triggers.a.schedule.zone":          {at(`{"zone":"postgres://u:hunter2@h/d"}`)},
		"triggers.a.schedule.x[1].y":        {at(`{"x":["a",{"y":"AKIAIOSFODNN7EXAMPLE"}]}`)},
		"triggers.a.schedule.filter":        {at(`{"filter":7}`)},
		"triggers.a.schedule.filter.all[1]": {at(`{"filter":{"all":[{"sql":"TRUE"},{}]}}`)},
		"triggers.a.schema":                 {{Name: "a", Kind: "topic", Settings: raw(`{"topic":"t"}`)}},
		"triggers.a.schema: of a program":   {{Name: "a", Kind: "imap", Settings: raw(`{}`)}},
		"triggers.a.schema: content":        {{Name: "a", Kind: "folder", Settings: raw(`{"root":"r","content":true}`)}},
		"triggers.a.schema: null":           {{Name: "a", Kind: "topic", Schema: raw(`null`)}},
		"triggers.a.schema: text":           {{Name: "a", Kind: "topic", Schema: raw(`"x"`)}},
		"triggers.a.schema: blank":          {{Name: "a", Kind: "topic", Schema: raw(` `)}},
		"triggers.a.schema: large":          {{Name: "a", Kind: "topic", Schema: raw(`{"title":"` + strings.Repeat("x", MaxTriggerSchema) + `"}`)}},
		"triggers.a.reason":                 {{Name: "a", Kind: "topic", Schema: raw(`{}`), NoSchema: "x"}},
		"triggers.a.reason: control":        {{Name: "a", Kind: "topic", NoSchema: "x\x1b[31m"}},
		"triggers.a.reason: UTF-8":          {{Name: "a", Kind: "topic", NoSchema: "x\xff"}},
		"triggers.a.reason: long":           {{Name: "a", Kind: "topic", NoSchema: strings.Repeat("x", maxNoSchema+1)}},
		"triggers.a.delivery.concurrency":   {delivered(api.Delivery{Concurrency: MaxConcurrency + 1})},
		"triggers.a.delivery.rate":          {delivered(api.Delivery{Rate: -1})},
		"triggers.a.delivery.attempts":      {delivered(api.Delivery{Attempts: MaxAttempts + 1})},
		"triggers.a.delivery.backlog":       {delivered(api.Delivery{Backlog: -1})},
		"triggers.a.delivery.batch":         {delivered(api.Delivery{Batch: MaxBatch + 1})},
		"triggers.a.delivery.maxAge":        {delivered(api.Delivery{MaxAgeMillis: MaxEventAge.Milliseconds() + 1})},
		"triggers.a.delivery.backoff":       {delivered(api.Delivery{BackoffMillis: -1})},
		"triggers.a.delivery.backoffMost":   {delivered(api.Delivery{BackoffMostMillis: 999})},
		"triggers.a.delivery.batchWindow":   {delivered(api.Delivery{BatchWindowMillis: 1})},
		"triggers.a.delivery.onSuccess":     {delivered(api.Delivery{OnSuccess: make([]api.Destination, MaxDestinations+1)})},
		"triggers.a.delivery.onFailure[0]":  {delivered(api.Delivery{OnFailure: []api.Destination{{Function: "f", Topic: "t"}}})},
		"triggers.a.webhook.path":           {hook("/a/{x}")},
		"triggers.a.webhook.path: missing":  {{Name: "a", Kind: "webhook", Connection: "c", NoSchema: "x"}},
		"triggers.a.webhook.path: ours":     {hook("/.casemate/x")},
		"triggers.a.webhook.path: long":     {hook("/" + strings.Repeat("a", maxWebhookPath))},
		"triggers.a.webhook.path: taken":    {hook("/taken")},
	} {
		issues := Check("f", api.FunctionConfig{Runtime: "ts", Triggers: c, HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/taken"}}})
		field, _, _ := strings.Cut(name, ":")
		if !slices.ContainsFunc(issues, func(i FieldIssue) bool { return i.Field == field }) {
			t.Errorf("%s: got %+v", name, issues)
		}
		for _, i := range issues {
			if strings.Contains(i.Message+i.Text+i.Remedy, "hunter2") || strings.Contains(i.Message+i.Text+i.Remedy, "IOSFODNN7") {
				t.Errorf("%s shows a secret: %+v", name, i)
			}
			if (name == "triggers.a.schedule.zone" || name == "triggers.a.schedule.x[1].y") != (i.Code == problem.SecretInConfig) {
				t.Errorf("%s: code %s", name, i.Code)
			}
		}
	}
}

func TestFilterBounds(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return strings.Repeat(`{"not":`, depth) + `{"sql":"TRUE"}` + strings.Repeat("}", depth)
	}
	many := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(`{"sql":"TRUE"},`, n), ",") + "]" }
	for filter, want := range map[string]int{
		nested(maxFilterDepth): 0, nested(maxFilterDepth + 1): 1, many(maxFilterParts): 0, many(maxFilterParts + 50): 1, `[]`: 0, `null`: 1,
	} {
		issues := Check("f", api.FunctionConfig{Runtime: "ts", Triggers: []api.Trigger{{Name: "a", Kind: "kv", Settings: json.RawMessage(`{"filter":` + filter + `}`)}}})
		if len(issues) != want {
			t.Errorf("%.60s: %+v", filter, issues)
		}
	}
	// As deep as a filter may be, a manifest can have it.
	deep := strings.Repeat(`{all: [`, maxFilterDepth) + `{exact: {type: x}}` + strings.Repeat(`]}`, maxFilterDepth)
	if _, err := Parse("x", []byte("functions: {f: {runtime: ts, triggers: {a: {kv: {bucket: b, filter: ["+deep+"]}}}}}")); err != nil {
		t.Error(err)
	}
}

// SpellSettings says in the manifest's words what the manifest said.
func TestSettingsAreSpelledAsWritten(t *testing.T) {
	t.Parallel()
	_, triggers := loadEvery(t)
	got := map[string]string{}
	for _, tr := range triggers {
		for k, v := range SpellSettings(tr.Kind, tr.Settings) {
			got[tr.Name+"."+k] = v
		}
	}
	for field, want := range map[string]string{
		"nightly.schedule.cron":               "0 2 * * *",
		"remote.bucket.interval":              "1m30s",
		"uploads.bucket.maxSize":              "10Mi",
		"uploads.bucket.types":                "text/csv image/*",
		"uploads.bucket.removed":              "true",
		"inbox.folder.settle":                 "5s",
		"box.outbox.poll":                     "250ms",
		"box.outbox.columns.payload":          "payload",
		"rows.postgres.lagAlert":              "512Mi",
		"rows.postgres.columns.public.orders": "id state",
		"paid.webhook.hmac.signed":            "{timestamp}.{id}.{body}",
		"jobs.amqp.prefetch":                  "32",
		"orders.topic.filter":                 `[{"exact":{"type":"order.created"}},{"any":[{"prefix":{"subject":"eu/"}},{"not":{"suffix":{"subject":"/test"}}},{"sql":"region = 'eu'"}]}]`,
		"mail.connector.kind":                 "imap",
		"mail.connector.settings.every":       "1.5",
		"mail.connector.settings.list":        `[1,"a"]`,
		"mail.connector.filter":               `{"exact":{"type":"mail"}}`,
	} {
		if got[field] != want {
			t.Errorf("%s: %q", field, got[field])
		}
	}
	for field := range got {
		if strings.HasSuffix(field, "Nanos") || strings.HasSuffix(field, "Millis") || strings.HasSuffix(field, "Bytes") {
			t.Errorf("%s is not a word of the manifest", field)
		}
	}
	for _, s := range []string{"", "null", "[]", "7", `{"a":`} {
		if f := SpellSettings("schedule", json.RawMessage(s)); len(f) > 0 {
			t.Errorf("%q gives %v", s, f)
		}
	}
	for v, want := range map[string]string{`"a\u001bb"`: `"a\u001bb"`, `""`: `""`, `" a"`: `" a"`, `["a b","c"]`: `["a b","c"]`, `[]`: `[]`, `"\"a\""`: `"\"a\""`, `{}`: `{}`, `null`: `null`, `1e400`: `1e400`} {
		if got := SpellSettings("schedule", json.RawMessage(`{"x":`+v+`}`))["schedule.x"]; got != want {
			t.Errorf("%s is spelled %s", v, got)
		}
	}
}

// TestSchemaKnowsTheKinds: the schema and the tables name the same kinds and quantities,
// and every has each key of the schema.
func TestSchemaKnowsTheKinds(t *testing.T) {
	t.Parallel()
	root := compiled().root
	fn := root.child("functions", false).child("f", false)
	trigger := fn.child("triggers", false).child("t", false)
	own := []string{"connection", "schema", "reason", "delivery"}
	if keys, want := trigger.keys(), append(kindNames(), own...); !slices.Equal(keys, slices.Sorted(slices.Values(want))) {
		t.Errorf("the schema has %v, the table %v", keys, want)
	}
	for _, q := range quantities() {
		p, form := trigger.child(q.kind, false).child(q.key, false), durationForm
		if q.unit == octets {
			form = sizeForm
		}
		if p == nil || p.Pattern != form {
			t.Errorf("%s.%s is no quantity in the schema", q.kind, q.key)
		}
	}
	used := map[string]bool{}
	f, _ := loadEvery(t)
	for _, tr := range f.Config.Triggers {
		for field := range SpellSettings(tr.Kind, tr.Settings) {
			used[field] = true
		}
	}
	var walk func(at string, p *part)
	walk = func(at string, p *part) {
		for key, below := range p.Properties {
			below, name := below.resolved(), at+"."+key
			_, isQuantity := quantityOf(func(q quantity) bool { return q.kind+"."+q.key == name })
			if p := below.Pattern; (p == durationForm || p == sizeForm) != isQuantity && !strings.Contains(name, "delivery.") {
				t.Errorf("%s has the form of a quantity, and the table does not know it", name)
			}
			if len(below.Properties) > 0 {
				walk(name, below)
			} else if key != filterKey && !slices.ContainsFunc(slices.Collect(maps.Keys(used)), func(u string) bool { return u == name || strings.HasPrefix(u, name+".") }) && name != "webhook.hmac.idField" {
				t.Errorf("no test uses %s", name)
			}
		}
	}
	for _, kind := range kindNames() {
		walk(kind, trigger.child(kind, false))
	}
	delivery := trigger.child("delivery", false)
	var text struct {
		Defs map[string]struct {
			Properties map[string]struct {
				Maximum  *int `json:"maximum"`
				MaxItems *int `json:"maxItems"`
				Default  any  `json:"default"`
			} `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &text); err != nil {
		t.Fatal(err)
	}
	d := text.Defs["delivery"].Properties
	for key, most := range map[string]int{"concurrency": MaxConcurrency, "rate": MaxEventRate, "attempts": MaxAttempts, "backlog": MaxBacklog, "batch": MaxBatch} {
		if d[key].Maximum == nil || *d[key].Maximum != most {
			t.Errorf("delivery.%s: the schema's bound is another than %d", key, most)
		}
	}
	for key, preset := range map[string]any{
		"concurrency": float64(DefaultEventsAtOnce), "attempts": float64(DefaultAttempts), "backlog": float64(DefaultBacklog), "rate": nil, "batch": nil,
		"maxAge": FormatDuration(DefaultEventAge), "backoff": FormatDuration(DefaultBackoff), "backoffMost": FormatDuration(DefaultBackoffMost), "batchWindow": nil, "ordered": false,
	} {
		if d[key].Default != preset || delivery.child(key, false) == nil {
			t.Errorf("delivery.%s: the schema says %v, the rules %v", key, d[key].Default, preset)
		}
	}
	for _, key := range []string{"onSuccess", "onFailure"} {
		if d[key].MaxItems == nil || *d[key].MaxItems != MaxDestinations {
			t.Errorf("delivery.%s: the schema's bound is another than %d", key, MaxDestinations)
		}
	}
}
