package azure

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds on what is read of an app.
const (
	maxFile      = 1 << 20 // bytes, of host.json and function.json
	maxFunctions = 256
	maxBindings  = 64
)

// ReturnName is the output that ReturnValue sets.
const ReturnName = "$return"

// DefaultRoutePrefix stands before routes unless host.json says otherwise.
const DefaultRoutePrefix = "api"

// App is a function app: what its host.json and function.json files say.
type App struct {
	Executable       string   // defaultExecutablePath: a file of the app, or a program on the path
	Arguments        []string // with %NAME% for values of the environment
	WorkingDirectory string   // below the app's folder; "" is the folder itself
	Forward          bool     // HTTP requests are passed on as they come
	RoutePrefix      string
	Functions        []*Function // sorted by name
}

// Function is one function of an app.
type Function struct {
	Name    string
	Trigger Binding
	Outputs []Binding
	route   route // of an HTTP trigger
}

// Binding connects a function with one source or destination.
type Binding struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	Direction string   `json:"direction"`
	DataType  string   `json:"dataType"`
	Methods   []string `json:"methods"`
	Route     *string  `json:"route"`
}

// HTTP reports whether the function is triggered by requests.
func (f *Function) HTTP() bool { return strings.EqualFold(f.Trigger.Type, "httpTrigger") }

// output gives the name of the function's HTTP output, "" when it has none.
func (f *Function) output() string {
	for i := range f.Outputs {
		if strings.EqualFold(f.Outputs[i].Type, "http") {
			return f.Outputs[i].Name
		}
	}
	return ""
}

// forwarded reports whether the function has HTTP in and out and nothing else.
func (f *Function) forwarded() bool {
	return f.HTTP() && len(f.Outputs) == 1 && f.output() != ""
}

// ConfigError says what is wrong with a file of the app. All of it may be shown to
// whoever deploys the app.
type ConfigError struct {
	File   string // host.json, order/function.json
	Field  string // may be empty
	Reason string
}

func (e *ConfigError) Error() string {
	if e.Field == "" {
		return e.File + " " + e.Reason
	}
	return fmt.Sprintf("%s: %s %s", e.File, e.Field, e.Reason)
}

// hostFile is as much of host.json as means something here.
type hostFile struct {
	Version       string `json:"version"`
	CustomHandler *struct {
		Description *struct {
			Executable       string   `json:"defaultExecutablePath"`
			Worker           string   `json:"defaultWorkerPath"`
			Arguments        []string `json:"arguments"`
			WorkingDirectory string   `json:"workingDirectory"`
		} `json:"description"`
		Forward bool `json:"enableForwardingHttpRequest"`
		Proxy   bool `json:"enableProxyingHttpRequest"`
	} `json:"customHandler"`
	Extensions struct {
		HTTP struct {
			RoutePrefix *string `json:"routePrefix"`
		} `json:"http"`
	} `json:"extensions"`
}

// Load reads an app. It fails with a *ConfigError when a file is not in order.
func Load(code fs.FS) (*App, error) {
	var h hostFile
	if err := read(code, "host.json", &h); err != nil {
		return nil, err
	}
	wrong := func(field, format string, args ...any) error {
		return &ConfigError{File: "host.json", Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case h.Version != "2.0":
		return nil, wrong("version", "is %.20q; only \"2.0\" is known", h.Version)
	case h.CustomHandler == nil || h.CustomHandler.Description == nil:
		return nil, wrong("customHandler.description", "is missing: it says how to start the app's server")
	case h.CustomHandler.Description.Executable == "":
		return nil, wrong("customHandler.description.defaultExecutablePath", "is missing: it names the app's server")
	}
	d := h.CustomHandler.Description
	a := &App{
		Executable: d.Executable, Arguments: d.Arguments,
		Forward:     h.CustomHandler.Forward || h.CustomHandler.Proxy,
		RoutePrefix: DefaultRoutePrefix,
	}
	if d.Worker != "" {
		a.Arguments = append([]string{d.Worker}, a.Arguments...)
	}
	if d.WorkingDirectory != "" {
		dir := path.Clean(d.WorkingDirectory)
		if !fs.ValidPath(dir) {
			return nil, wrong("customHandler.description.workingDirectory", "is not a folder of the app")
		}
		if dir != "." {
			a.WorkingDirectory = dir
		}
	}
	if p := h.Extensions.HTTP.RoutePrefix; p != nil {
		a.RoutePrefix = strings.Trim(*p, "/")
	}
	return a, a.loadFunctions(code)
}

// functionName is what Azure accepts as the name of a function's folder.
var functionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,126}$`)

func (a *App) loadFunctions(code fs.FS) error {
	entries, err := fs.ReadDir(code, ".")
	if err != nil {
		return fmt.Errorf("listing the app's folder: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !functionName.MatchString(e.Name()) {
			continue
		}
		f, err := a.loadFunction(code, e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case len(a.Functions) == maxFunctions:
			return &ConfigError{File: "the app", Reason: fmt.Sprintf("has more than %d functions", maxFunctions)}
		case f != nil:
			a.Functions = append(a.Functions, f)
		}
	}
	if len(a.Functions) == 0 {
		return &ConfigError{File: "the app", Reason: "has no function: each has a folder of its name with a file function.json"}
	}
	slices.SortFunc(a.Functions, func(x, y *Function) int { return strings.Compare(x.Name, y.Name) })
	return nil
}

// loadFunction reads a function.json. It gives nil for a function that is disabled.
func (a *App) loadFunction(code fs.FS, name string) (*Function, error) {
	file := name + "/function.json"
	var f struct {
		Bindings []Binding `json:"bindings"`
		Disabled any       `json:"disabled"`
		Excluded bool      `json:"excluded"`
	}
	if err := read(code, file, &f); err != nil {
		return nil, err
	}
	if f.Excluded || f.Disabled == true {
		return nil, nil
	}
	wrong := func(i int, format string, args ...any) error {
		return &ConfigError{File: file, Field: "bindings[" + strconv.Itoa(i) + "]", Reason: fmt.Sprintf(format, args...)}
	}
	if len(f.Bindings) > maxBindings {
		return nil, &ConfigError{File: file, Field: "bindings", Reason: fmt.Sprintf("has more than %d members", maxBindings)}
	}
	out := &Function{Name: name}
	names := map[string]bool{}
	for i, b := range f.Bindings {
		b.Direction = cmp.Or(strings.ToLower(b.Direction), "in")
		isTrigger := strings.HasSuffix(strings.ToLower(b.Type), "trigger")
		switch {
		case b.Name == "" || b.Type == "":
			return nil, wrong(i, "needs a name and a type")
		case names[b.Name]:
			return nil, wrong(i, "has the name %.60q of another", b.Name)
		case isTrigger && b.Direction != "in":
			return nil, wrong(i, "is a trigger, whose direction is \"in\"")
		case isTrigger && out.Trigger.Type != "":
			return nil, wrong(i, "is a second trigger")
		case isTrigger:
			out.Trigger = b
		case b.Direction == "out":
			if strings.EqualFold(b.Type, "http") && out.output() != "" {
				return nil, wrong(i, "is a second HTTP output")
			}
			out.Outputs = append(out.Outputs, b)
		default:
			return nil, wrong(i, "is an input binding (%.60s), of which there is none here but the trigger", b.Type)
		}
		names[b.Name] = true
	}
	if out.Trigger.Type == "" {
		return nil, &ConfigError{File: file, Field: "bindings", Reason: "has no trigger"}
	}
	if out.HTTP() {
		template := name
		if r := out.Trigger.Route; r != nil && strings.Trim(*r, "/") != "" {
			template = *r
		}
		var err error
		if out.route, err = parseRoute(a.RoutePrefix, template); err != nil {
			return nil, &ConfigError{File: file, Field: "route", Reason: err.Error()}
		}
	}
	return out, nil
}

// read decodes a JSON file. Keys are matched whatever their letter case, as the
// Functions host does.
func read(code fs.FS, name string, into any) error {
	f, err := code.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && name == "host.json" {
			return &ConfigError{File: name, Reason: "is missing: it says how to start the app's server"}
		}
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", name, err)
	case len(b) > maxFile:
		return &ConfigError{File: name, Reason: fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // editors on Windows put it there
	if err := json.Unmarshal(b, into); err != nil {
		return &ConfigError{File: name, Reason: "is not in order: " + err.Error()}
	}
	return nil
}

// Command gives the server's program and arguments, with %NAME% replaced by what
// lookup has for it. A name that lookup does not know stays as it is.
func (a *App) Command(lookup func(name string) (string, bool)) []string {
	command := make([]string, 0, 1+len(a.Arguments))
	for _, s := range append([]string{a.Executable}, a.Arguments...) {
		command = append(command, expand(s, lookup))
	}
	return command
}

var variable = regexp.MustCompile(`%[A-Za-z_][A-Za-z0-9_]*%`)

func expand(s string, lookup func(string) (string, bool)) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		if v, ok := lookup(m[1 : len(m)-1]); ok {
			return v
		}
		return m
	})
}

// Environment is what a handler is told, besides what its version sets. A version
// must not set these itself. root is the app's folder as the handler sees it; worker
// names the sandbox.
func Environment(root, worker string, port int) []string {
	p := strconv.Itoa(port)
	return []string{
		"FUNCTIONS_CUSTOMHANDLER_PORT=" + p,
		"FUNCTIONS_CUSTOMHANDLER_WORKER_ID=" + worker,
		"FUNCTIONS_HTTPWORKER_PORT=" + p, // handlers written for the preview
		"FUNCTIONS_WORKER_RUNTIME=custom",
		"AzureWebJobsScriptRoot=" + root,
	}
}
