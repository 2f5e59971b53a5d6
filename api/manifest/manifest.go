package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/casemate-dev/casemate/api"
)

// FileName is what a manifest is called.
const FileName = "casemate.yaml"

// MaxSize bounds a manifest, in bytes.
const MaxSize = 1 << 20

// DefaultNamespace is where functions live when the manifest names no namespace.
const DefaultNamespace = "default"

// Manifest is a valid manifest.
type Manifest struct {
	Path      string // as given to Load or Parse
	Namespace string
	Functions []Function // in the order of the file
}

// Function is one function of a manifest. Config holds what the manifest says;
// WithDefaults fills in the rest.
type Function struct {
	Name   string
	Source string // slash-separated, relative to the manifest: a folder, or a .wasm file
	Config api.FunctionConfig
	Line   int // where its name stands
	// Schemas are the files with the schemas of its triggers, slash-separated and relative
	// to the manifest, in the order of the manifest.
	Schemas []string
}

// Load reads and parses the file at path, and the schemas that it names. It fails with Issues when the file is
// not a valid manifest, and with an error matching fs.ErrNotExist when there is
// none.
func Load(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading manifest: there is no %s here; `casemate init NAME` makes one: %w", path, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("reading manifest: %v", err)
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %v", err)
	}
	return (&parse{file: path, folder: filepath.Dir(path)}).all(src)
}

// Parse reads a manifest from src; name is what messages call it. Its error is
// always Issues. It reads no files: a manifest that names schemas needs Load.
func Parse(name string, src []byte) (*Manifest, error) {
	return (&parse{file: name}).all(src)
}

func (p *parse) all(src []byte) (*Manifest, error) {
	root := p.read(src)
	if root == nil {
		return nil, p.failed()
	}
	rest := p.structure(root)
	m := p.manifest(root)
	rest()
	if err := p.failed(); err != nil {
		return nil, err
	}
	m.Path = p.file
	return m, nil
}

// WithDefaults fills in what cfg leaves open, as a node does.
func WithDefaults(cfg api.FunctionConfig) api.FunctionConfig {
	switch {
	case Native(cfg.Runtime):
		nativeDefaults(&cfg)
	case script(cfg.Runtime):
		fill(&cfg.Entry, "handle")
	}
	if !Native(cfg.Runtime) {
		fill(&cfg.Entry, "command")
		fill(&cfg.Isolation, "invocation")
		fill(&cfg.MemoryBytes, DefaultMemory)
		fill(&cfg.Calls, DefaultCalls)
	}
	fill(&cfg.TimeoutMillis, DefaultTimeout.Milliseconds())
	fill(&cfg.CPUMillis, DefaultCPU.Milliseconds())
	fill(&cfg.OutputBytes, DefaultOutput)
	fill(&cfg.LogBytes, DefaultLog)
	fill(&cfg.Concurrency.Max, DefaultConcurrency)
	if len(cfg.HTTP) > 0 { // the caller's array stays as it is
		cfg.HTTP = append([]api.HTTPTrigger(nil), cfg.HTTP...)
	}
	for i := range cfg.HTTP {
		fill(&cfg.HTTP[i].BodyLimit, DefaultBody)
	}
	triggerDefaults(&cfg)
	return cfg
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
