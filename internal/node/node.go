// Package node is the composition root: it alone names the concrete types, starts
// them in order with the reason beside each step, and stops them in reverse. It is
// also where the clock and the source of randomness come in.
//
// Only cmd imports it. Run may be called several times in one process, on
// different data directories.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Where a node listens, and how long it may take to stop, when nobody says.
const (
	DefaultGateway = "127.0.0.1:8443"
	DefaultControl = "127.0.0.1:8444"
	DefaultDrain   = 20 * time.Second
)

// Options say how a node runs. The zero value of each field is safe; DataDir is
// the only one that must be given.
type Options struct {
	DataDir    string   // created with mode 0700 when absent
	KeyFile    string   // the root key; DataDir/root.key when empty
	Gateway    string   // address; DefaultGateway when empty
	Control    string   // address; DefaultControl when empty
	Objects    string   // address of the object store; the node has none when empty
	Hosts      []string // further names and addresses that the server certificate vouches for
	AllowTLS12 bool     // TLS 1.3 is the least otherwise
	// Unsandboxed lets native functions run as plain processes where the machine cannot
	// lock them in. It is said in the log, the status and every receipt.
	Unsandboxed bool
	// Folders are those that triggers may watch, by name.
	Folders  map[string]Folder
	Drain    time.Duration // how long work under way may take to finish at the end; DefaultDrain when zero
	Capacity int           // invocations at once; invoke.DefaultCapacity when zero
	Warm     int           // sandbox processes kept ready; one when zero

	// AdminKey is the administrator's key that the client holds. Ready carries a
	// new one when it is missing or no longer valid: whoever may start the node on
	// its data directory owns it.
	AdminKey string

	Version    string // of the binary
	Executable string // of this binary, which becomes the sandbox process; found when empty
	Logger     *slog.Logger

	// Runner replaces the sandboxes. It exists for measurements of everything but
	// them, and no flag reaches it.
	Runner sandbox.Runner

	// Ready is called once, when the node answers requests. An error from it stops
	// the node.
	Ready func(Ready) error
}

// Ready is what somebody needs to talk to a node that has just started.
type Ready struct {
	Node       string // id
	GatewayURL string
	ControlURL string
	ObjectsURL string // empty when the node has no object store
	CA         []byte // PEM
	AdminKey   string // set when a new one was made
	FirstBoot  bool
	Took       time.Duration
}

// Run starts a node and serves until ctx ends; then it takes no new work, lets
// what is under way finish within Options.Drain, and stops. It returns nil after
// a clean stop. Cancelling ctx is how to stop it; calling it on a directory that
// another process holds fails.
func Run(ctx context.Context, o Options) (err error) {
	if o.DataDir == "" {
		return errors.New("starting the node: Options.DataDir is not set")
	}
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return fmt.Errorf("finding the data directory: %v", err)
	}
	if o.Executable == "" {
		if o.Executable, err = os.Executable(); err != nil {
			return fmt.Errorf("finding this program's own file: %v", err)
		}
	}
	if o.Gateway == "" {
		o.Gateway = DefaultGateway
	}
	if o.Control == "" {
		o.Control = DefaultControl
	}
	if o.Drain <= 0 {
		o.Drain = DefaultDrain
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &node{opts: o, log: o.Logger, clock: time.Now, began: time.Now(), ids: &ids{clock: time.Now}}
	// What was started is stopped, in reverse, whether or not the start went
	// through to the end.
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.start(ctx); err != nil {
		return err
	}
	return n.serve(ctx)
}
