package registry

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// Delta is one difference between two versions, in the words of the manifest.
type Delta struct {
	Field string
	From  string
	To    string
}

// diff lists what changes from one version to another, sorted by field, the code
// first. from may be nil: then everything is new.
func diff(from, to *function.Version) []Delta {
	var ds []Delta
	old := map[string]string{}
	code := ""
	if from != nil {
		old, code = fields(&from.Config), from.Artifact.Short()
	}
	if code != to.Artifact.Short() {
		ds = append(ds, Delta{"code", code, to.Artifact.Short()})
	}
	next := fields(&to.Config)
	names := make([]string, 0, len(next))
	for name := range next {
		names = append(names, name)
	}
	for name := range old {
		if _, both := next[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if a, b := old[name], next[name]; a != b {
			ds = append(ds, Delta{name, a, b})
		}
	}
	return ds
}

// fields spells a configuration out, one value a field.
func fields(c *function.Config) map[string]string {
	l := &c.Limits
	f := map[string]string{
		"runtime":              string(c.Runtime),
		"entry":                string(c.Entry),
		"handler":              c.Handler,
		"command":              strings.Join(c.Command, " "),
		"isolation":            string(c.Isolation),
		"sandbox":              string(c.Sandbox),
		"memory":               size(l.Memory),
		"timeout":              l.Timeout.String(),
		"limits.cpu":           l.ComputeTime().String(),
		"limits.calls":         count(l.HostCalls()),
		"limits.output":        size(l.Output),
		"limits.log":           size(l.Log),
		"concurrency.max":      strconv.Itoa(l.Concurrency),
		"concurrency.reserved": strconv.Itoa(l.Reserved),
	}
	if c.Runtime.Native() {
		delete(f, "limits.calls") // it has no host to call
		f["scratch"], f["processes"] = size(l.Scratch), strconv.Itoa(l.Processes)
	}
	for name, value := range c.Environment {
		f["environment."+name] = strconv.Quote(value)
	}
	for _, t := range c.HTTP {
		at := routeField(&t)
		f[at] = "with a key"
		if t.Public {
			f[at] = "public"
		}
		f[at+".bodyLimit"] = size(t.BodyLimit)
		if t.CORS == nil {
			continue
		}
		f[at+".cors.origins"] = strings.Join(t.CORS.Origins, " ")
		f[at+".cors.methods"] = strings.Join(t.CORS.Methods, " ")
		f[at+".cors.headers"] = strings.Join(t.CORS.Headers, " ")
		f[at+".cors.expose"] = strings.Join(t.CORS.Expose, " ")
		f[at+".cors.credentials"] = strconv.FormatBool(t.CORS.Credentials)
		f[at+".cors.maxAge"] = t.CORS.MaxAge.String()
	}
	triggerFields(f, c.Triggers)
	for name, value := range f {
		if value == "" {
			delete(f, name)
		}
	}
	return f
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

func routeField(t *function.HTTPTrigger) string { return "http[" + t.Method + " " + t.Path + "]" }

// size writes bytes as a manifest does.
func size(n int64) string {
	switch {
	case n != 0 && n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "Gi"
	case n != 0 && n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "Mi"
	case n != 0 && n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "Ki"
	}
	return strconv.FormatInt(n, 10)
}

// warnings names what opens the function wider than it was. from is nil for a
// function that is new; then only what strangers can reach is worth a word.
func warnings(from, to *function.Config) []string {
	var ws []string
	warn := func(format string, args ...any) { ws = append(ws, fmt.Sprintf(format, args...)) }
	old := map[string]*function.HTTPTrigger{}
	if from != nil {
		raised(warn, "memory", from.Limits.Memory, to.Limits.Memory, size)
		raised(warn, "timeout", from.Limits.Timeout, to.Limits.Timeout, time.Duration.String)
		raised(warn, "limits.cpu", from.Limits.ComputeTime(), to.Limits.ComputeTime(), time.Duration.String)
		raised(warn, "limits.calls", from.Limits.HostCalls(), to.Limits.HostCalls(), count)
		raised(warn, "limits.output", from.Limits.Output, to.Limits.Output, size)
		raised(warn, "limits.log", from.Limits.Log, to.Limits.Log, size)
		raised(warn, "scratch", from.Limits.Scratch, to.Limits.Scratch, size)
		raised(warn, "processes", from.Limits.Processes, to.Limits.Processes, strconv.Itoa)
		if from.Runtime.Native() == to.Runtime.Native() {
			if from.Isolation == function.IsolationInvocation && to.Isolation == function.IsolationInstance {
				warn("isolation is lowered from invocation to instance: what one invocation leaves behind, the next can find")
			}
			if from.Sandbox == function.SandboxGVisor && to.Sandbox == "" {
				warn("sandbox is lowered from gvisor to the machine's own kernel")
			}
		} else if to.Runtime.Native() {
			warn("runtime %s runs as machine code in a process of its own, where %s ran as a module", to.Runtime, from.Runtime)
		}
		raised(warn, "concurrency.max", from.Limits.Concurrency, to.Limits.Concurrency, strconv.Itoa)
		raised(warn, "concurrency.reserved", from.Limits.Reserved, to.Limits.Reserved, strconv.Itoa)
		for i := range from.HTTP {
			t := &from.HTTP[i]
			old[t.Method+" "+t.Path] = t
		}
	}
	for i := range to.HTTP {
		t := &to.HTTP[i]
		route := t.Method + " " + t.Path
		was := old[route]
		if t.Public && (was == nil || !was.Public) {
			warn("route %s becomes public: anybody who reaches the gateway can call it", route)
		}
		if was != nil {
			raised(warn, "bodyLimit of route "+route, was.BodyLimit, t.BodyLimit, size)
		}
		var wasCORS *function.CORS
		if was != nil {
			wasCORS = was.CORS
		}
		widened(warn, route, wasCORS, t.CORS, was != nil)
	}
	triggerWarnings(warn, from, to)
	return ws
}

func raised[T int | int64 | time.Duration](warn func(string, ...any), what string, from, to T, text func(T) string) {
	if to > from {
		warn("%s is raised from %s to %s", what, text(from), text(to))
	}
}

// widened warns of web pages that gain access. On a route that is new, naming
// origins is the developer's plain wish; only a wildcard is pointed out.
func widened(warn func(string, ...any), route string, from, to *function.CORS, existed bool) {
	if to == nil {
		return
	}
	if from == nil {
		from = &function.CORS{}
	}
	if slices.Contains(to.Origins, "*") && !slices.Contains(from.Origins, "*") {
		warn("route %s answers web pages of every origin", route)
	}
	if to.Credentials && !from.Credentials {
		warn("route %s takes credentials from web pages of other origins", route)
	}
	if !existed {
		return
	}
	for _, part := range []struct {
		what     string
		from, to []string
	}{
		{"origin", from.Origins, to.Origins},
		{"method", from.Methods, to.Methods},
		{"request header", from.Headers, to.Headers},
		{"response header", from.Expose, to.Expose},
	} {
		for _, value := range part.to {
			if value != "*" && !slices.Contains(part.from, value) {
				warn("route %s allows web pages one more %s, %s", route, part.what, value)
			}
			if value == "*" && part.what != "origin" && !slices.Contains(part.from, "*") {
				warn("route %s allows web pages every %s", route, part.what)
			}
		}
	}
}
