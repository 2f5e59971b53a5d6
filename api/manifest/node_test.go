package manifest_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/folder"
	"github.com/casemate-dev/casemate/internal/source/keyvalue"
	"github.com/casemate-dev/casemate/internal/source/outbox"
	"github.com/casemate-dev/casemate/internal/source/postgres"
	"github.com/casemate-dev/casemate/internal/source/queue/amqp"
	"github.com/casemate-dev/casemate/internal/source/queue/kafka"
	"github.com/casemate-dev/casemate/internal/source/queue/mqtt"
	"github.com/casemate-dev/casemate/internal/source/queue/nats"
	"github.com/casemate-dev/casemate/internal/source/schedule"
	"github.com/casemate-dev/casemate/internal/source/webhook"
)

// This file holds the manifest against the node's own code, which the package itself may
// not import: what one of them says and the other does not know is found here.

// TestNodeTakesWhatAManifestSays: the settings of a manifest that has every key of every
// kind are checked by the kinds themselves.
func TestNodeTakesWhatAManifestSays(t *testing.T) {
	t.Parallel()
	folders, err := folder.New(map[string]folder.Root{"inbox": {Path: "/srv/inbox", Namespaces: []string{"*"}}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]source.Kind{
		"schedule": schedule.Kind{}, "webhook": &webhook.Hooks{}, "folder": folders, "bucket": bucket.New(own{}), "nats": nats.Kind{}, "amqp": amqp.Kind{},
		"kafka": kafka.Kind{}, "mqtt": mqtt.Kind{}, "postgres": postgres.New(postgres.Config{}), "outbox": outbox.New(), "kv": keyvalue.New(nil),
	}
	seen := map[string]bool{}
	for _, tr := range manifest.EveryTrigger(t) {
		given := &function.Trigger{Name: tr.Name, Kind: tr.Kind, Connection: tr.Connection, Settings: tr.Settings, Schema: tr.Schema, NoSchema: tr.NoSchema}
		if _, err := intake.NewRules(given); err != nil {
			t.Errorf("%s: %v", tr.Name, err)
		}
		_, rest, err := intake.SplitSettings(tr.Settings)
		if err != nil {
			t.Errorf("%s: %v", tr.Name, err)
			continue
		}
		given.Settings = rest
		k := kinds[tr.Kind]
		if k == nil {
			continue // topic is the node's; redis and sqs are programs
		}
		seen[tr.Kind] = true
		if err := k.Check(given); err != nil {
			t.Errorf("%s: %s: %v", tr.Name, rest, err)
		}
	}
	if len(seen) != len(kinds) {
		t.Errorf("checked by their kinds were only %v", slices.Sorted(maps.Keys(seen)))
	}
}

type own struct{ bucket.Own }

// TestManifestHasAllSettingsOfTheKinds reads the structs of the kinds' settings. A key that
// is added there and not here would be one that nobody can write.
func TestManifestHasAllSettingsOfTheKinds(t *testing.T) {
	t.Parallel()
	const root = "../../"
	shared := keysOf(t, root+"internal/source/queue", "Settings")
	for kind, c := range map[string]struct {
		dir, name string
		embeds    bool
	}{
		"schedule": {"internal/source/schedule", "settings", false},
		"webhook":  {"internal/source/webhook", "Settings", false},
		"nats":     {"internal/source/queue/nats", "settings", true},
		"amqp":     {"internal/source/queue/amqp", "settings", true},
		"kafka":    {"internal/source/queue/kafka", "settings", true},
		"mqtt":     {"internal/source/queue/mqtt", "settings", true},
		"redis":    {"connectors/redis", "trigger", true},
		"sqs":      {"connectors/sqs", "trigger", true},
		"postgres": {"internal/source/postgres", "settings", false},
		"outbox":   {"internal/source/outbox", "settings", false},
		"kv":       {"internal/source/keyvalue", "Settings", false},
		"bucket":   {"internal/source/bucket", "Settings", false},
		"folder":   {"internal/source/folder", "Settings", false},
	} {
		want := keysOf(t, root+c.dir, c.name)
		if c.embeds {
			want = append(want, shared...)
		}
		if !slices.Contains(want, "filter") {
			want = append(want, "filter")
		}
		slices.Sort(want)
		if got := manifest.WireKeys(kind); !slices.Equal(got, want) {
			t.Errorf("%s: a manifest can say %v, and the kind reads %v", kind, got, want)
		}
	}
	for kind, names := range map[string][2]string{
		"webhook.hmac": {"internal/source/webhook", "HMACSettings"}, "webhook.jwt": {"internal/source/webhook", "JWTSettings"},
		"webhook.cloudevents": {"internal/source/webhook", "CloudEventSettings"}, "outbox.columns": {"internal/source/outbox", "columns"},
	} {
		want := keysOf(t, root+names[0], names[1])
		slices.Sort(want)
		if got := manifest.WireKeys(kind); !slices.Equal(got, want) {
			t.Errorf("%s: a manifest can say %v, and the kind reads %v", kind, got, want)
		}
	}
}

// keysOf gives the names in JSON of a struct's fields.
func keysOf(t *testing.T, dir, name string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files, %v", dir, err)
	}
	var keys []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != name {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					if field.Tag == nil {
						continue
					}
					tag, err := strconv.Unquote(field.Tag.Value)
					if err != nil {
						t.Fatal(err)
					}
					if key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); key != "" && key != "-" {
						keys = append(keys, key)
					}
				}
			}
			return false
		})
	}
	if len(keys) == 0 {
		t.Fatalf("%s has no struct %s with names in JSON", dir, name)
	}
	return keys
}

// TestTriggerBoundsAreTheNodes: they are written down twice.
func TestTriggerBoundsAreTheNodes(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string][2]int64{
		"triggers":      {manifest.MaxTriggers, function.MaxTriggers},
		"settings":      {manifest.MaxTriggerSettings, function.MaxTriggerSettings},
		"schema":        {manifest.MaxTriggerSchema, function.MaxTriggerSchema},
		"concurrency":   {manifest.DefaultEventsAtOnce, function.DefaultEventsAtOnce},
		"rate":          {manifest.MaxEventRate, int64(function.MaxEventRate)},
		"attempts":      {manifest.DefaultAttempts, function.DefaultAttempts},
		"most attempts": {manifest.MaxAttempts, function.MaxAttempts},
		"age":           {int64(manifest.DefaultEventAge), int64(function.DefaultEventAge)},
		"longest age":   {int64(manifest.MaxEventAge), int64(function.MaxEventAge)},
		"backoff":       {int64(manifest.DefaultBackoff), int64(function.DefaultBackoff)},
		"last backoff":  {int64(manifest.DefaultBackoffMost), int64(function.DefaultBackoffMost)},
		"most backoff":  {int64(manifest.MaxBackoff), int64(function.MaxBackoff)},
		"backlog":       {manifest.DefaultBacklog, function.DefaultBacklog},
		"batch":         {manifest.MaxBatch, function.MaxBatch},
		"window":        {int64(manifest.MaxBatchWindow), int64(function.MaxBatchWindow)},
		"destinations":  {manifest.MaxDestinations, function.MaxDestinations},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: the manifest says %d, the node %d", name, pair[0], pair[1])
		}
	}
	hook := api.Trigger{Kind: function.KindWebhook, Settings: json.RawMessage(`{"path":"/hooks/x"}`)}
	path, _ := manifest.WebhookPath(&hook)
	if r, ok := (&function.Trigger{Kind: hook.Kind, Settings: hook.Settings}).Route(); !ok || r.Path != path {
		t.Errorf("the manifest finds the path %q, the node %q", path, r.Path)
	}
}
