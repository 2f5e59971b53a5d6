package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// What holds when a manifest is silent, and the bounds of what it may say. A
// node has the same ones.
const (
	DefaultMemory      int64 = 128 << 20
	MinMemory          int64 = 1 << 20
	MaxMemory          int64 = 2 << 30
	DefaultTimeout           = 10 * time.Second
	MinTimeout               = time.Millisecond
	MaxTimeout               = 15 * time.Minute
	DefaultCPU               = 10 * time.Second
	MinCPU                   = time.Millisecond
	MaxCPU                   = 15 * time.Minute
	DefaultCalls       int64 = 100_000
	MaxCalls           int64 = 100_000_000
	DefaultOutput      int64 = 6 << 20
	MaxOutput          int64 = 32 << 20
	DefaultLog         int64 = 64 << 10
	MaxLog             int64 = 1 << 20
	DefaultBody        int64 = 1 << 20
	MaxBody            int64 = 6 << 20
	DefaultConcurrency       = 64
	MaxConcurrency           = 1000
	MaxCORSAge               = 24 * time.Hour // browsers use no more

	MaxFunctions        = 100
	MaxRoutes           = 32
	MaxPath             = 512 // bytes
	MaxVariables        = 64
	MaxVariableValue    = 4096     // characters
	MaxEnvironment      = 64 << 10 // bytes of names and values together
	maxOrigins          = 32
	maxCORSMethods      = 16
	maxCORSHeaders      = 32
	maxCORSItem         = 256
	reservedVariable    = "CASEMATE_"
	namespacePathPrefix = "/~"
	platformPathPrefix  = "/.casemate"
	lambdaPath          = "/2015-03-31"
)

const (
	nameForm     = `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`
	variableForm = `^[A-Za-z_][A-Za-z0-9_]{0,127}$`
)

var (
	namePattern     = regexp.MustCompile(nameForm)
	variablePattern = regexp.MustCompile(variableForm)
)

// The values that a field may have.
func runtimes() []string {
	return append([]string{"go", "rust", "c", "assemblyscript", "js", "ts", "wasm"}, nativeRuntimes()...)
}
func entries() []string { return []string{"command", "handle"} }
func methods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY"}
}

// script reports whether a runtime takes source text to the node, and no module.
func script(runtime string) bool { return runtime == "js" || runtime == "ts" }

// FieldIssue is one rule that a configuration breaks. No secret is in it.
type FieldIssue struct {
	Field   string       // as in a manifest, from the function down: memory, http[0].path, environment.NAME; empty: its name
	Code    problem.Code // invalid_manifest or secret_in_config
	Text    string       // the offending text, masked if it is a secret
	Message string
	Remedy  string
}

// check collects issues of one function.
type check struct{ issues []FieldIssue }

func (c *check) add(field, text, message, remedy string) {
	c.issues = append(c.issues, FieldIssue{Field: field, Code: problem.InvalidManifest, Text: shown(text), Message: redact(message), Remedy: redact(remedy)})
}

// Check applies the rules to a function's name and configuration, where zero
// means the default. An empty result means that a node accepts both. The order
// of the result does not vary.
func Check(name string, cfg api.FunctionConfig) []FieldIssue {
	c := &check{}
	if !namePattern.MatchString(name) {
		c.name("", "function", name)
	}
	c.oneOf("runtime", cfg.Runtime, runtimes())
	if cfg.Entry != "" && !Native(cfg.Runtime) {
		c.oneOf("entry", cfg.Entry, entries())
	}
	if script(cfg.Runtime) && cfg.Entry == "command" {
		c.add("entry", cfg.Entry, "the runtime "+cfg.Runtime+" has no entry command", "leave entry out: the default export's fetch is called for each request")
	}
	c.native(&cfg)
	c.isolation(cfg.Runtime, cfg.Isolation)
	c.size("memory", cfg.MemoryBytes, MinMemory, MaxMemory)
	c.duration("timeout", cfg.TimeoutMillis, MinTimeout, MaxTimeout)
	c.duration("limits.cpu", cfg.CPUMillis, MinCPU, MaxCPU)
	c.count("limits.calls", cfg.Calls, MaxCalls)
	c.size("limits.output", cfg.OutputBytes, 1, MaxOutput)
	c.size("limits.log", cfg.LogBytes, 1, MaxLog)
	c.concurrency(cfg.Concurrency)
	c.environment(cfg.Environment)
	c.routes(cfg.HTTP)
	c.triggers(&cfg)
	return c.issues
}

func (c *check) name(field, what, name string) {
	remedy := nameRemedy
	if guess := labelOf(name); guess != "" && guess != name {
		remedy = "write " + guess + " (" + remedy + ")"
	}
	c.add(field, name, quote(name)+" cannot name a "+what, remedy)
}

// labelOf makes the label that is nearest to s, or gives "".
func labelOf(s string) string {
	if len(s) > 200 || redact(s) != s { // a guess would show what is masked
		return ""
	}
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r == '_' || r == ' ' || r == '.' || r == '/':
			return '-'
		case r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		default:
			return -1
		}
	}, s)
	mapped = strings.Trim(strings.TrimLeft(mapped, "0123456789-"), "-")
	if !namePattern.MatchString(mapped) {
		return ""
	}
	return mapped
}

func (c *check) oneOf(field, value string, allowed []string) {
	if slices.Contains(allowed, value) {
		return
	}
	if value == "" {
		c.add(field, "", field+" is missing", "write one of "+strings.Join(allowed, ", "))
		return
	}
	remedy := "write one of " + strings.Join(allowed, ", ")
	if guess := otherRuntime(value); guess != "" && field == "runtime" { // before nearest, to which rs is almost ts
		remedy = "write " + guess
	} else if guess := nearest(value, allowed); guess != "" {
		remedy = "write " + guess
	}
	c.add(field, value, "there is no "+field+" "+quote(value), remedy)
}

// isolation checks what separates two invocations. Modules always have the strictest.
func (c *check) isolation(runtime, v string) {
	const strictest = "leave it out, or write invocation: each invocation gets a state that nobody used before"
	switch v {
	case "", "invocation":
	case "instance":
		if !Native(runtime) {
			c.add("isolation", v, "isolation "+quote(v)+" goes with the runtimes "+strings.Join(nativeRuntimes(), ", "), strictest)
		}
	case "gvisor":
		c.add("isolation", v, "gvisor is a kind of sandbox, not of isolation", "write sandbox: gvisor, with one of the runtimes "+strings.Join(nativeRuntimes(), ", "))
	default:
		if Native(runtime) {
			c.add("isolation", v, "there is no isolation "+quote(v), "write instance, which is the default, or invocation")
			return
		}
		c.add("isolation", v, "there is no isolation "+quote(v), strictest)
	}
}

func (c *check) size(field string, n, least, most int64) {
	switch {
	case n == 0:
	case n < least:
		c.add(field, FormatSize(n), FormatSize(n)+" is less than the "+FormatSize(least)+" allowed at least", sizeBounds(least, most))
	case n > most:
		c.add(field, FormatSize(n), FormatSize(n)+" is more than the "+FormatSize(most)+" allowed", sizeBounds(least, most))
	}
}

// count checks a whole number, where 0 stands for the default.
func (c *check) count(field string, n, most int64) {
	if n < 0 || n > most {
		c.add(field, fmt.Sprint(n), fmt.Sprintf("%d is outside of 1 to %d", n, most), fmt.Sprintf("write a number from 1 to %d", most))
	}
}

func sizeBounds(least, most int64) string {
	return "write a size from " + FormatSize(least) + " to " + FormatSize(most)
}

func (c *check) duration(field string, millis int64, least, most time.Duration) {
	switch {
	case millis == 0:
	case millis < least.Milliseconds():
		c.add(field, "", "the time is less than the "+FormatDuration(least)+" allowed at least", durationBounds(least, most))
	case millis > most.Milliseconds():
		c.add(field, "", "the time is more than the "+FormatDuration(most)+" allowed", durationBounds(least, most))
	}
}

func durationBounds(least, most time.Duration) string {
	return "write a time from " + FormatDuration(least) + " to " + FormatDuration(most)
}

func (c *check) concurrency(v api.Concurrency) {
	most := v.Max
	if most == 0 {
		most = DefaultConcurrency
	}
	if v.Max < 0 || v.Max > MaxConcurrency {
		c.add("concurrency.max", fmt.Sprint(v.Max), fmt.Sprintf("%d is outside of 1 to %d", v.Max, MaxConcurrency), fmt.Sprintf("write a number from 1 to %d", MaxConcurrency))
		return
	}
	switch {
	case v.Reserved < 0:
		c.add("concurrency.reserved", fmt.Sprint(v.Reserved), fmt.Sprintf("%d places cannot be reserved", v.Reserved), "write 0 or more")
	case v.Reserved > most:
		c.add("concurrency.reserved", fmt.Sprint(v.Reserved), fmt.Sprintf("%d reserved places are more than the %d that may run at once", v.Reserved, most), "reserve fewer, or raise concurrency.max")
	}
}

func (c *check) environment(env map[string]string) {
	if len(env) > MaxVariables {
		c.add("environment", "", fmt.Sprintf("%d variables are more than the %d allowed", len(env), MaxVariables), "keep what the function reads; put data into its code")
		return
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value, field := env[name], "environment."+name
		total += len(name) + len(value)
		switch {
		case !variablePattern.MatchString(name):
			c.add(field, name, quote(name)+" cannot name a variable", "use letters, digits and _, no digit first, 128 at most")
		case strings.HasPrefix(strings.ToUpper(name), reservedVariable):
			c.add(field, name, "names that begin with "+reservedVariable+" are the platform's own", "choose another name")
		}
		switch {
		case utf8.RuneCountInString(value) > MaxVariableValue:
			c.add(field, name, fmt.Sprintf("the value is longer than %d characters", MaxVariableValue), "put data into the function's code")
		case strings.ContainsRune(value, 0) || !utf8.ValidString(value):
			c.add(field, name, "the value holds bytes that a variable cannot", "write text, without NUL and in UTF-8")
		}
		if s, found := findSecret(name, value); found {
			c.issues = append(c.issues, FieldIssue{
				Field: field, Code: problem.SecretInConfig, Text: name + ": " + s.masked,
				// Not name = value: a form in which everything after the sign is masked.
				Message: "the value of " + shown(name) + " " + s.reason,
				Remedy:  "take the value out of the manifest: environment values are stored and shown in the clear",
			})
		}
	}
	if total > MaxEnvironment {
		c.add("environment", "", "the variables together are larger than "+FormatSize(MaxEnvironment), "put data into the function's code")
	}
}
