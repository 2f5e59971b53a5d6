package manifest

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

const full = `# a comment
namespace: shop
functions:
  thumbnail:
    runtime: go
    source: ./functions/thumbnail/
    entry: command
    memory: 128Mi
    timeout: 1m30s
    concurrency: {max: 64, reserved: 2}
    isolation: invocation
    limits: {cpu: 500ms, calls: 2000, output: 6Mi, log: 64Ki}
    environment:
      GREETING: hello
      URL: https://example.com/a/b?c=d
      EMPTY: ""
      TEXT: |
        two
        lines
    http:
      - {method: POST, path: "/thumbnail/{id}", public: true, bodyLimit: 5Mi, cors: {origins: ["https://example.com"], methods: [POST], headers: [content-type], expose: [], credentials: true, maxAge: 10m}}
      - {method: ANY, path: /}
  built:
    runtime: wasm
    source: build/x.wasm
    memory: 67108864
`

func TestFullManifest(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), FileName)
	for _, src := range []string{full, strings.ReplaceAll(full, "\n", "\r\n"), "\ufeff" + full, "---\n" + full} {
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		first := m.Functions[0]
		first.Line = 4
		want := Function{Name: "thumbnail", Source: "functions/thumbnail", Line: 4, Config: api.FunctionConfig{
			Runtime: "go", Entry: "command", Isolation: "invocation", MemoryBytes: 128 << 20, TimeoutMillis: 90_000,
			CPUMillis: 500, Calls: 2000, OutputBytes: 6 << 20, LogBytes: 64 << 10, Concurrency: api.Concurrency{Max: 64, Reserved: 2},
			Environment: map[string]string{"GREETING": "hello", "URL": "https://example.com/a/b?c=d", "EMPTY": "", "TEXT": "two\nlines\n"},
			HTTP: []api.HTTPTrigger{
				{Method: "POST", Path: "/thumbnail/{id}", Public: true, BodyLimit: 5 << 20, CORS: &api.CORS{
					Origins: []string{"https://example.com"}, Methods: []string{"POST"}, Headers: []string{"content-type"},
					Expose: []string{}, Credentials: true, MaxAgeMillis: 600_000,
				}},
				{Method: "ANY", Path: "/"},
			},
		}}
		if m.Path != path || m.Namespace != "shop" || len(m.Functions) != 2 || !reflect.DeepEqual(first, want) {
			t.Fatalf("got %+v", m)
		}
		if b := m.Functions[1]; b.Source != "build/x.wasm" || b.Config.MemoryBytes != 64<<20 {
			t.Fatalf("got %+v", b)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	m, err := Parse("x", []byte("functions: {f: {runtime: go, http: [{method: GET, path: /}]}}"))
	if err != nil || m.Namespace != "default" || m.Functions[0].Source != "." {
		t.Fatalf("got %+v, %v", m, err)
	}
	given := m.Functions[0].Config
	c := WithDefaults(given)
	if c.MemoryBytes != 128<<20 || c.TimeoutMillis != 10_000 || c.OutputBytes != 6<<20 || c.LogBytes != 64<<10 ||
		c.Concurrency.Max != 64 || c.HTTP[0].BodyLimit != 1<<20 || c.Entry != "command" || c.Isolation != "invocation" ||
		c.CPUMillis != 10_000 || c.Calls != 100_000 {
		t.Errorf("got %+v", c)
	}
	for _, runtime := range []string{"js", "ts"} {
		script := WithDefaults(api.FunctionConfig{Runtime: runtime})
		if issues := Check("f", script); script.Entry != "handle" || len(issues) > 0 {
			t.Errorf("%s is entered by %s: %+v", runtime, script.Entry, issues)
		}
	}
	if given.HTTP[0].BodyLimit != 0 {
		t.Error("the caller's configuration was changed")
	}
	if issues := Check("f", c); len(issues) > 0 {
		t.Errorf("the defaults break the rules: %+v", issues)
	}
}

func TestNoManifest(t *testing.T) {
	t.Parallel()
	_, err := Load(filepath.Join(t.TempDir(), FileName))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "casemate init") {
		t.Errorf("got %v", err)
	}
}

func TestOversizedAndOverfullDocumentsEndQuickly(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"large":               strings.Repeat("a", MaxSize+1),
		"many keys":           strings.Repeat("a: b\n", MaxSize/5),
		"many keys on a line": "{" + strings.Repeat("a: b, ", MaxSize/6-1) + "}",
		"many dashes":         strings.Repeat("- \n", MaxSize/3),
		"deep dashes":         strings.Repeat("- ", MaxSize/2),
		"deep flow":           "a: " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"deep maps":           strings.Repeat("{a: ", 4_000),
		"one quote":           `a: "` + strings.Repeat("x", MaxSize-10),
		"many issues":         "functions:\n" + strings.Repeat("  A: {x: y, z: w}\n", 900),
		"not UTF-8":           "a: \xff",
	} {
		began := time.Now()
		_, err := Parse(FileName, []byte(src))
		var issues Issues
		if !errors.As(err, &issues) || len(issues) > maxIssues {
			t.Errorf("%s: %d issues", name, len(issues))
		}
		if took := time.Since(began); took > 2*time.Minute { // half a second at most, but for -race and a busy machine
			t.Errorf("%s took %v", name, took)
		}
		if name == "large" && issues[0].Message != "the manifest is larger than 1 MiB" {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(err.Error()); n > 100<<10 {
			t.Errorf("%s: the error has %d bytes", name, n)
		}
	}
}

func TestQuantitiesKeepTheirValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<42).Draw(t, "size")
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			if len(FormatSize(n)) <= 12 { // a number of more digits is no size
				t.Fatalf("size %d: %q gives %d, %v", n, FormatSize(n), got, err)
			}
		}
		d := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour/time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("duration %v: %q gives %v, %v", d, FormatDuration(d), got, err)
		}
	})
	for s, want := range map[string]int64{"0": 0, "1": 1, "64Ki": 64 << 10, "6Mi": 6 << 20, "2Gi": 2 << 30, "010Ki": 10 << 10} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "Mi", "1.5Mi", "-1", "+1", "1 Mi", "1MiB", "1m", "0x1", "1Ki ", "1234567890123", "1KiKi", "²Ki"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q gives %d", s, got)
		}
	}
	for _, s := range []string{"", "10", "1.5s", "s", "-1s", "1s1m", "1m1m", "1 s", "1us", "1d", "10S"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q gives %v", s, got)
		}
	}
}

// TestSchemaAndRulesAgree: what the rules let through, the schema does too, and
// the forms are the same on both sides.
func TestSchemaAndRulesAgree(t *testing.T) {
	t.Parallel()
	var doc map[string]any
	if err := json.Unmarshal(Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["$schema"] != "https://json-schema.org/draft/2020-12/schema" || doc["$id"] != SchemaID {
		t.Errorf("got %v, %v", doc["$schema"], doc["$id"])
	}
	at := func(path ...string) map[string]any {
		t.Helper()
		m := doc
		for _, p := range path {
			next, ok := m[p].(map[string]any)
			if !ok {
				t.Fatalf("the schema has no %v", path)
			}
			m = next
		}
		return m
	}
	fn := []string{"properties", "functions", "additionalProperties", "properties"}
	in := func(path ...string) map[string]any { return at(append(append([]string{}, fn...), path...)...) }
	route := []string{"http", "items", "properties"}
	for _, f := range []struct {
		got  any
		want any
	}{
		{at("properties", "namespace")["pattern"], nameForm},
		{at("properties", "functions", "propertyNames")["pattern"], nameForm},
		{at("properties", "functions")["maxProperties"], float64(MaxFunctions)},
		{in("environment", "propertyNames")["pattern"], variableForm},
		{in("environment")["maxProperties"], float64(MaxVariables)},
		{in("environment", "additionalProperties")["maxLength"], float64(MaxVariableValue)},
		{in("memory")["pattern"], sizeForm},
		{in("limits", "properties", "output")["pattern"], sizeForm},
		{in("limits", "properties", "log")["pattern"], sizeForm},
		{in(append(route, "bodyLimit")...)["pattern"], sizeForm},
		{in("timeout")["pattern"], durationForm},
		{in("limits", "properties", "cpu")["pattern"], durationForm},
		{in(append(route, "cors", "properties", "maxAge")...)["pattern"], durationForm},
		{in("concurrency", "properties", "max")["maximum"], float64(MaxConcurrency)},
		{in("http")["maxItems"], float64(MaxRoutes)},
		{in(append(route, "path")...)["maxLength"], float64(MaxPath)},
		{in("memory")["default"], FormatSize(DefaultMemory)},
		{in("timeout")["default"], FormatDuration(DefaultTimeout)},
		{in("limits", "properties", "cpu")["default"], FormatDuration(DefaultCPU)},
		{in("limits", "properties", "calls")["default"], float64(DefaultCalls)},
		{in("limits", "properties", "calls")["maximum"], float64(MaxCalls)},
		{in("limits", "properties", "output")["default"], FormatSize(DefaultOutput)},
		{in("limits", "properties", "log")["default"], FormatSize(DefaultLog)},
		{in(append(route, "bodyLimit")...)["default"], FormatSize(DefaultBody)},
		{in("concurrency", "properties", "max")["default"], float64(DefaultConcurrency)},
		{in("runtime")["enum"], anys(runtimes())},
		{in("entry")["enum"], anys(entries())},
		{in(append(route, "method")...)["enum"], anys(methods())},
		{in(append(route, "cors", "properties", "methods", "items")...)["enum"], anys(methods()[:len(methods())-1])},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("the schema says %v, the rules %v", f.got, f.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) { // the pattern and the parser are one
		s := rapid.StringMatching(`[0-9]{0,13}(Ki|Mi|Gi|K|)`).Draw(t, "size")
		if _, err := ParseSize(s); (err == nil) != regexp.MustCompile(sizeForm).MatchString(s) {
			t.Fatalf("size %q", s)
		}
		d := rapid.StringMatching(`([0-9]{1,3}h)?([0-9]{1,3}(m|s|ms))?([0-9]{1,3}(s|ms|))?`).Draw(t, "duration")
		if _, err := ParseDuration(d); (err == nil) != (d != "" && regexp.MustCompile(durationForm).MatchString(d)) {
			t.Fatalf("duration %q", d)
		}
	})
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}

// TestRulesHoldWithoutTheSchema: a node has no manifest to check, only a request.
func TestRulesHoldWithoutTheSchema(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range MaxVariables + 1 {
		many["A"+strings.Repeat("B", i)] = "c"
	}
	routes := make([]api.HTTPTrigger, MaxRoutes+1)
	for name, c := range map[string]api.FunctionConfig{
		"":                        {},
		"runtime":                 {Runtime: "go\n"},
		"entry":                   {Runtime: "go", Entry: "x"},
		"isolation":               {Runtime: "go", Isolation: "gvisor"},
		"memory":                  {Runtime: "go", MemoryBytes: -1},
		"timeout":                 {Runtime: "go", TimeoutMillis: MaxTimeout.Milliseconds() + 1},
		"limits.cpu":              {Runtime: "go", CPUMillis: MaxCPU.Milliseconds() + 1},
		"limits.calls":            {Runtime: "go", Calls: -1},
		"entry of a script":       {Runtime: "js", Entry: "command"},
		"limits.output":           {Runtime: "go", OutputBytes: MaxOutput + 1},
		"limits.log":              {Runtime: "go", LogBytes: -1},
		"concurrency.max":         {Runtime: "go", Concurrency: api.Concurrency{Max: -1}},
		"concurrency.reserved":    {Runtime: "go", Concurrency: api.Concurrency{Max: 1, Reserved: 2}},
		"environment":             {Runtime: "go", Environment: many},
		"environment.A":           {Runtime: "go", Environment: map[string]string{"A": "a\x00b"}},
		"environment.":            {Runtime: "go", Environment: map[string]string{"": "b"}},
		"environment.LD_PRELOAD=": {Runtime: "go", Environment: map[string]string{"LD_PRELOAD=": "b"}},
		"http":                    {Runtime: "go", HTTP: routes},
		"http[0].path":            {Runtime: "go", HTTP: []api.HTTPTrigger{{Method: "GET", Path: "/a\n"}}},
		"http[0].bodyLimit":       {Runtime: "go", HTTP: []api.HTTPTrigger{{Method: "GET", Path: "/a", BodyLimit: MaxBody + 1}}},
		"http[0].cors.origins":    {Runtime: "go", HTTP: []api.HTTPTrigger{{Method: "GET", Path: "/a", CORS: &api.CORS{}}}},
		"http[0].cors.maxAge":     {Runtime: "go", HTTP: []api.HTTPTrigger{{Method: "GET", Path: "/a", CORS: &api.CORS{Origins: []string{"*"}, MaxAgeMillis: -5}}}},
	} {
		issues := Check("f", c)
		found := false
		for _, i := range issues {
			found = found || i.Field == strings.TrimSuffix(name, " of a script") || name == "" && i.Field == "runtime"
		}
		if !found {
			t.Errorf("%s: got %+v", name, issues)
		}
	}
}

func TestRandomCredentialsAreRecognised(t *testing.T) {
	t.Parallel()
	b := make([]byte, 64)
	for name, form := range map[string]func() string{
		"hex, 20 bytes":       func() string { return hex.EncodeToString(b[:20]) },
		"hex, 32 bytes":       func() string { return hex.EncodeToString(b[:32]) },
		"base64, 24 bytes":    func() string { return base64.StdEncoding.EncodeToString(b[:24]) },
		"base64url, 32 bytes": func() string { return base64.RawURLEncoding.EncodeToString(b[:32]) },
		"base32, 32 bytes":    func() string { return base32.StdEncoding.EncodeToString(b[:32]) },
	} {
		const rounds = 500
		missed := 0
		for range rounds {
			if _, err := rand.Read(b); err != nil {
				t.Fatal(err)
			}
			if _, found := findSecret("VALUE_X", form()); !found {
				missed++
			}
		}
		if missed > rounds/20 {
			t.Errorf("%s: %d of %d are missed", name, missed, rounds)
		}
	}
}

func TestPlainValuesAreNoSecrets(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"URL": "https://api.example.com/v1/orders/items?page=2&size=50", "PATH_X": "/usr/local/lib/python3/site-packages",
		"SLUG": "eu-west-1-production-cluster-2024", "MODEL": "claude-3-5-sonnet-20241022", "BUCKET": "my-company-assets-eu-west-1",
		"TENANT": "0f8fad5b-d9cb-469f-a165-70867728950e", "DIGEST": "sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
		"CAMEL": "thisIsAVeryLongIdentifierInCamelCase", "SNAKE": "this_is_a_long_name_in_snake_case", "WORDS": "The quick brown fox jumps over the lazy dog",
		"HOSTS": "node-1.example.com:4222,node-2.example.com:4222", "TIME": "2024-01-01T00:00:00Z", "NUMBER": "12345678901234567890123",
		"TOKEN_URL": "https://auth.example.com/token", "PASSWORD_MIN_LENGTH": "12", "MAX_TOKENS": "4096", "TOKENIZER": "bpe", "KEY": "x",
		"PUBLIC_KEY_PATH": "/etc/key.pem", "USE_TOKEN": "true", "SECRET_NAME": "db", "PRIMARY_KEY_COLUMN": "id", "PWD": "/tmp",
		"ARN": "arn:aws:iam::123456789012:role/MyServiceRole", "CONTENT": "application/vnd.api+json; charset=utf-8", "EMPTY_PASSWORD": "",
		"MONKEY": "see", "DB": "postgres://db.internal:5432/orders", "MAIL": "mailto:someone@example.com",
	} {
		if s, found := findSecret(name, value); found {
			t.Errorf("%s: %s %s", name, value, s.reason)
		}
	}
	for _, name := range []string{
		"PASSWORD", "db_password", "DBPASSWORD", "dbPassword", "TOKEN", "GITHUB_TOKEN", "SECRET", "CLIENT_SECRET", "API_KEY", "apiKey", "APIKEY",
		"PRIVATE_KEY", "AWS_SECRET_ACCESS_KEY", "TOKEN_2", "PASSWORD_OLD", "SSH_PRIVATE_KEY", "ENCRYPTION_KEY", "DB_PWD", "CREDENTIALS",
	} {
		if !secretName(name) {
			t.Errorf("%s is not taken for a secret", name)
		}
		issues := Check("f", api.FunctionConfig{Runtime: "go", Environment: map[string]string{name: "hunter2"}})
		if len(issues) != 1 || issues[0].Code != problem.SecretInConfig || strings.Contains(issues[0].Message+issues[0].Text+issues[0].Remedy, "hunter2") {
			t.Errorf("%s: %+v", name, issues)
		}
	}
}

// FuzzParse: whatever the input, an end within reasonable time, no panic, a valid
// manifest or issues with a place, and nothing that a terminal would act on.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(strings.ReplaceAll(every, "schema: schemas/paid.json", "schema: none\n        reason: x")))
	text, err := os.ReadFile("testdata/issues.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, part := range bytes.Split(text, []byte("\n-- ")) {
		if _, body, ok := bytes.Cut(part, []byte(".yaml --\n")); ok {
			f.Add(body)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := Parse("f", src)
		if err == nil {
			for _, fn := range m.Functions {
				if i := Check(fn.Name, WithDefaults(fn.Config)); len(i) > 0 {
					t.Fatalf("accepted, yet %+v", i)
				}
			}
			return
		}
		var issues Issues
		if !errors.As(err, &issues) || len(issues) == 0 || m != nil {
			t.Fatalf("got %v, %v", m, err)
		}
		for _, i := range issues {
			if i.Line < 1 || i.Column < 1 || i.Length < 1 || i.Message == "" || i.Remedy == "" {
				t.Fatalf("incomplete: %+v", i)
			}
		}
		if out := err.Error(); strings.ContainsFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
			t.Fatalf("control characters in %q", out)
		}
	})
}
