package azure

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestConfigurationThatIsRefused(t *testing.T) {
	host := func(s string) map[string]string {
		return map[string]string{"host.json": s, "f/function.json": httpOnly}
	}
	fn := func(s string) map[string]string {
		return map[string]string{"host.json": plainHost, "f/function.json": s}
	}
	bindings := func(s string) map[string]string { return fn(`{"bindings":[` + s + `]}`) }
	trigger := `{"type":"httpTrigger","direction":"in","name":"req"}`
	for what, c := range map[string]struct {
		files       map[string]string
		file, field string
	}{
		"no host.json":        {map[string]string{"f/function.json": httpOnly}, "host.json", ""},
		"no JSON":             {host("version: 2"), "host.json", ""},
		"other version":       {host(`{"version":"3.0"}`), "host.json", "version"},
		"no custom handler":   {host(`{"version":"2.0"}`), "host.json", "customHandler.description"},
		"no executable":       {host(`{"version":"2.0","customHandler":{"description":{}}}`), "host.json", "customHandler.description.defaultExecutablePath"},
		"wrong type":          {host(`{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":7}}}`), "host.json", ""},
		"directory elsewhere": {host(`{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"x","workingDirectory":"../y"}}}`), "host.json", "customHandler.description.workingDirectory"},
		"absolute directory":  {host(`{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"x","workingDirectory":"/"}}}`), "host.json", "customHandler.description.workingDirectory"},
		"too large":           {host(plainHost + strings.Repeat(" ", maxFile)), "host.json", ""},
		"no function":         {map[string]string{"host.json": plainHost, "f/other.json": "{}"}, "the app", ""},
		"disabled":            {fn(`{"disabled":true,"bindings":[]}`), "the app", ""},
		"no trigger":          {bindings(`{"type":"http","direction":"out","name":"res"}`), "f/function.json", "bindings"},
		"two triggers":        {bindings(trigger + `,{"type":"queueTrigger","direction":"in","name":"q"}`), "f/function.json", "bindings[1]"},
		"trigger goes out":    {bindings(`{"type":"httpTrigger","direction":"out","name":"req"}`), "f/function.json", "bindings[0]"},
		"same name":           {bindings(trigger + `,{"type":"http","direction":"out","name":"req"}`), "f/function.json", "bindings[1]"},
		"no name":             {bindings(`{"type":"httpTrigger"}`), "f/function.json", "bindings[0]"},
		"input":               {bindings(trigger + `,{"type":"blob","direction":"in","name":"b"}`), "f/function.json", "bindings[1]"},
		"two HTTP outputs":    {bindings(trigger + `,{"type":"http","direction":"out","name":"a"},{"type":"http","direction":"out","name":"b"}`), "f/function.json", "bindings[2]"},
		"route":               {bindings(`{"type":"httpTrigger","name":"req","route":"a/{b:regex(^x$)}"}`), "f/function.json", "route"},
	} {
		t.Run(what, func(t *testing.T) {
			a, err := Load(appOf(c.files))
			var wrong *ConfigError
			if !errors.As(err, &wrong) || wrong.File != c.file || wrong.Field != c.field || wrong.Reason == "" {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		prefix, template, path string
		want                   map[string]string // nil when it does not match
	}{
		{"api", "hello", "/api/hello", map[string]string{}},
		{"api", "hello", "/API/Hello/", map[string]string{}},
		{"api", "hello", "/hello", nil},
		{"api", "hello", "/api/hello/x", nil},
		{"", "hello", "/hello", map[string]string{}},
		{"v1/api", "/a/{b}/", "/v1/api/a/x y", map[string]string{"b": "x y"}},
		{"api", "a/{b}", "/api/a", nil},
		{"api", "a/{b?}", "/api/a", map[string]string{}},
		{"api", "a/{b=7}", "/api/a", map[string]string{"b": "7"}},
		{"api", "a/{b:int}", "/api/a/-12", map[string]string{"b": "-12"}},
		{"api", "a/{b:int}", "/api/a/x", nil},
		{"api", "a/{b:int}", "/api/a/2147483648", nil},
		{"api", "a/{b:long}", "/api/a/2147483648", map[string]string{"b": "2147483648"}},
		{"api", "a/{b:bool}", "/api/a/True", map[string]string{"b": "True"}},
		{"api", "a/{b:alpha}", "/api/a/x1", nil},
		{"api", "a/{b:guid}", "/api/a/24ad4c06-24ad-4e5b-8294-3da9714877e9", map[string]string{"b": "24ad4c06-24ad-4e5b-8294-3da9714877e9"}},
		{"api", "a/{b:int?}/{c?}", "/api/a/1", map[string]string{"b": "1"}},
		{"api", "{*rest}", "/api/x/y/z", map[string]string{"rest": "x/y/z"}},
		{"api", "{*rest}", "/api", map[string]string{}},
		{"api", "{**rest=home}", "/api", map[string]string{"rest": "home"}},
		{"api", "a/{b}", "/api/a//", nil},
	} {
		r, err := parseRoute(c.prefix, c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got, ok := r.match(c.path)
		if ok != (c.want != nil) || !maps.Equal(got, c.want) {
			t.Errorf("%s/%s on %s: %v, %v; want %v", c.prefix, c.template, c.path, got, ok, c.want)
		}
	}
	for _, template := range []string{"a//b", "{a", "a{b}", "{a}{b}", "{*a}/b", "{a}/{A}", "{a:min(1)}", "{a:date}", "{a?}/b", "{1}"} {
		if _, err := parseRoute("api", template); err == nil {
			t.Errorf("%s is accepted", template)
		}
	}
}

func TestFunctionIsChosen(t *testing.T) {
	route := func(r, methods string) string {
		return `{"bindings":[{"type":"httpTrigger","name":"req","route":"` + r + `","methods":[` + methods + `]},{"type":"http","direction":"out","name":"res"}]}`
	}
	a := load(t, map[string]string{
		"host.json": plainHost, "literal/function.json": route("items/new", ""), "number/function.json": route("items/{id:int}", `"GET"`),
		"any/function.json": route("items/{name}", ""), "rest/function.json": route("{*all}", `"get"`), "work/function.json": queue,
	})
	for _, c := range []struct{ method, path, name, want string }{
		{"GET", "/api/items/new", "", "literal"},
		{"GET", "/api/items/7", "", "number"},
		{"POST", "/api/items/7", "", "any"},
		{"GET", "/api/items/x", "", "any"},
		{"GET", "/api/elsewhere", "", "rest"},
		{"POST", "/api/elsewhere", "", ""},
		{"POST", "/", "work", "work"},
		{"POST", "/", "number", ""}, // by name, but the method is not allowed
		{"GET", "/", "unknown", ""},
	} {
		f, _, ok := a.choose(c.method, c.path, c.name)
		if ok != (c.want != "") || ok && f.Name != c.want {
			t.Errorf("%s %s (%s): %v, %v; want %q", c.method, c.path, c.name, f, ok, c.want)
		}
	}
	one := load(t, map[string]string{"host.json": plainHost, "hello/function.json": httpOnly})
	if f, _, ok := one.choose("GET", "/anything", "shop"); !ok || f.Name != "hello" {
		t.Errorf("an app with one function: %v, %v", f, ok)
	}
	if _, _, ok := one.choose("DELETE", "/api/hello", "shop"); ok {
		t.Error("a method that the function does not take")
	}
}

// An app with one function is asked for whatever comes, but not for what its own route
// refuses: the code counts on that.
func TestConstraintsHoldForTheOnlyFunction(t *testing.T) {
	only := load(t, map[string]string{
		"host.json":           plainHost,
		"order/function.json": `{"bindings":[{"type":"httpTrigger","name":"req","route":"orders/{id:int}"},{"type":"http","direction":"out","name":"res"}]}`,
	})
	for path, want := range map[string]bool{
		"/api/orders/7": true, "/api/orders/x": false, "/api/orders/-1%20or%201=1": false, "/api/orders": false, "/API/Orders/x": false, "/api/orders/7/8": false,
		"/": true, "/orders/7": true, "/elsewhere": true, // where the platform's own route led here
	} {
		f, params, ok := only.choose("GET", path, "order")
		if ok != want || ok && f.Name != "order" || path == "/api/orders/7" && params["id"] != "7" {
			t.Errorf("%s: %v, %v, %v; want %v", path, f, params, ok, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(plainHost, httpOnly, "/api/f")
	f.Add(forwardHost, `{"bindings":[{"type":"httpTrigger","name":"req","route":"{a:int?}/{*b}"}]}`, "/api/1/2")
	f.Add(plainHost, queue, "")
	f.Fuzz(func(t *testing.T, host, fn, path string) {
		a, err := Load(appOf(map[string]string{"host.json": host, "f/function.json": fn}))
		if err != nil {
			var wrong *ConfigError
			if !errors.As(err, &wrong) {
				t.Fatalf("a failure that is not typed: %v", err)
			}
			return
		}
		a.choose("GET", path, "f")
		a.Command(func(string) (string, bool) { return "x", true })
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"Outputs":{"res":{"statusCode":200,"headers":{"a":["b"]},"body":"x"}},"Logs":["x"],"ReturnValue":null}`)
	f.Fuzz(func(t *testing.T, in string) {
		fn := &Function{Name: "f", Trigger: Binding{Name: "req", Type: "httpTrigger"}, Outputs: []Binding{{Name: "res", Type: "http"}}}
		a, err := decode(fn, []byte(in))
		if err != nil {
			var failed *Error
			if !errors.As(err, &failed) {
				t.Fatalf("a failure that is not typed: %v", err)
			}
			return
		}
		if a.Response.Status < 200 || a.Response.Status > 599 || len(a.Logs) > maxLogs {
			t.Fatalf("got %+v", a)
		}
	})
}
