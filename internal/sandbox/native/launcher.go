package native

import (
	"context"
	"io/fs"
	"net"
	"os"

	"github.com/casemate-dev/casemate/internal/function"
)

// Launcher makes sandboxes. All methods may be called from many goroutines.
type Launcher interface {
	// Lay lays out the files of a version, whose archive has the digest it should have.
	// It fails with a *sandbox.Error: BadModule when the archive is not in order, Refused
	// when the machine lacks what the runtime needs.
	Lay(ctx context.Context, v *function.Version, archive []byte) (Tree, error)
	// Launch starts a program on such files. It returns when the program runs.
	Launch(ctx context.Context, t Tree, o Order) (Cell, error)
	// Runtimes says what the machine has.
	Runtimes() []RuntimeInfo
	// Posture says what separates a sandbox from the machine.
	Posture() Posture
	// Close ends what runs and returns when nothing is left.
	Close() error
}

// RuntimeInfo says whether a runtime can be had on this machine.
type RuntimeInfo struct {
	Runtime function.Runtime
	Version string // of the interpreter
	Reason  string // why it cannot be had; empty when it can
}

// Posture is what a Launcher enforces.
type Posture struct {
	Kind     string            // for receipts: native/process, native/unsandboxed
	Enforced []string          // sorted
	Missing  map[string]string // measure to reason
}

// Tree is a version's files, laid out.
type Tree interface {
	// Files are the version's, for configuration that stands in the code.
	Files() fs.FS
	// Interpreter is "nodejs 20.20.2" or so, "" where none is involved.
	Interpreter() string
	// Release lets the files go. Sandboxes that run on them go on.
	Release()
}

// Place says where things are, as the guest sees them.
type Place struct {
	Task    string // the version's files
	Clients string // the platform's runtime clients
	Node    string // interpreters; "" when not there
	Python  string
	Scratch string // the only place to write to
	API     string // address of the Runtime API
	Port    int    // that a server is to listen on
}

// Order asks for a sandbox.
type Order struct {
	// Command makes arguments, the program's path first, and the complete environment.
	Command   func(Place) (args, env []string)
	Dir       string   // working directory, relative to the version's files
	Output    *os.File // for standard output and error
	Memory    int64    // bytes
	Processes int
	Scratch   int64 // bytes
}

// Cell is one running sandbox.
type Cell interface {
	cell
	// ID names it in receipts; no two are alike while a node runs.
	ID() string
	// API is the listener that code inside reaches at Place.API.
	API() net.Listener
	// Dial connects to the server inside that listens on Place.Port.
	Dial(ctx context.Context) (net.Conn, error)
}
