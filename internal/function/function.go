// Package function holds the words of the platform that everything else is
// said in: what a function is, what a version of it consists of, how a version
// is named by its digest, and which limits it runs under.
//
// It is a leaf: it imports the standard library alone and anybody may import
// it. Values are plain data without locks; treat a Version that you were handed
// as read-only, since it is shared between goroutines.
package function

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// DefaultNamespace is where a function lives whose manifest names no namespace.
const DefaultNamespace = "default"

// LiveAlias is the alias that triggers follow and that a deployment moves.
const LiveAlias = "live"

// Limits that hold when a manifest is silent, and the largest ones it may ask for.
const (
	DefaultMemory      int64 = 128 << 20
	MinMemory          int64 = 1 << 20
	MaxMemory          int64 = 2 << 30 // stays well below the 65,536 pages at which 32-bit offsets can wrap
	DefaultTimeout           = 10 * time.Second
	MaxTimeout               = 15 * time.Minute
	DefaultCPU               = 10 * time.Second
	MaxCPU                   = 15 * time.Minute
	DefaultCalls       int64 = 100_000
	MaxCalls           int64 = 100_000_000
	DefaultBodyLimit   int64 = 1 << 20
	MaxBodyLimit       int64 = 6 << 20
	DefaultOutputLimit int64 = 6 << 20
	MaxOutputLimit     int64 = 32 << 20
	DefaultLogLimit    int64 = 64 << 10
	MaxLogLimit        int64 = 1 << 20
	DefaultConcurrency       = 64
	MaxConcurrency           = 1000

	// Of native versions only.
	DefaultScratch   int64 = 64 << 20
	MaxScratch       int64 = 512 << 20
	DefaultProcesses       = 64
	MaxProcesses           = 1024
)

// Digest names content: "sha256:" and 64 lower-case hex digits.
type Digest string

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest checks the form of s.
func ParseDigest(s string) (Digest, error) {
	if !digestForm.MatchString(s) {
		return "", fmt.Errorf("parsing digest: want sha256: and 64 lower-case hex digits, got %.80q", s)
	}
	return Digest(s), nil
}

// Hex returns the digest without its algorithm, or "" when d is malformed.
func (d Digest) Hex() string {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok {
		return ""
	}
	return h
}

// Short returns the first twelve hex digits, for people.
func (d Digest) Short() string {
	h := d.Hex()
	if len(h) > 12 {
		return h[:12]
	}
	return h
}

// maxName is the longest name, in bytes.
const maxName = 63

// ValidName reports whether s can name a namespace, a function or an alias: an
// RFC 1035 label in lower case, so that it fits a host name, a subject and a path
// unescaped. It is asked several times for each request.
func ValidName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Ref names a function.
type Ref struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns namespace/name.
func (r Ref) String() string { return r.Namespace + "/" + r.Name }

// Runtime says how the code of a version was made, and so which sandbox runs it.
type Runtime string

// The runtimes of the wasm tier. The compiled ones end as one WASI preview 1
// module each; the scripts (see Script) as one ES module, which a module of ours
// runs.
const (
	RuntimeWasm           Runtime = "wasm" // a module the developer built
	RuntimeGo             Runtime = "go"
	RuntimeRust           Runtime = "rust"
	RuntimeC              Runtime = "c"
	RuntimeAssemblyScript Runtime = "assemblyscript"
	RuntimeJavaScript     Runtime = "js" // entered by EntryHandle alone
	RuntimeTypeScript     Runtime = "ts" // the same, bundled from TypeScript
)

// The runtimes of the native tier: each version is a zip archive with the files of
// one folder, and runs in a locked-down process of its own.
const (
	RuntimeProvided Runtime = "provided" // an executable named bootstrap that speaks the AWS Lambda Runtime API
	RuntimeNodeJS   Runtime = "nodejs"   // a Lambda handler for Node.js
	RuntimePython   Runtime = "python"   // a Lambda handler for Python
	RuntimeHTTP     Runtime = "http"     // a server that listens on $PORT (Cloud Run, Knative)
	RuntimeAzure    Runtime = "azure"    // an Azure Functions custom handler
)

// Native reports whether versions of that runtime run in the native tier.
func (r Runtime) Native() bool {
	switch r {
	case RuntimeProvided, RuntimeNodeJS, RuntimePython, RuntimeHTTP, RuntimeAzure:
		return true
	default:
		return false
	}
}

// Lambda reports whether versions of that runtime take their work from the AWS
// Lambda Runtime API.
func (r Runtime) Lambda() bool {
	return r == RuntimeProvided || r == RuntimeNodeJS || r == RuntimePython
}

// Script reports whether versions of that runtime hold source text, one ES module
// in UTF-8, in place of a WebAssembly module.
func (r Runtime) Script() bool { return r == RuntimeJavaScript || r == RuntimeTypeScript }

// Entry says how a module is entered.
type Entry string

// Both entries read the request on standard input and write the response on
// standard output, in the form of the package sandbox.
const (
	// EntryCommand is a WASI command: _start runs once for each invocation.
	EntryCommand Entry = "command"
	// EntryHandle is a WASI reactor: _initialize runs, then the exported
	// handle, of type () -> () or () -> i32 where non-zero is a failure.
	EntryHandle Entry = "handle"
)

// Isolation says what separates two invocations of one version.
type Isolation string

const (
	// IsolationInvocation gives every invocation a state nobody used before.
	IsolationInvocation Isolation = "invocation"
	// IsolationInstance lets one sandbox serve many invocations of one version, one
	// after the other. Native versions have it unless they ask for the other.
	IsolationInstance Isolation = "instance"
)

// SandboxKind asks for a kind of sandbox other than the tier's own.
type SandboxKind string

// SandboxGVisor puts a kernel of its own, in user space, between a native version
// and the machine's.
const SandboxGVisor SandboxKind = "gvisor"

// Config is everything besides the code that decides how a version behaves. It
// is complete: no default is left open, so that its digest pins behaviour.
type Config struct {
	Runtime     Runtime           `json:"runtime"`
	Entry       Entry             `json:"entry"` // empty for native versions
	Isolation   Isolation         `json:"isolation"`
	Sandbox     SandboxKind       `json:"sandbox,omitempty"`
	Handler     string            `json:"handler,omitempty"` // nodejs, python: module.function, as AWS has it
	Command     []string          `json:"command,omitempty"` // http, azure: a file of the version, or node or python3; then arguments
	Limits      Limits            `json:"limits"`
	Environment map[string]string `json:"environment,omitempty"`
	HTTP        []HTTPTrigger     `json:"http,omitempty"`
	Triggers    []Trigger         `json:"triggers,omitempty"` // by name
}

// Limits bound one version. Sizes are bytes.
type Limits struct {
	Memory  int64         `json:"memory"`
	Timeout time.Duration `json:"timeoutNanos"`
	// CPU bounds the processor's time that one invocation takes, its neighbours' not
	// counted. Zero, which only versions from before this limit have, means
	// DefaultCPU; see ComputeTime.
	CPU         time.Duration `json:"cpuNanos,omitempty"`
	Calls       int64         `json:"calls,omitempty"` // of the host, by one invocation; zero as in CPU, see HostCalls
	Output      int64         `json:"output"`
	Log         int64         `json:"log"`
	Concurrency int           `json:"concurrency"`         // most invocations at once
	Reserved    int           `json:"reserved"`            // places no other function can take
	Scratch     int64         `json:"scratch,omitempty"`   // of /tmp, native versions only; part of Memory
	Processes   int           `json:"processes,omitempty"` // and threads at once, native versions only
}

// ComputeTime is the limit CPU, never zero.
func (l *Limits) ComputeTime() time.Duration {
	if l.CPU == 0 {
		return DefaultCPU
	}
	return l.CPU
}

// HostCalls is the limit Calls, never zero.
func (l *Limits) HostCalls() int64 {
	if l.Calls == 0 {
		return DefaultCalls
	}
	return l.Calls
}

// HTTPTrigger binds a route of the gateway to a function.
type HTTPTrigger struct {
	Method    string `json:"method"` // GET, POST, …, or ANY
	Path      string `json:"path"`   // /orders/{id}, /files/{rest...}
	Public    bool   `json:"public,omitempty"`
	BodyLimit int64  `json:"bodyLimit"`
	CORS      *CORS  `json:"cors,omitempty"`
	// Webhook is the trigger that the route is for: who calls is known by a signature, and
	// what comes is an event. It is set by Config.Routes alone.
	Webhook string `json:"-"`
}

// CORS is the cross-origin policy of a route (Fetch standard, section 3.2).
type CORS struct {
	Origins     []string      `json:"origins"`
	Methods     []string      `json:"methods,omitempty"`
	Headers     []string      `json:"headers,omitempty"`
	Expose      []string      `json:"expose,omitempty"`
	Credentials bool          `json:"credentials,omitempty"`
	MaxAge      time.Duration `json:"maxAgeNanos,omitempty"`
}

// Version is one immutable build of a function.
type Version struct {
	Ref
	ID       Digest    `json:"id"`       // VersionID(Artifact, Config)
	Artifact Digest    `json:"artifact"` // of the code's bytes
	Size     int64     `json:"size"`     // of the code
	Config   Config    `json:"config"`
	Created  time.Time `json:"created"`
	Creator  string    `json:"creator"` // principal that deployed it
}

// VersionID digests code and configuration. The encoding is JSON with fields in
// the order of declaration and map keys sorted, behind a line that names the
// form, so a later form cannot collide with this one.
func VersionID(artifact Digest, c Config) (Digest, error) {
	b, err := json.Marshal(struct {
		Artifact Digest `json:"artifact"`
		Config   Config `json:"config"`
	}{artifact, c})
	if err != nil {
		return "", fmt.Errorf("encoding configuration: %v", err)
	}
	return DigestOf(append([]byte("casemate.version/1\n"), b...)), nil
}
