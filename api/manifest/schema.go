package manifest

import (
	"bytes"
	_ "embed" // for the schema
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schema.json
var schemaText string

// SchemaID is the identifier of the schema.
const SchemaID = "https://casemate.dev/schemas/manifest.json"

// Schema returns the JSON Schema (2020-12) of a manifest. Editors use it to
// complete and to explain; Parse applies it and the rules of Check besides.
func Schema() []byte { return []byte(schemaText) }

// part is what is read of the schema to explain an unknown key.
type part struct {
	Properties           map[string]*part `json:"properties"`
	AdditionalProperties json.RawMessage  `json:"additionalProperties"`
	Items                *part            `json:"items"`
	Pattern              string           `json:"pattern"`
	Ref                  string           `json:"$ref"`
	Defs                 map[string]*part `json:"$defs"`
}

type compiledSchema struct {
	validator *jsonschema.Schema
	root      *part
}

// compiled is made from the embedded text at first use, and the same ever after.
var compiled = sync.OnceValue(func() compiledSchema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schemaText))
	if err != nil {
		panic("manifest: embedded schema: " + err.Error()) // a test reads it
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource(SchemaID, doc); err != nil {
		panic("manifest: embedded schema: " + err.Error())
	}
	root := new(part)
	if err := json.Unmarshal([]byte(schemaText), root); err != nil {
		panic("manifest: embedded schema: " + err.Error())
	}
	return compiledSchema{validator: c.MustCompile(SchemaID), root: root}
})

// noLoader keeps the schema from reaching for files or the network.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, &jsonschema.LoadURLError{URL: url} }

// child is the schema of a value below p.
func (p *part) child(segment string, inArray bool) *part {
	if p == nil {
		return nil
	}
	if inArray {
		return p.Items.resolved()
	}
	if c, ok := p.Properties[segment]; ok {
		return c.resolved()
	}
	if bytes.HasPrefix(bytes.TrimSpace(p.AdditionalProperties), []byte("{")) {
		c := new(part)
		if json.Unmarshal(p.AdditionalProperties, c) == nil {
			return c
		}
	}
	return nil
}

// resolved is what a part refers to, or the part itself.
func (p *part) resolved() *part {
	if p == nil || p.Ref == "" {
		return p
	}
	return compiled().root.Defs[strings.TrimPrefix(p.Ref, "#/$defs/")]
}

func (p *part) keys() []string {
	if p == nil {
		return nil
	}
	out := make([]string, 0, len(p.Properties))
	for k := range p.Properties {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// synonyms are words that other tools have for our keys.
func synonyms() map[string]string {
	return map[string]string{
		"env": "environment", "envs": "environment", "vars": "environment", "variables": "environment",
		"route": "http", "routes": "http", "endpoints": "http", "trigger": "triggers", "events": "triggers", "sources": "triggers",
		"ram": "memory", "memorysize": "memory", "src": "source", "dir": "source", "folder": "source", "code": "source",
		"language": "runtime", "lang": "runtime", "main": "entry", "cmd": "command", "args": "command", "start": "command", "scale": "concurrency",
		"url": "path", "uri": "path", "verb": "method", "anonymous": "public", "auth": "public", "maxbody": "bodyLimit",
		"tenant": "namespace", "origin": "origins", "stdout": "output", "logs": "log", "cputime": "cpu", "cpums": "cpu", "fuel": "cpu", "tmp": "scratch", "disk": "scratch", "ephemeralstorage": "scratch", "pids": "processes", "threads": "processes", "subrequests": "calls", "hostcalls": "calls",
		"timer": "schedule", "cron": "schedule", "cronjob": "schedule", "hook": "webhook", "rabbitmq": "amqp", "rabbit": "amqp", "jetstream": "nats",
		"pubsub": "topic", "subscription": "topic", "postgresql": "postgres", "pg": "postgres", "cdc": "postgres", "mysql": "outbox", "mariadb": "outbox",
		"s3": "bucket", "objects": "bucket", "storage": "bucket", "file": "folder", "files": "folder", "directory": "folder", "plugin": "connector",
		"keyvalue": "kv", "timezone": "zone", "tz": "zone", "interval": "every", "retries": "attempts", "maxattempts": "attempts", "maxretries": "attempts",
		"parallelism": "concurrency", "workers": "concurrency", "fifo": "ordered", "ratelimit": "rate", "ttl": "maxAge", "batchsize": "batch",
		"deadletter": "onFailure", "deadletters": "onFailure", "dlq": "onFailure", "credentials": "connection", "secret": "connection", "jsonschema": "schema",
		"why": "reason", "noschema": "reason", "exchange": "queue", "channel": "subject",
	}
}

// unknownKey says what to write instead of a key that is not in the schema at a
// place: the nearest one there, or where it belongs.
func unknownKey(at *part, key string) string {
	keys := at.keys()
	if s, ok := synonyms()[normal(key)]; ok && slices.Contains(keys, s) {
		return "write " + s
	}
	if k := nearest(key, keys); k != "" {
		return "write " + k
	}
	for _, k := range keys { // one level down: output → limits.output
		below := at.child(k, false)
		if below != nil && below.Items != nil {
			below = below.Items
		}
		if n := nearest(key, below.keys()); n != "" {
			return n + " belongs under " + k
		}
	}
	return "take it away; here may stand " + strings.Join(keys, ", ")
}

func normal(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// nearest gives the candidate that s was probably meant to be, or "".
func nearest(s string, candidates []string) string {
	if s == "" || len(s) > 64 {
		return ""
	}
	best, least := "", 1+min(2, max(1, len(s)/3))
	for _, c := range candidates {
		if d := distance(normal(s), normal(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour (optimal string alignment).
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
