// Package enginetest runs the JavaScript engine's module by itself, on wazero with
// a small host of its own: for tests of the engine and of the boot scripts, and for
// measuring. The platform's own host is internal/sandbox/wasm; this one keeps the
// same contract with nothing enforced.
//
// Only tests may import it. An Instance is for one goroutine at a time; an Engine
// may be shared.
package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// An Engine is the compiled module.
type Engine struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// Open compiles a module, with at most maxPages pages of 64 KiB of memory for each
// instance; 0 means no limit but the module's.
func Open(ctx context.Context, code []byte, maxPages uint32) (*Engine, error) {
	config := wazero.NewRuntimeConfigCompiler()
	if maxPages > 0 {
		config = config.WithMemoryLimitPages(maxPages)
	}
	r := wazero.NewRuntimeWithConfig(ctx, config)
	e := &Engine{runtime: r}
	if err := linkHost(ctx, r); err != nil {
		return nil, fmt.Errorf("linking the host: %w", err)
	}
	var err error
	if e.compiled, err = r.CompileModule(ctx, code); err != nil {
		return nil, fmt.Errorf("compiling the engine: %w", err)
	}
	return e, nil
}

// Imports lists what the module imports, as "module.name".
func (e *Engine) Imports() []string {
	var out []string
	for _, f := range e.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		out = append(out, module+"."+name)
	}
	return out
}

// Close frees the engine and its instances.
func (e *Engine) Close(ctx context.Context) error { return e.runtime.Close(ctx) }

// An Instance is one function in the engine.
type Instance struct {
	*World
	mod             api.Module
	prepare, handle api.Function
	stack           [1]uint64
}

// New makes an instance and runs _initialize in the given world.
func (e *Engine) New(ctx context.Context, w *World) (*Instance, error) {
	i := &Instance{World: w}
	mod, err := e.runtime.InstantiateModule(i.context(ctx), e.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	if err != nil {
		return nil, fmt.Errorf("initialising the engine: %w: %s", err, w.Log.Bytes())
	}
	i.mod, i.prepare, i.handle = mod, mod.ExportedFunction("prepare"), mod.ExportedFunction("handle")
	return i, nil
}

func (i *Instance) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, worldKey{}, i.World)
}

// Close frees the instance.
func (i *Instance) Close(ctx context.Context) error { return i.mod.Close(ctx) }

// A Failure is a non-zero result; the text is what the guest wrote on standard error.
type Failure struct{ Log string }

func (f *Failure) Error() string { return strings.TrimSpace(f.Log) }

func (i *Instance) call(ctx context.Context, f api.Function, input []byte) error {
	i.begin(input)
	if err := f.CallWithStack(i.context(ctx), i.stack[:]); err != nil {
		return err
	}
	if int32(i.stack[0]) != 0 {
		return &Failure{Log: i.Log.String()}
	}
	return nil
}

// Prepare evaluates a module. It fails with a *Failure when the module does.
func (i *Instance) Prepare(ctx context.Context, source string) error {
	i.preparing = true
	defer func() { i.preparing = false }()
	return i.call(ctx, i.prepare, []byte(source))
}

// Head is the request's head, as the platform writes it.
type Head struct {
	ID       string              `json:"id"`
	Method   string              `json:"method"`
	Path     string              `json:"path"`
	Query    string              `json:"query,omitempty"`
	Headers  map[string][]string `json:"headers"`
	Params   map[string]string   `json:"params,omitempty"`
	Trigger  string              `json:"trigger"`
	Caller   string              `json:"caller,omitempty"`
	Deadline int64               `json:"deadline,omitempty"`
}

// Answer is what a handler answered.
type Answer struct {
	Status  int            `json:"status"`
	Headers map[string]any `json:"headers"`
	Body    []byte         `json:"-"`
	Log     string         `json:"-"`
}

// Request gives the bytes of a request.
func Request(h Head, body []byte) []byte {
	if h.Trigger == "" {
		h.Trigger = "http"
	}
	if h.Method == "" {
		h.Method = "GET"
	}
	if h.Path == "" {
		h.Path = "/"
	}
	if h.Headers == nil {
		h.Headers = map[string][]string{"host": {"example.com"}}
	}
	line, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(append(line, '\n'), body...)
}

// Handle answers one request. It fails with a *Failure when the handler does.
func (i *Instance) Handle(ctx context.Context, h Head, body []byte) (*Answer, error) {
	return i.HandleRaw(ctx, Request(h, body))
}

// HandleRaw is Handle with a request's bytes.
func (i *Instance) HandleRaw(ctx context.Context, request []byte) (*Answer, error) {
	if err := i.call(ctx, i.handle, request); err != nil {
		return nil, err
	}
	line, body, ok := bytes.Cut(i.out, []byte("\n"))
	a := &Answer{Body: bytes.Clone(body), Log: i.Log.String()}
	if !ok {
		return nil, fmt.Errorf("no answer: %q", i.out)
	}
	if err := json.Unmarshal(line, a); err != nil {
		return nil, fmt.Errorf("reading the answer's head %q: %w", line, err)
	}
	return a, nil
}

// HandleOnly answers one request and leaves the answer unread, for measuring.
func (i *Instance) HandleOnly(ctx context.Context, request []byte) error {
	return i.call(ctx, i.handle, request)
}

// Memory is the instance's memory itself. Between calls it is all of its state: the
// one mutable global, the stack's pointer, stands where it began.
func (i *Instance) Memory() []byte {
	m := i.mod.Memory()
	data, _ := m.Read(0, m.Size())
	return data
}

// Snapshot copies the memory.
func (i *Instance) Snapshot() []byte { return bytes.Clone(i.Memory()) }

// Restore puts a snapshot back; memory grown since is filled with zeros, which is
// not what a new instance would have but looks the same to what was there before.
func (i *Instance) Restore(image []byte) {
	m := i.Memory()
	clear(m[copy(m, image):])
}
