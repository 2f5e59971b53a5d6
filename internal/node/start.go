package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/durable"

	"github.com/google/uuid"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/control"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/intake"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/jsengine"
	"github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/outcome"
	"github.com/casemate-dev/casemate/internal/registry"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/codestore"
	"github.com/casemate-dev/casemate/internal/sandbox/process"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/webhook"
	"github.com/casemate-dev/casemate/internal/vault"
)

// Retention of what a node records by itself.
const (
	receiptsMaxAge         = 90 * 24 * time.Hour
	receiptsMaxBytes int64 = 4 << 30
	logsMaxAge             = 7 * 24 * time.Hour
	logsMaxBytes     int64 = 1 << 30
)

// collectEvery is how often what nothing needs any more is looked for; opening
// the registry does it too.
const collectEvery = time.Hour

// gcPercent is how much the heap may grow before it is collected. What the node
// keeps alive is a few megabytes, so Go's 100 would collect every few hundred
// requests: 0.53× of a bare server's throughput became 0.67× (gateway.noop.c32),
// and an idle node is no larger for it.
const gcPercent = 400

// timerSlack is by how much the kernel may delay a timer to let it fall together with
// another. Go's runtime polls by timers of 3 and 20 µs, and with the 50 µs that Linux
// allows these wakes and sleeps were a sixth of all processor time per answer at 32
// connections and a third at one (72 to 62 µs, and 155 to 95). Sandbox processes
// inherit it. No timer of ours or of a function's needs to be more precise.
const timerSlack = 500 * time.Microsecond

// shortTurn is how long the node's threads, and those of sandbox processes that have not
// computed for long, want to stay on a processor in one go: a tenth of the kernel's
// usual turn, so that an answer does not wait for a function in the middle of its own.
const shortTurn = 100 * time.Microsecond

// node is what a running node consists of, in the order in which it starts.
type node struct {
	opts  Options
	log   *slog.Logger
	clock func() time.Time
	began time.Time
	state atomic.Value // "starting", "ready", "draining"
	id    string
	ids   *ids // of requests and receipts

	vault     *vault.Vault
	bus       *bus.Bus
	recorder  *audit.Recorder
	keys      *identity.Keys
	authority *identity.Authority
	registry  *registry.Registry
	code      *codestore.Store // nil when Options.Runner replaces the sandboxes
	runner    sandbox.Runner
	posture   func() api.SandboxStatus
	native    func() string // in one line
	walls     func() api.SandboxPosture
	bare      bool // native functions run without a sandbox
	admission *invoke.Admission
	invoker   *invoke.Invoker

	events      *bus.Events
	deads       *bus.Events
	delivery    *delivery.Engine
	intake      *intake.Intake
	hooks       *webhook.Hooks
	connections *connection.Connections
	sources     *sources
	outcomes    *outcome.Store
	later       *later
	values      *keyvalue.Store

	objects *objects.Store // nil when the node has none
	buckets *bucket.Kind

	gateway *gateway.Gateway
	control *control.Handler

	served map[function.Ref]function.Digest // what live pointed at; follow alone touches it
	bound  map[delivery.Key]bool            // triggers that delivery keeps something of; likewise
	follow sync.Mutex

	gatewayListener, controlListener net.Listener
	gatewayServer, controlServer     *http.Server
	objectsListener                  net.Listener // nil, like the server, without a store
	objectsServer                    *http.Server
	firstBoot                        bool
	issuedKey                        string

	closers []closer
}

// closer undoes one step of the start.
type closer struct {
	name string
	stop func(context.Context) error
}

// onStop registers how to undo the step just taken.
func (n *node) onStop(name string, stop func(context.Context) error) {
	n.closers = append(n.closers, closer{name, stop})
}

// start takes the steps in order. What a step needs stands above it.
func (n *node) start(ctx context.Context) error {
	n.state.Store("starting")
	debug.SetGCPercent(gcPercent)
	if err := allowTimerSlack(timerSlack); err != nil {
		n.log.Debug("timers are more precise than they need be, and answers cost more", "error", err)
	}
	if err := takeShortTurns(shortTurn); err != nil {
		n.log.Debug("functions that compute may make others wait longer than they need", "error", err)
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		// Nothing is read or written before we know that we are alone.
		{"opening the data directory", n.openDirectory},
		// Addresses are taken early: a port in use should cost a second, not a
		// recovery. Nothing is accepted before the end.
		{"listening", n.listen},
		// Every other file is sealed with keys derived from the root key.
		{"unlocking", n.unlock},
		// Metadata, artifacts, receipts and logs live on the bus.
		{"starting the bus", n.startBus},
		// Receipts that a crash left in the journal go to the bus before new ones come.
		{"opening the record", n.openAudit},
		{"opening identities", n.openIdentity},
		{"opening the registry", n.openRegistry},
		// Sandboxes come after what they read artifacts from, and before who calls them.
		{"starting sandboxes", n.startSandboxes},
		{"building the invocation path", n.buildInvoke},
		// Triggers hear of the store's changes, so it is there before them.
		{"opening the object store", n.startObjects},
		// Events wait on the bus until what runs them is there, and the doors hand them in.
		{"opening the path of events", n.startEvents},
		// The doors open last, when everything behind them works.
		{"building the gateway", n.buildGateway},
		{"building the control plane", n.buildControl},
		{"building the object store's door", n.buildStoreDoor},
		// What the start itself needed is the first to be handed back.
		{"watching for rest", n.watchRest},
	}
	for _, s := range steps {
		begun := n.clock()
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		n.log.Debug("step done", "step", s.name, "took", n.clock().Sub(begun))
	}
	return nil
}

func (n *node) openDirectory(context.Context) error {
	dir := n.opts.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating it: %v", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o): run `chmod 700 %s`", dir, perm, dir)
	}
	release, err := vault.Lock(dir)
	if err != nil {
		return err
	}
	n.onStop("unlock the data directory", func(context.Context) error { return release() })
	n.id, n.firstBoot, err = nodeID(dir)
	return err
}

// nodeID reads the node's name, or gives it one on its first boot.
func nodeID(dir string) (id string, first bool, err error) {
	file := filepath.Join(dir, "node.id")
	b, err := os.ReadFile(file)
	if err == nil {
		if u, err := uuid.ParseBytes(b); err == nil {
			return u.String(), false, nil
		}
		return "", false, fmt.Errorf("%s does not hold a node id: restore it from a backup, or remove the file for a new id", file)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", false, err
	}
	u, err := uuid.NewRandom()
	if err != nil {
		return "", false, err
	}
	// Durably: an empty file after a power cut would keep the node from starting.
	return u.String(), true, durable.WriteFile(file, []byte(u.String()))
}

func (n *node) unlock(context.Context) (err error) {
	n.vault, err = vault.Open(n.opts.DataDir, n.opts.KeyFile)
	return err
}

func (n *node) startBus(ctx context.Context) (err error) {
	n.bus, err = bus.Start(ctx, bus.Config{
		Dir: filepath.Join(n.opts.DataDir, "bus"), Key: n.vault.Derive("bus"), Name: n.id, Logger: n.log, Clock: n.clock,
	})
	if err == nil {
		n.onStop("stop the bus", n.bus.Close)
	}
	return err
}

func (n *node) openAudit(ctx context.Context) error {
	receipts, err := n.bus.Log(ctx, bus.LogConfig{Name: "receipts", SubjectPrefix: "receipt", MaxAge: receiptsMaxAge, MaxBytes: receiptsMaxBytes})
	if err != nil {
		return err
	}
	logs, err := n.bus.Log(ctx, bus.LogConfig{Name: "logs", SubjectPrefix: "log", MaxAge: logsMaxAge, MaxBytes: logsMaxBytes})
	if err != nil {
		return err
	}
	n.recorder, err = audit.Open(audit.Config{
		Dir: filepath.Join(n.opts.DataDir, "journal"), Key: n.vault.Derive("journal"),
		Receipts: receipts, Logs: logs, Clock: n.clock, Logger: n.log,
	})
	if err == nil {
		n.onStop("close the record", n.recorder.Close)
	}
	return err
}

func (n *node) openIdentity(ctx context.Context) error {
	store, err := n.bus.KV(ctx, "identity")
	if err != nil {
		return err
	}
	if n.keys, err = identity.OpenKeys(ctx, store, n.vault, n.clock, rand.Reader); err != nil {
		return err
	}
	n.authority, err = identity.OpenAuthority(filepath.Join(n.opts.DataDir, "ca"), n.vault, n.names(), n.clock, rand.Reader)
	if err != nil {
		return err
	}
	return n.ensureAdministrator(ctx)
}

// names are what the server certificate vouches for besides loopback.
func (n *node) names() []string {
	names := append([]string{}, n.opts.Hosts...)
	for _, addr := range []string{n.opts.Gateway, n.opts.Control, n.opts.Objects} {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
				names = append(names, host)
			}
		}
	}
	return names
}

// ensureAdministrator leaves the client with a key that works.
func (n *node) ensureAdministrator(ctx context.Context) error {
	if n.opts.AdminKey != "" {
		if p, err := n.keys.Verify(n.opts.AdminKey); err == nil && p.May(identity.Admin, function.Ref{Namespace: "*", Name: "*"}) {
			return nil
		}
	}
	secret, key, err := n.keys.Create(ctx, identity.NewKey{
		Name: "administrator", Scopes: []identity.Scope{{Action: identity.Admin, Namespace: "*", Function: "*"}}, Creator: "node",
	})
	if err != nil {
		return fmt.Errorf("creating the administrator's key: %v", err)
	}
	n.issuedKey = secret
	n.log.Info("administrator key issued", "key", key.ID)
	return nil
}

func (n *node) openRegistry(ctx context.Context) error {
	store, err := n.bus.KV(ctx, "registry")
	if err != nil {
		return err
	}
	blobs, err := n.bus.Blobs(ctx, "artifacts")
	if err != nil {
		return err
	}
	n.registry, err = registry.Open(ctx, registry.Config{Store: store, Blobs: blobs, Clock: n.clock, Logger: n.log})
	if err != nil {
		return err
	}
	// Opening it has collected what nothing needs any more, once.
	n.every(ctx, collectEvery, "collecting what nothing needs any more", n.registry.Collect)
	return nil
}

// every does something now and then until the node stops. What it fails with is logged.
func (n *node) every(ctx context.Context, period time.Duration, doing string, do func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := do(ctx); err != nil && ctx.Err() == nil {
					n.log.Warn("what is done now and then failed", "doing", doing, "error", err)
				}
			}
		}
	}()
	n.onStop("stop "+doing, func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

func (n *node) startSandboxes(ctx context.Context) error {
	if n.opts.Runner != nil {
		n.runner, n.posture = n.opts.Runner, func() api.SandboxStatus { return api.SandboxStatus{Enforced: []string{}} }
		n.native = func() string { return "" }
		n.walls = func() api.SandboxPosture { return api.SandboxPosture{Tiers: []api.TierPosture{}} }
		return nil
	}
	var err error
	n.code, err = codestore.Open(codestore.Config{
		Dir: filepath.Join(n.opts.DataDir, "code"), Key: n.vault.Derive("code"), Clock: n.clock, Logger: n.log,
	})
	if err != nil {
		return err
	}
	config := process.Config{
		Executable: n.opts.Executable, Artifacts: n.registry, Code: n.code, Engine: jsengine.Module,
		Warm: n.opts.Warm, Logger: n.log, Clock: n.clock,
	}
	// What starts the sandboxes of both tiers outlives both.
	fromBroker := n.log.With("from", "broker")
	broker, err := keepBroker(ctx, n.log, n.clock, func(ctx context.Context) (*box.Broker, error) {
		return box.Open(ctx, box.Config{Logger: fromBroker})
	})
	noBroker := ""
	if err == nil {
		config.Boxes = broker
		n.onStop("end the broker", func(context.Context) error { return broker.close() })
	} else {
		noBroker = err.Error()
		config.Unboxed = "there is no broker: " + noBroker
	}
	r, err := process.New(config)
	if err != nil {
		return err
	}
	n.onStop("end the sandboxes", func(context.Context) error { return r.Close() })
	all := &tiers{wasm: r}
	natives, reason, err := n.startNative(ctx, broker, noBroker)
	if err != nil {
		return err
	}
	if natives == nil {
		all.reason = reason
	} else {
		all.native = natives
		n.onStop("end the native sandboxes", func(context.Context) error { return natives.Close() })
	}
	n.runner, n.posture = all, func() api.SandboxStatus { return sandboxStatus(r) }
	n.native = func() string { return describe(natives, reason) }
	n.walls = func() api.SandboxPosture { return sandboxPosture(r, natives, reason) }
	return nil
}

func (n *node) listen(context.Context) error {
	for _, l := range []struct {
		name, addr string
		to         *net.Listener
	}{{"gateway", n.opts.Gateway, &n.gatewayListener}, {"control", n.opts.Control, &n.controlListener}, {"objects", n.opts.Objects, &n.objectsListener}} {
		if l.addr == "" {
			continue // only the object store may be left out
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			hint := "choose an address with --" + l.name
			if errors.Is(err, syscall.EADDRINUSE) {
				hint = "is another node running there? If not, " + hint
			}
			return fmt.Errorf("%s on %s: %v; %s", l.name, l.addr, err, hint)
		}
		*l.to = ln
		n.onStop("close the "+l.name+"'s listener", func(context.Context) error {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

// tlsVersion is the least version that the doors speak.
func (n *node) tlsVersion() uint16 {
	if n.opts.AllowTLS12 {
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}
