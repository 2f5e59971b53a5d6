package manifest

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
)

// This file turns the triggers of a function into what a node reads. Values of a wrong
// kind are passed over: the schema reports them.

// triggers converts them, sorted by name: their order says nothing.
func (p *parse) triggers(n *node, prefix string, fn *Function) {
	f := n.get("triggers")
	if f == nil || f.value.kind != object {
		return
	}
	for _, t := range f.value.fields {
		if t.value.kind == object {
			fn.Config.Triggers = append(fn.Config.Triggers, p.trigger(t, prefix+".triggers."+t.key, fn))
		}
	}
	slices.SortFunc(fn.Config.Triggers, func(a, b api.Trigger) int { return strings.Compare(a.Name, b.Name) })
}

func (p *parse) trigger(f field, prefix string, fn *Function) api.Trigger {
	n, t := f.value, api.Trigger{Name: f.key}
	p.text(n, "connection", &t.Connection)
	if kind := p.oneKind(f, prefix); kind != nil {
		t.Kind = kind.key
		t.Settings = p.settings(*kind, prefix+"."+kind.key, &t)
	}
	p.delivery(n, prefix+".delivery", &t.Delivery)
	p.dataSchema(n, prefix, &t, fn)
	return t
}

// oneKind gives the field that says what kind the trigger is of. Without one there is
// nothing to check the rest by.
func (p *parse) oneKind(f field, prefix string) *field {
	var kind *field
	for i := range f.value.fields {
		k := &f.value.fields[i]
		if !slices.Contains(kindNames(), k.key) {
			continue
		}
		if kind != nil {
			p.add(k.place, prefix+"."+k.key, k.key, "a trigger has one source, and this is a second one beside "+kind.key, "give it a trigger of its own, with another name")
			p.unread = append(p.unread, prefix)
			return nil
		}
		kind = k
	}
	if kind == nil {
		if !p.reportedWithin(prefix) { // perhaps by its name, misspelt
			p.add(f.place, prefix, "", "nothing says where the events come from", `write one of `+strings.Join(kindNames(), ", ")+`, as in schedule: {cron: "0 2 * * *"}`)
		}
		p.unread = append(p.unread, prefix)
	}
	return kind
}

// settings converts what stands below the key of a kind.
func (p *parse) settings(f field, prefix string, t *api.Trigger) json.RawMessage {
	if f.value.kind != object {
		return nil
	}
	out, from := map[string]any{}, f.value
	if f.key == sourceConnector {
		p.connector(f, prefix, t)
		if s := from.get("settings"); s != nil && s.value.kind == object {
			for _, own := range s.value.fields {
				out[own.key] = p.free(own.value, prefix+".settings."+own.key)
			}
			if own := s.value.get(filterKey); own != nil {
				p.add(own.place, prefix+".settings."+filterKey, own.key, "the filter is not the program's", "write it beside settings")
			}
		}
		from = &node{}
		if filter := f.value.get(filterKey); filter != nil {
			from.fields = []field{*filter}
		}
	}
	for _, s := range from.fields {
		q, found := quantityOf(func(q quantity) bool { return q.kind == f.key && q.key == s.key })
		if !found {
			out[s.key] = p.free(s.value, prefix+"."+s.key)
			continue
		}
		if v, ok := p.quantity(f.value, prefix, q); ok {
			out[q.wire] = v
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		p.add(f.place, prefix, "", "the settings cannot be written as JSON", "simplify them")
		return nil
	}
	return b
}

// connector takes the kind from the settings of an operator's program.
func (p *parse) connector(f field, prefix string, t *api.Trigger) {
	t.Kind = ""
	k := f.value.get("kind")
	if k == nil || k.value.kind != text {
		p.unread = append(p.unread, strings.TrimSuffix(prefix, "."+f.key)) // the schema asks for it
		return
	}
	if _, known := kindOf(k.value.value); known {
		p.add(k.value.place, prefix+".kind", k.value.value, quote(k.value.value)+" is a kind of its own, and no program's", "write "+k.value.value+" in place of connector, and its settings directly below")
		p.unread = append(p.unread, strings.TrimSuffix(prefix, "."+f.key))
		return
	}
	t.Kind = k.value.value
}

// quantity converts a duration or a size into what the kind reads.
func (p *parse) quantity(n *node, prefix string, q quantity) (any, bool) {
	if q.unit == octets {
		v := int64(-1)
		p.size(n, prefix, q.key, &v, q.least, q.most, q.example)
		return v, v >= 0
	}
	d := time.Duration(-1)
	p.span(n, prefix, q.key, &d, time.Duration(q.least), time.Duration(q.most), q.example)
	switch q.unit {
	case milliseconds:
		return d.Milliseconds(), d >= 0
	case spelled:
		return n.get(q.key).value.value, d >= 0
	default:
		return int64(d), d >= 0
	}
}

// free converts a value whose form the manifest leaves to others.
func (p *parse) free(n *node, name string) any {
	bad := func(message, remedy string) {
		if !p.reportedAt(n.place) {
			p.add(n.place, name, n.value, message, remedy)
		}
	}
	switch n.kind {
	case object:
		m := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			m[f.key] = p.free(f.value, name+"."+f.key)
		}
		return m
	case array:
		l := make([]any, len(n.items))
		for i, it := range n.items {
			l[i] = p.free(it, name+"["+strconv.Itoa(i)+"]")
		}
		return l
	case integer:
		if v, ok := n.integer(); ok {
			return v
		}
		bad(quote(n.value)+" is not a whole number in decimal", "write digits alone; if it is text, put it in quotes")
	case number:
		if json.Valid([]byte(n.value)) {
			return json.Number(n.value)
		}
		bad(quote(n.value)+" is not a number in decimal", "write it as in 0.5; if it is text, put it in quotes")
	case boolean:
		return strings.EqualFold(n.value, "true")
	case null:
		bad("there is no value", "write one behind the colon, or take the key away")
	default:
		return n.value
	}
	return nil
}

func (p *parse) delivery(n *node, prefix string, d *api.Delivery) {
	f := n.get("delivery")
	if f == nil || f.value.kind != object {
		return
	}
	n = f.value
	for key, c := range map[string]struct {
		into *int
		most int64
	}{
		"concurrency": {&d.Concurrency, MaxConcurrency}, "rate": {&d.Rate, MaxEventRate}, "attempts": {&d.Attempts, MaxAttempts},
		"backlog": {&d.Backlog, MaxBacklog}, "batch": {&d.Batch, MaxBatch},
	} {
		var v int64
		p.count(n, prefix, key, &v, 1, c.most)
		*c.into = int(v)
	}
	p.boolean(n, "ordered", &d.Ordered)
	p.text(n, "reply", &d.Reply)
	p.duration(n, prefix, "maxAge", &d.MaxAgeMillis, time.Millisecond, MaxEventAge, "6h")
	p.duration(n, prefix, "backoff", &d.BackoffMillis, time.Millisecond, MaxBackoff, "1s")
	p.duration(n, prefix, "backoffMost", &d.BackoffMostMillis, time.Millisecond, MaxBackoff, "5m")
	p.duration(n, prefix, "batchWindow", &d.BatchWindowMillis, time.Millisecond, MaxBatchWindow, "2s")
	d.OnSuccess, d.OnFailure = p.destinations(n, "onSuccess"), p.destinations(n, "onFailure")
}

func (p *parse) destinations(n *node, key string) []api.Destination {
	f := n.get(key)
	if f == nil || f.value.kind != array {
		return nil
	}
	var out []api.Destination
	for _, it := range f.value.items {
		var d api.Destination
		if it.kind == object {
			p.text(it, "function", &d.Function)
			p.text(it, "topic", &d.Topic)
			p.text(it, "webhook", &d.Webhook)
		}
		out = append(out, d)
	}
	return out
}
