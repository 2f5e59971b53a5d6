package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// What holds for triggers when a manifest is silent, and the bounds of what it may say.
// A node has the same ones.
const (
	MaxTriggers            = 50
	MaxTriggerSettings     = 64 << 10 // bytes
	MaxTriggerSchema       = 64 << 10 // bytes
	DefaultEventsAtOnce    = 8
	MaxEventRate           = 100_000 // per second
	DefaultAttempts        = 5
	MaxAttempts            = 100
	DefaultEventAge        = 6 * time.Hour
	MaxEventAge            = 7 * 24 * time.Hour
	DefaultBackoff         = time.Second
	DefaultBackoffMost     = 5 * time.Minute
	MaxBackoff             = time.Hour
	DefaultBacklog         = 1_000_000
	MaxBacklog             = 100_000_000
	MaxBatch               = 1000
	MaxBatchWindow         = 5 * time.Minute
	MaxDestinations        = 5
	maxNoSchema            = 500 // bytes
	maxWebhookPath         = 128 // bytes
	webhookForm            = `^(/[A-Za-z0-9][A-Za-z0-9_-]*){1,8}$`
	kindForm               = `^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`
	webhook                = "webhook"
	nameRemedy             = "use 1 to 63 lower-case letters, digits and hyphens, a letter first and no hyphen last"
	noCredentialInSettings = "take it out: settings are stored and shown in the clear, and a connection holds credentials"
)

var (
	webhookPattern = regexp.MustCompile(webhookForm)
	kindPattern    = regexp.MustCompile(kindForm)
)

// triggerDefaults fills in what triggers leave open, and leaves the caller's array as it is.
func triggerDefaults(cfg *api.FunctionConfig) {
	if len(cfg.Triggers) > 0 {
		cfg.Triggers = append([]api.Trigger(nil), cfg.Triggers...)
	}
	for i := range cfg.Triggers {
		t := &cfg.Triggers[i]
		if len(t.Schema) == 0 && t.NoSchema == "" && !outside(t) {
			t.NoSchema = PlatformData
		}
		d := &t.Delivery
		fill(&d.Concurrency, DefaultEventsAtOnce)
		fill(&d.Attempts, DefaultAttempts)
		fill(&d.MaxAgeMillis, DefaultEventAge.Milliseconds())
		fill(&d.BackoffMillis, DefaultBackoff.Milliseconds())
		fill(&d.BackoffMostMillis, max(DefaultBackoffMost.Milliseconds(), d.BackoffMillis))
		fill(&d.Backlog, DefaultBacklog)
		if d.Batch == 1 { // as without batches: one version, not two
			d.Batch = 0
		}
	}
}

func (c *check) triggers(cfg *api.FunctionConfig) {
	if len(cfg.Triggers) > MaxTriggers {
		c.add("triggers", "", fmt.Sprintf("%d triggers are more than the %d allowed", len(cfg.Triggers), MaxTriggers), "use filters, or several functions")
		return
	}
	var routes routeSet
	for _, r := range cfg.HTTP {
		parts := &check{}
		parts.method("", r.Method, methods())
		parts.path("", r.Path)
		if len(parts.issues) == 0 {
			routes.add(r.Method, r.Path, r.Method+" "+r.Path)
		}
	}
	seen := map[string]bool{}
	for i := range cfg.Triggers {
		t := &cfg.Triggers[i]
		field := "triggers." + t.Name
		switch {
		case !namePattern.MatchString(t.Name):
			c.name(field, "trigger", t.Name)
		case seen[t.Name]:
			c.add(field, t.Name, "two triggers are named "+quote(t.Name), "give one of them another name")
		}
		seen[t.Name] = true
		c.trigger(field, t)
		if path, ok := WebhookPath(t); ok {
			c.webhookPath(field+".webhook.path", t.Name, path, &routes)
		}
	}
}

// WebhookPath gives the path to which the requests of a webhook go.
func WebhookPath(t *api.Trigger) (path string, ok bool) {
	if t.Kind != webhook {
		return "", false
	}
	var s struct {
		Path string `json:"path"`
	}
	// Settings that are no object have no path, and a route without one is refused.
	_ = json.Unmarshal(t.Settings, &s)
	return s.Path, true
}

func (c *check) webhookPath(field, trigger, path string, routes *routeSet) {
	before := len(c.issues)
	c.path(field, path)
	if len(c.issues) > before {
		return
	}
	if len(path) > maxWebhookPath || !webhookPattern.MatchString(path) {
		c.add(field, path, quote(path)+" cannot be the path of a webhook", fmt.Sprintf("write words of letters, digits, _ and -, with a / before each, 8 words and %d bytes at most, as in /hooks/orders", maxWebhookPath))
		return
	}
	if other, taken := routes.add("POST", path, "the webhook "+trigger); taken {
		c.add(field, path, "requests to "+quote(path)+" go to "+quote(other)+" too", "choose another path for one of the two")
	}
}

func (c *check) trigger(field string, t *api.Trigger) {
	kind, known := kindOf(t.Kind)
	switch {
	case t.Kind == "":
		c.add(field, "", "nothing says where the events come from", "write one of "+strings.Join(kindNames(), ", "))
		return
	case !known && (!kindPattern.MatchString(t.Kind) || t.Kind == sourceConnector):
		c.add(field+"."+sourceConnector+".kind", t.Kind, quote(t.Kind)+" cannot be a kind of trigger", "name what the operator has installed: 1 to 32 lower-case letters, digits and hyphens, a letter first")
		return
	}
	c.connection(field+".connection", t.Connection, kind)
	c.settings(field+"."+kindKey(t.Kind), t)
	c.dataSchema(field, t)
	c.delivery(field+".delivery", &t.Delivery)
}

func (c *check) connection(field, name string, kind sourceKind) {
	switch {
	case name == "" && kind.connection == mustConnect:
		c.add(field, "", "connection is missing: events of the kind "+kind.name+" come from a far side", "name the one that the node's operator has made for it, as in connection: "+kind.name)
	case name != "" && kind.connection == noConnection:
		c.add(field, name, "a trigger of the kind "+kind.name+" has no connection", "take it away: the events come from the platform itself")
	case name != "" && !namePattern.MatchString(name):
		c.add(field, name, quote(name)+" cannot name a connection", nameRemedy)
	}
}

func (c *check) settings(field string, t *api.Trigger) {
	if len(t.Settings) > MaxTriggerSettings {
		c.add(field, "", "the settings are larger than "+FormatSize(MaxTriggerSettings), "shorten the lists in them")
		return
	}
	if len(t.Settings) == 0 {
		return // the kind says what is missing
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(t.Settings))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil || fields == nil || d.More() {
		c.add(field, "", "the settings are not a JSON object", "write one, such as {}")
		return
	}
	filter, filtered := fields[filterKey]
	delete(fields, filterKey)
	at := field
	if kindKey(t.Kind) == sourceConnector {
		at += ".settings"
	}
	c.credentials(at, fields)
	if filtered {
		c.filter(field+"."+filterKey, filter)
	}
}

// credentials refuses settings that hold what has the form of a well-known credential.
// Names and random text are let through: a key's name and an id are no secrets.
func (c *check) credentials(field string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c.credentials(field+"."+key, v[key])
		}
	case []any:
		for i, item := range v {
			c.credentials(fmt.Sprintf("%s[%d]", field, i), item)
		}
	case string:
		for _, s := range shapes() {
			if found := s.form.FindString(v); found != "" {
				c.issues = append(c.issues, FieldIssue{
					Field: field, Code: problem.SecretInConfig, Text: publicPrefix(found) + mask,
					Message: "the value looks like " + s.what, Remedy: noCredentialInSettings,
				})
				return
			}
		}
	}
}

func (c *check) dataSchema(field string, t *api.Trigger) {
	switch {
	case len(t.Schema) > MaxTriggerSchema:
		c.add(field+".schema", "", "the schema is larger than "+FormatSize(MaxTriggerSchema), "say less: a schema describes the data's form")
	case len(t.Schema) > 0 && t.NoSchema != "":
		c.add(field+".reason", "", "a reason for having no schema does not go with a schema", "take one of the two away")
	case len(t.Schema) > 0:
		if s := bytes.TrimSpace(t.Schema); !json.Valid(s) || s[0] != '{' && string(s) != "true" && string(s) != "false" {
			c.add(field+".schema", "", "the schema is not a JSON Schema", "write a JSON object, or true or false")
		}
	case t.NoSchema == "" && outside(t):
		c.add(field+".schema", "", "schema is missing: nothing says what the data of the kind "+t.Kind+" may be", "name a file with a JSON Schema, as in schema: schemas/order.json, or write schema: none and a reason")
	case len(t.NoSchema) > maxNoSchema || strings.IndexFunc(t.NoSchema, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) >= 0:
		c.add(field+".reason", t.NoSchema, "the reason is not one line of text", fmt.Sprintf("write %d bytes at most, without control characters", maxNoSchema))
	}
}

func (c *check) delivery(field string, d *api.Delivery) {
	for _, n := range []struct {
		key  string
		n    int
		most int64
	}{
		{"concurrency", d.Concurrency, MaxConcurrency},
		{"rate", d.Rate, MaxEventRate},
		{"attempts", d.Attempts, MaxAttempts},
		{"backlog", d.Backlog, MaxBacklog},
		{"batch", d.Batch, MaxBatch},
	} {
		c.count(field+"."+n.key, int64(n.n), n.most)
	}
	c.duration(field+".maxAge", d.MaxAgeMillis, time.Millisecond, MaxEventAge)
	c.duration(field+".backoff", d.BackoffMillis, time.Millisecond, MaxBackoff)
	c.duration(field+".backoffMost", d.BackoffMostMillis, time.Millisecond, MaxBackoff)
	c.duration(field+".batchWindow", d.BatchWindowMillis, time.Millisecond, MaxBatchWindow)
	if first := cmp.Or(d.BackoffMillis, DefaultBackoff.Milliseconds()); d.BackoffMostMillis > 0 && d.BackoffMostMillis < first {
		c.add(field+".backoffMost", "", "the longest pause is shorter than the first", "write at least "+FormatDuration(time.Duration(first)*time.Millisecond)+", or lower backoff")
	}
	if d.BatchWindowMillis > 0 && d.Batch < 2 {
		c.add(field+".batchWindow", "", "nothing waits to fill: there are no batches", "write batch with 2 or more, or take batchWindow away")
	}
	c.destinations(field+".onSuccess", d.OnSuccess)
	c.destinations(field+".onFailure", d.OnFailure)
	if d.Reply != "" && !namePattern.MatchString(d.Reply) {
		c.add(field+".reply", d.Reply, quote(d.Reply)+" cannot name a topic", nameRemedy)
	}
}

func (c *check) destinations(field string, ds []api.Destination) {
	if len(ds) > MaxDestinations {
		c.add(field, "", fmt.Sprintf("%d destinations are more than the %d allowed", len(ds), MaxDestinations), "send it to a topic: any number of functions can get it from there")
		return
	}
	for i, d := range ds {
		at, set := fmt.Sprintf("%s[%d]", field, i), 0
		for _, part := range []struct{ key, name string }{{"function", d.Function}, {"topic", d.Topic}, {webhook, d.Webhook}} {
			if part.name == "" {
				continue
			}
			set++
			if !namePattern.MatchString(part.name) {
				c.add(at+"."+part.key, part.name, quote(part.name)+" cannot name a "+part.key, nameRemedy)
			}
		}
		if set != 1 {
			c.add(at, "", "a destination is one function, one topic or one webhook", "name one, as in {topic: failed}")
		}
		if slices.Contains(ds[:i], d) {
			c.add(at, "", "the destination stands in the list twice", "take one of the two away")
		}
	}
}
