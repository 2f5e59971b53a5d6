package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The runtimes that Build knows.
const (
	Go             = "go"
	Rust           = "rust"
	C              = "c"
	AssemblyScript = "assemblyscript"
	JavaScript     = "js"
	TypeScript     = "ts"
	Wasm           = "wasm" // a module that was built already
	Provided       = "provided"
	NodeJS         = "nodejs"
	Python         = "python"
	HTTP           = "http"
	Azure          = "azure"
)

// The entries of a module.
const (
	EntryCommand = "command" // _start runs once for each invocation
	EntryHandle  = "handle"  // _initialize, then the exported handle
)

// DefaultTimeout bounds a build that names no bound of its own. A first Rust
// build fetches and compiles its crates, on a small machine for minutes.
const DefaultTimeout = 10 * time.Minute

// MaxArtifact is the largest module or bundle that a node accepts, in bytes.
const MaxArtifact = 64 << 20

// Request says what to build.
type Request struct {
	Name    string   // of the function; used in messages
	Dir     string   // the manifest's folder
	Source  string   // the function's folder or .wasm file, relative to Dir; "" is Dir itself
	Runtime string   // Go, Rust, …
	Entry   string   // EntryCommand, or EntryHandle; "" is EntryCommand, for JavaScript and TypeScript EntryHandle, for native runtimes none
	Handler string   // of NodeJS and Python: file and function; "": where AWS's console begins
	Command []string // of HTTP and Azure: what is started in the folder
	// Prebuilt says that Source names the artifact itself: of JavaScript and TypeScript
	// a file with one ES module, of native runtimes a zip archive. A prebuilt module is
	// Wasm.
	Prebuilt bool

	Out      io.Writer        // what the tools print, as it comes; nil: dropped
	CacheDir string           // where compilers keep what speeds up the next build; "": the user's cache folder
	Timeout  time.Duration    // 0: DefaultTimeout
	Env      []string         // the caller's environment, reduced before a tool sees it; nil: this process's
	Clock    func() time.Time // measures Artifact.Duration; nil: it stays zero
}

// Artifact is a built module; or for JavaScript and TypeScript a bundle, one ES
// module as text in UTF-8; or for native runtimes a zip archive.
type Artifact struct {
	Bytes    []byte
	Digest   string // "sha256:" and 64 hex digits, of Bytes
	Entry    string // as the module has it; of native runtimes none
	Duration time.Duration
}

// Build builds. It fails with a *ToolchainError when a tool is missing, an
// *InputError when the folder or the request is not in order, a *CompileError when a
// compiler refused or ran out of time; match them with errors.As. When ctx ends,
// the error matches its cause.
func Build(ctx context.Context, req Request) (Artifact, error) {
	j, err := newJob(req)
	if err != nil {
		return Artifact{}, err
	}
	start := j.clock()
	ctx, cancel := context.WithTimeoutCause(ctx, j.timeout, errTimedOut)
	defer cancel()

	if j.tmp, err = os.MkdirTemp("", "casemate-build-"); err != nil {
		return Artifact{}, fmt.Errorf("making a folder for the build: %v", err)
	}
	defer func() { _ = os.RemoveAll(j.tmp) }()

	module, err := j.builder.build(ctx, j)
	if err != nil {
		return Artifact{}, err
	}
	check := checkModule
	switch {
	case script(j.Runtime):
		check = checkScriptArtifact
	case native(j.Runtime):
		check = checkArchive
	}
	if err := check(j, module); err != nil {
		return Artifact{}, err
	}
	sum := sha256.Sum256(module)
	return Artifact{
		Bytes:    module,
		Digest:   "sha256:" + hex.EncodeToString(sum[:]),
		Entry:    j.Entry,
		Duration: j.clock().Sub(start),
	}, nil
}

// Check reports whether the toolchain for a request is there, without building:
// nil, a *ToolchainError, or an *InputError for a request that is not in order.
func Check(ctx context.Context, req Request) error {
	j, err := newJob(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.timeout, errTimedOut)
	defer cancel()
	if j.tmp, err = os.MkdirTemp("", "casemate-build-"); err != nil {
		return fmt.Errorf("making a folder for the check: %v", err)
	}
	defer func() { _ = os.RemoveAll(j.tmp) }()
	return j.builder.check(ctx, j)
}

// Runtimes lists what Build can build, in the order in which to show it.
func Runtimes() []string {
	return []string{Go, Rust, C, AssemblyScript, JavaScript, TypeScript, Wasm, Provided, NodeJS, Python, HTTP, Azure}
}

// builder is one runtime's way to a module.
type builder struct {
	build func(ctx context.Context, j *job) ([]byte, error)
	check func(ctx context.Context, j *job) error
}

// builderFor gives the builder of a runtime, or false for a runtime there is none for.
func builderFor(name string) (builder, bool) {
	switch name {
	case Go:
		return builder{buildGo, checkGo}, true
	case Rust:
		return builder{buildRust, checkRust}, true
	case C:
		return builder{buildC, checkC}, true
	case AssemblyScript:
		return builder{buildAssemblyScript, checkAssemblyScript}, true
	case JavaScript, TypeScript:
		return builder{buildScript, checkScript}, true
	case Provided, NodeJS, Python, HTTP, Azure:
		return builder{buildNative, checkNative}, true
	case Wasm:
		return builder{readWasm, func(context.Context, *job) error { return nil }}, true
	default:
		return builder{}, false
	}
}

// job is a request with every default filled in.
type job struct {
	Request
	builder builder
	source  string // absolute
	tmp     string // deleted after the build
	env     environment
	clock   func() time.Time
	timeout time.Duration
}

func newJob(req Request) (*job, error) {
	b, ok := builderFor(req.Runtime)
	j := &job{Request: req, builder: b, clock: req.Clock, timeout: req.Timeout}
	if !ok {
		return nil, j.input("runtime", fmt.Sprintf("%q is not a runtime", req.Runtime), "use one of "+strings.Join(Runtimes(), ", "))
	}
	if err := j.enter(); err != nil {
		return nil, err
	}
	j.Prebuilt = j.Prebuilt || j.Runtime == Wasm
	if j.Out == nil {
		j.Out = io.Discard
	}
	if j.clock == nil {
		j.clock = func() time.Time { return time.Time{} }
	}
	if j.timeout <= 0 {
		j.timeout = DefaultTimeout
	}
	env := req.Env
	if env == nil {
		env = os.Environ()
	}
	j.env = newEnvironment(env)

	dir, err := filepath.Abs(req.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the folder %q: %v", req.Dir, err)
	}
	j.source = filepath.Join(dir, filepath.FromSlash(req.Source))
	if filepath.IsAbs(req.Source) {
		j.source = filepath.Clean(req.Source)
	}
	what := ".wasm file"
	switch {
	case script(j.Runtime):
		what = "bundled .js file"
	case native(j.Runtime):
		what = ".zip file"
	}
	info, err := os.Stat(j.source)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, j.input("source", j.source+" does not exist", "name the folder that holds the code, relative to casemate.yaml")
	case err != nil:
		return nil, fmt.Errorf("reading the source: %v", err)
	case j.Prebuilt && info.IsDir():
		return nil, j.input("source", j.source+" is a folder", "name the "+what+" itself")
	case !j.Prebuilt && !info.IsDir():
		return nil, j.input("source", j.source+" is a file", "name the folder that holds it")
	}
	if j.CacheDir == "" {
		// Without a cache folder a build is slower and still right.
		if cache, err := os.UserCacheDir(); err == nil {
			j.CacheDir = filepath.Join(cache, "casemate", "build")
		}
	}
	return j, nil
}

// enter completes and checks how the module is entered.
func (j *job) enter() error {
	if native(j.Runtime) {
		if j.Entry != "" {
			return j.input("entry", "the runtime "+j.Runtime+" runs programs, and entry is of modules", "leave entry out")
		}
		return nil
	}
	if j.Entry == "" {
		j.Entry = EntryCommand
		if script(j.Runtime) {
			j.Entry = EntryHandle
		}
	}
	if !slices.Contains([]string{EntryCommand, EntryHandle}, j.Entry) {
		return j.input("entry", fmt.Sprintf("%q is not an entry", j.Entry), "use command or handle")
	}
	if script(j.Runtime) && j.Entry != EntryHandle {
		return j.input("entry", "the runtime "+j.Runtime+" has no entry command", "leave entry out")
	}
	return nil
}

// cache gives a folder that is kept between builds of this source, made for the
// user alone, or one that lives as long as the build when none can be kept.
func (j *job) cache(kind string) (string, error) {
	dir := filepath.Join(j.tmp, kind)
	if j.CacheDir != "" {
		root, err := filepath.Abs(j.CacheDir)
		if err != nil {
			return "", fmt.Errorf("finding the build cache: %v", err)
		}
		sum := sha256.Sum256([]byte(j.source))
		dir = filepath.Join(root, kind, hex.EncodeToString(sum[:8]))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the build cache: %v", err)
	}
	return dir, nil
}

// has reports whether a file of that name is in the source folder.
func (j *job) has(name string) bool {
	info, err := os.Stat(filepath.Join(j.source, name))
	return err == nil && info.Mode().IsRegular()
}

// output reads the module that a tool wrote, or that the developer names.
func (j *job) output(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the built module: %v", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, MaxArtifact+1))
	if err != nil {
		return nil, fmt.Errorf("reading the built module: %v", err)
	}
	if len(b) > MaxArtifact {
		return nil, j.input("source", fmt.Sprintf("the code is larger than %d MiB", MaxArtifact>>20), "leave out what the function does not need")
	}
	return b, nil
}
