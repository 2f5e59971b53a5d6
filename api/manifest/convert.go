package manifest

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// manifest converts the tree. Values of a wrong kind are passed over here: the
// schema reports them.
func (p *parse) manifest(root *node) *Manifest {
	m := &Manifest{Namespace: DefaultNamespace}
	if f := root.get("namespace"); f != nil && f.value.kind == text {
		m.Namespace = f.value.value
		if !namePattern.MatchString(m.Namespace) {
			c := &check{}
			c.name("namespace", "namespace", m.Namespace)
			p.report(c.issues, "", func(string) place { return f.value.place })
		}
	}
	functions := root.get("functions")
	if functions == nil || functions.value.kind != object {
		return m
	}
	if n := len(functions.value.fields); n > MaxFunctions {
		p.add(functions.place, "functions", "", fmt.Sprintf("%d functions are more than the %d allowed", n, MaxFunctions), "split the manifest: each folder can have one of its own")
		return m
	}
	routes := &routeSet{}
	for _, f := range functions.value.fields {
		if f.value.kind != object {
			continue
		}
		fn := p.function(f)
		m.Functions = append(m.Functions, fn)
		p.conflicts(routes, fn, f)
	}
	return m
}

func (p *parse) function(f field) Function {
	n := f.value
	prefix := "functions." + f.key
	fn := Function{Name: f.key, Source: ".", Line: f.line}
	cfg := &fn.Config
	p.text(n, "runtime", &cfg.Runtime)
	p.text(n, "entry", &cfg.Entry)
	p.text(n, "handler", &cfg.Handler)
	cfg.Command = list(n, "command")
	p.text(n, "isolation", &cfg.Isolation)
	p.text(n, "sandbox", &cfg.Sandbox)
	p.size(n, prefix, "memory", &cfg.MemoryBytes, MinMemory, MaxMemory, "128Mi")
	p.size(n, prefix, "scratch", &cfg.ScratchBytes, MinScratch, MaxScratch, "64Mi")
	var processes int64
	p.count(n, prefix, "processes", &processes, 1, MaxProcesses)
	cfg.Processes = int(processes)
	p.duration(n, prefix, "timeout", &cfg.TimeoutMillis, MinTimeout, MaxTimeout, "10s")
	if l := n.get("limits"); l != nil {
		p.duration(l.value, prefix+".limits", "cpu", &cfg.CPUMillis, MinCPU, MaxCPU, "500ms")
		p.count(l.value, prefix+".limits", "calls", &cfg.Calls, 1, MaxCalls)
		p.size(l.value, prefix+".limits", "output", &cfg.OutputBytes, 1, MaxOutput, "6Mi")
		p.size(l.value, prefix+".limits", "log", &cfg.LogBytes, 1, MaxLog, "64Ki")
	}
	if c := n.get("concurrency"); c != nil {
		var most, reserved int64
		p.count(c.value, prefix+".concurrency", "max", &most, 1, MaxConcurrency)
		p.count(c.value, prefix+".concurrency", "reserved", &reserved, 0, MaxConcurrency)
		cfg.Concurrency.Max, cfg.Concurrency.Reserved = int(most), int(reserved)
	}
	if e := n.get("environment"); e != nil && e.value.kind == object {
		cfg.Environment = make(map[string]string, len(e.value.fields))
		for _, v := range e.value.fields {
			switch v.value.kind {
			case text, integer, number: // a number is wrong, and perhaps a secret besides
				cfg.Environment[v.key] = v.value.value
			default: // reported by its kind
			}
		}
	}
	if h := n.get("http"); h != nil && h.value.kind == array {
		for i, r := range h.value.items {
			cfg.HTTP = append(cfg.HTTP, p.route(r, fmt.Sprintf("%s.http[%d]", prefix, i)))
		}
	}
	p.triggers(n, prefix, &fn)
	p.source(n, prefix, &fn)
	p.report(Check(f.key, fn.Config), prefix, func(at string) place { return f.locate(at) })
	return fn
}

func (p *parse) route(n *node, prefix string) api.HTTPTrigger {
	var r api.HTTPTrigger
	if n.kind != object {
		return r
	}
	p.text(n, "method", &r.Method)
	p.text(n, "path", &r.Path)
	p.boolean(n, "public", &r.Public)
	p.size(n, prefix, "bodyLimit", &r.BodyLimit, 1, MaxBody, "1Mi")
	if c := n.get("cors"); c != nil && c.value.kind == object {
		r.CORS = &api.CORS{
			Origins: list(c.value, "origins"), Methods: list(c.value, "methods"),
			Headers: list(c.value, "headers"), Expose: list(c.value, "expose"),
		}
		p.boolean(c.value, "credentials", &r.CORS.Credentials)
		p.duration(c.value, prefix+".cors", "maxAge", &r.CORS.MaxAgeMillis, 0, MaxCORSAge, "10m")
	}
	return r
}

// source checks what only the client uses: where the code is.
func (p *parse) source(n *node, prefix string, fn *Function) {
	f := n.get("source")
	if f == nil {
		if fn.Config.Runtime == "wasm" {
			r := n.get("runtime")
			p.add(r.value.place, prefix+".source", "", "source is missing: the runtime wasm has no folder to build", "name the module, as in source: build/"+shown(fn.Name)+".wasm")
		}
		return
	}
	if f.value.kind != text {
		return
	}
	s := f.value.value
	at := func(message, remedy string) { p.add(f.value.place, prefix+".source", s, message, remedy) }
	switch {
	case s == "":
		at("source is empty", `write a folder, or "." for the manifest's own`)
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "~") || (len(s) > 1 && s[1] == ':'):
		at("source must be relative to the manifest, not "+quote(s), "write the way from the manifest's folder, as in functions/hello")
	case strings.ContainsAny(s, "\\\x00"):
		at("source holds a character that no path here has", "write slashes: functions/hello")
	case fn.Config.Runtime == "wasm" && !strings.HasSuffix(s, ".wasm"):
		at(quote(s)+" is not a .wasm file", "name the module, as in source: build/hello.wasm; or name the language as runtime to have it built")
	case fn.Config.Runtime != "wasm" && strings.HasSuffix(s, ".wasm"):
		at("a built module does not go with the runtime "+quote(fn.Config.Runtime), "write runtime: wasm, or name the folder with the code as source")
	default:
		fn.Source = path.Clean(s)
	}
}

// conflicts finds functions of one manifest whose routes cannot be told apart.
func (p *parse) conflicts(set *routeSet, fn Function, f field) {
	for i, r := range fn.Config.HTTP {
		c, own := &check{}, routeSet{}
		c.method("", r.Method, methods())
		c.path("", r.Path)
		if len(c.issues) > 0 || !own.alone(fn.Config.HTTP[:i], r) {
			continue // reported already
		}
		if other, taken := set.add(r.Method, r.Path, fn.Name); taken {
			at := fmt.Sprintf("http[%d].path", i)
			p.add(f.locate(at), "functions."+fn.Name+"."+at, r.Path, quote(r.Method+" "+r.Path)+" matches the same requests as a route of the function "+quote(other), "choose another path for one of the two")
		}
	}
	for i := range fn.Config.Triggers {
		t := &fn.Config.Triggers[i]
		at := "triggers." + t.Name + ".webhook.path"
		r, ok := WebhookPath(t)
		if !ok || !webhookPattern.MatchString(r) || p.reported("functions."+fn.Name+"."+at) {
			continue
		}
		if other, taken := set.add("POST", r, fn.Name); taken {
			p.add(f.locate(at), "functions."+fn.Name+"."+at, r, "requests to "+quote(r)+" go to a route of the function "+quote(other)+" too", "choose another path for one of the two")
		}
	}
}

// report turns broken rules into issues at their places.
func (p *parse) report(issues []FieldIssue, prefix string, locate func(string) place) {
	for _, i := range issues {
		at := locate(i.Field)
		if at.line == 0 {
			continue
		}
		name := strings.TrimPrefix(prefix+"."+i.Field, ".")
		name = strings.TrimSuffix(name, ".")
		if i.Code != problem.SecretInConfig && (i.Field != "" && p.reported(name) || p.within(name)) {
			continue // by those who saw more: 0 as against nothing, a number for text
		}
		p.add(at, shown(name), "", i.Message, i.Remedy)
		last := &p.issues[len(p.issues)-1]
		last.Text, last.Code = i.Text, i.Code
		if i.Code == problem.SecretInConfig {
			last.Length = 1 // of the name: nothing of the value is marked
		}
	}
}

func (p *parse) reported(name string) bool {
	for _, i := range p.issues {
		if i.Field == name {
			return true
		}
	}
	return false
}

// within reports whether a field is, or is part of, one that could not be read.
func (p *parse) within(name string) bool {
	for _, u := range p.unread {
		if rest, ok := strings.CutPrefix(name, u); ok && (rest == "" || u == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// locate finds the place of a field of a function, or of the nearest thing around it.
func (f field) locate(name string) place {
	at, n := f.place, f.value
	if variable, ok := strings.CutPrefix(name, "environment."); ok {
		if e := n.get("environment"); e != nil {
			if v := e.value.get(variable); v != nil {
				return v.place
			}
			return e.place
		}
		return at
	}
	if below, ok := strings.CutPrefix(name, "triggers."); ok {
		at, n, name = f.locateTrigger(below)
	}
	for name != "" && n != nil {
		segment, rest, _ := strings.Cut(name, ".")
		segment, index, indexed := strings.Cut(segment, "[")
		name = rest
		next := n.get(segment)
		if next == nil {
			return at
		}
		at, n = next.place, next.value
		if n.kind != object && n.kind != array && n.kind != null {
			at = n.place
		}
		if i, err := strconv.Atoi(strings.TrimSuffix(index, "]")); indexed && err == nil {
			if i >= len(n.items) {
				return at
			}
			n = n.items[i]
			at = n.place
		}
	}
	return at
}

// locateTrigger finds a trigger by the whole of its key, which may hold a dot.
func (f field) locateTrigger(name string) (at place, n *node, rest string) {
	triggers := f.value.get("triggers")
	if triggers == nil {
		return f.place, nil, ""
	}
	if triggers.value.kind != object {
		return triggers.place, nil, ""
	}
	for _, t := range triggers.value.fields {
		if name == t.key {
			return t.place, t.value, ""
		}
		if below, ok := strings.CutPrefix(name, t.key+"."); ok {
			return t.place, t.value, below
		}
	}
	return triggers.place, nil, ""
}

func (p *parse) text(n *node, key string, into *string) {
	if f := n.get(key); f != nil && f.value.kind == text {
		*into = f.value.value
	}
}

func (p *parse) boolean(n *node, key string, into *bool) {
	if f := n.get(key); f != nil && f.value.kind == boolean {
		*into = strings.EqualFold(f.value.value, "true")
	}
}

// count reads a whole number; least tells a written 0 from none.
func (p *parse) count(n *node, prefix, key string, into *int64, least, most int64) {
	f := n.get(key)
	if f == nil || f.value.kind != integer || p.reported(prefix+"."+key) {
		return
	}
	v, ok := f.value.integer()
	if !ok || v < least || v > most {
		p.add(f.value.place, prefix+"."+key, f.value.value, fmt.Sprintf("%s is outside of %d to %d", shown(f.value.value), least, most), fmt.Sprintf("write a number from %d to %d", least, most))
		return
	}
	*into = v
}

func (p *parse) size(n *node, prefix, key string, into *int64, least, most int64, example string) {
	f := n.get(key)
	if f == nil || (f.value.kind != text && f.value.kind != integer && f.value.kind != number) {
		return
	}
	s := f.value.value
	v, err := ParseSize(s)
	switch {
	case err != nil:
		p.add(f.value.place, prefix+"."+key, s, quote(s)+" is not a size", sizeRemedy(s, example))
	case v < least:
		remedy := sizeBounds(least, most)
		if f.value.kind == integer && v > 0 {
			remedy += "; a number alone is bytes, so perhaps " + s + "Mi"
		}
		p.add(f.value.place, prefix+"."+key, s, s+" is less than the "+FormatSize(least)+" allowed at least", remedy)
	case v > most:
		p.add(f.value.place, prefix+"."+key, s, s+" is more than the "+FormatSize(most)+" allowed", sizeBounds(least, most))
	default:
		*into = v
	}
}

func (p *parse) duration(n *node, prefix, key string, into *int64, least, most time.Duration, example string) {
	d := time.Duration(*into) * time.Millisecond
	p.span(n, prefix, key, &d, least, most, example)
	*into = d.Milliseconds()
}

func (p *parse) span(n *node, prefix, key string, into *time.Duration, least, most time.Duration, example string) {
	f := n.get(key)
	if f == nil || (f.value.kind != text && f.value.kind != integer && f.value.kind != number) {
		return
	}
	s := f.value.value
	v, err := ParseDuration(s)
	switch {
	case err != nil && f.value.kind != text:
		p.add(f.value.place, prefix+"."+key, s, shown(s)+" has no unit", durationRemedy(s, example))
	case err != nil:
		p.add(f.value.place, prefix+"."+key, s, quote(s)+" is not a duration", durationRemedy(s, example))
	case v < least:
		p.add(f.value.place, prefix+"."+key, s, s+" is less than the "+FormatDuration(least)+" allowed at least", durationBounds(least, most))
	case v > most:
		p.add(f.value.place, prefix+"."+key, s, s+" is more than the "+FormatDuration(most)+" allowed", durationBounds(least, most))
	default:
		*into = v
	}
}

// list reads a list of text; an item of another kind holds its place.
func list(n *node, key string) []string {
	f := n.get(key)
	if f == nil || f.value.kind != array {
		return nil
	}
	out := make([]string, 0, len(f.value.items))
	for _, it := range f.value.items {
		out = append(out, it.value)
	}
	return out
}
