package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// This file says what the rules know of the kinds of triggers. Which keys a kind has
// stands in schema.json alone; what they may hold, beyond form, the node's kinds check.

// PlatformData is the reason that holds for a trigger without a schema whose data the
// platform makes itself.
const PlatformData = "the platform makes the data"

// sourceConnector is the key of the kinds that an operator installs.
const sourceConnector = "connector"

// need says whether a kind has a connection.
type need int

const (
	noConnection need = iota
	mayConnect
	mustConnect
)

// sourceKind is a kind of trigger.
type sourceKind struct {
	name       string
	connection need
	outside    bool // the data is made outside, so that a schema is asked for
}

func sourceKinds() []sourceKind {
	return []sourceKind{
		{"schedule", noConnection, false},
		{"webhook", mustConnect, true},
		{"topic", noConnection, true},
		{"nats", mustConnect, true},
		{"amqp", mustConnect, true},
		{"kafka", mustConnect, true},
		{"mqtt", mustConnect, true},
		{"redis", mustConnect, true},
		{"sqs", mustConnect, true},
		{"postgres", mustConnect, true},
		{"outbox", mustConnect, true},
		{"kv", noConnection, false},
		{"bucket", mayConnect, false},
		{"folder", noConnection, false},
	}
}

// kindNames are the keys that name a kind.
func kindNames() []string {
	var out []string
	for _, k := range sourceKinds() {
		out = append(out, k.name)
	}
	return append(out, sourceConnector)
}

// kindOf gives the rules of a kind. One that is not known is an operator's.
func kindOf(name string) (k sourceKind, known bool) {
	kinds := sourceKinds()
	if i := slices.IndexFunc(kinds, func(k sourceKind) bool { return k.name == name }); i >= 0 {
		return kinds[i], true
	}
	return sourceKind{name: name, connection: mayConnect, outside: true}, false
}

// kindKey is the key below which a manifest has the settings of a kind.
func kindKey(kind string) string {
	if _, known := kindOf(kind); known {
		return kind
	}
	return sourceConnector
}

// unit is how a kind reads a quantity that a manifest has as a duration or a size.
type unit int

const (
	nanoseconds unit = iota
	milliseconds
	spelled // a duration that stays text
	octets
)

// quantity is a setting that is a duration or a size. Bounds are nanoseconds or bytes,
// and those of the kind.
type quantity struct {
	kind, key   string
	wire        string // its name in the settings that a node reads
	unit        unit
	least, most int64
	example     string
}

const (
	maxObject = 1 << 50 // bytes: more than any far side holds
	ms        = int64(time.Millisecond)
	sec       = int64(time.Second)
	hour      = int64(time.Hour)
)

// quantities is the one table of them.
func quantities() []quantity {
	return []quantity{
		{"schedule", "every", "every", spelled, sec, 366 * 24 * hour, "15m"},
		{"webhook", "tolerance", "tolerance", spelled, sec, hour, "5m"},
		{"webhook", "keep", "keep", spelled, 2 * sec, 7 * 24 * hour, "24h"},
		{"redis", "claimAfter", "claimAfter", spelled, sec, 24 * hour, "1m"},
		{"sqs", "visibility", "visibility", spelled, 2 * sec, 12 * hour, "1m"},
		{"sqs", "wait", "wait", spelled, 0, 20 * sec, "20s"},
		{"postgres", "lagAlert", "lagAlertBytes", octets, 1, maxObject, "1Gi"},
		{"outbox", "poll", "pollMillis", milliseconds, 10 * ms, hour, "100ms"},
		{"outbox", "maxPoll", "maxPollMillis", milliseconds, 10 * ms, hour, "2s"},
		{"bucket", "minSize", "minSize", octets, 0, maxObject, "1Ki"},
		{"bucket", "maxSize", "maxSize", octets, 1, maxObject, "10Mi"},
		{"bucket", "interval", "intervalNanos", nanoseconds, sec, 24 * hour, "1m"},
		{"folder", "minSize", "minSize", octets, 0, maxObject, "1Ki"},
		{"folder", "maxSize", "maxSize", octets, 1, maxObject, "10Mi"},
		{"folder", "settle", "settleNanos", nanoseconds, ms, 10 * 60 * sec, "2s"},
	}
}

func quantityOf(is func(q quantity) bool) (quantity, bool) {
	all := quantities()
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], true
	}
	return quantity{}, false
}

// written is the value that a manifest has for one that a node has.
func (q quantity) written(v json.Number) (string, bool) {
	n, err := v.Int64()
	if err != nil {
		return "", false
	}
	switch q.unit {
	case nanoseconds:
		return FormatDuration(time.Duration(n)), true
	case milliseconds:
		if n < 0 || n > MaxEventAge.Milliseconds() {
			return "", false
		}
		return FormatDuration(time.Duration(n) * time.Millisecond), true
	case octets:
		return FormatSize(n), true
	default:
		return "", false
	}
}

// SpellSettings writes out the settings of a trigger in the words of a manifest, from the
// trigger down, one value a field: schedule.cron, webhook.jwt.issuer, bucket.interval. It
// is for people to compare; settings that are no JSON object have no fields.
func SpellSettings(kind string, settings json.RawMessage) map[string]string {
	out := map[string]string{}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(settings))
	d.UseNumber()
	if len(settings) > MaxTriggerSettings || d.Decode(&fields) != nil {
		return out
	}
	prefix := kindKey(kind)
	if prefix == sourceConnector {
		out[prefix+".kind"] = kind
	}
	for key, v := range fields {
		q, found := quantityOf(func(q quantity) bool { return q.kind == kind && q.wire == key })
		if n, ok := v.(json.Number); found && ok {
			if text, ok := q.written(n); ok {
				out[prefix+"."+q.key] = text
				continue
			}
		}
		at := prefix + "." + key
		switch {
		case key == filterKey:
			out[at] = spell(v)
		case prefix == sourceConnector:
			spellOut(out, prefix+".settings."+key, v)
		default:
			spellOut(out, at, v)
		}
	}
	return out
}

func spellOut(out map[string]string, at string, v any) {
	fields, ok := v.(map[string]any)
	if !ok || len(fields) == 0 {
		out[at] = spell(v)
		return
	}
	for key, below := range fields {
		spellOut(out, at+"."+key, below)
	}
}

// spell writes a value on one line: text and lists of it as they read, when they can be
// told from anything else, and the rest as JSON.
func spell(v any) string {
	switch v := v.(type) {
	case string:
		if plainText(v) {
			return v
		}
	case []any:
		words := make([]string, len(v))
		for i, item := range v {
			s, ok := item.(string)
			if !ok || !plainText(s) || strings.ContainsAny(s, " ,") {
				words = nil
				break
			}
			words[i] = s
		}
		if len(words) > 0 {
			return strings.Join(words, " ")
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return strconv.Quote("?") // what came from JSON can be written as JSON
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func plainText(s string) bool {
	return s != "" && strings.TrimSpace(s) == s && s[0] != '"' && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
