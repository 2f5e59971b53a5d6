// Package connector runs sources that are programs of their own: connectors, which an
// operator installs beside the node. docs/spec/connector.md has the protocol that they speak.
//
// Only node imports it. There is one process for each trigger. It is not trusted: it gets
// the credentials of its own connection and no others, an empty environment, a user id of
// its own when the node is root, no files but the system's, and no system calls but those
// that a client of a server makes: it starts nothing, serves nobody, and touches no other
// process; what it says is bounded,
// and what breaks the protocol ends it. One that ends is started again after a while.
//
// Events reach the sink in the order in which the connector sent them, from one goroutine
// for each trigger. A line of events is answered after the sink has taken it, and a
// position is kept after all events that came before it were answered.
package connector

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Prefix begins the name of every connector's program; its kind follows.
const Prefix = "casemate-connector-"

// Defaults of Config.
const (
	DefaultMost   = 32
	DefaultAnswer = 20 * time.Second
	DefaultGrace  = 10 * time.Second
	DefaultPause  = time.Second
	// MostPause is how long a connector that keeps ending rests, at most.
	MostPause = time.Minute
	// most is what Config.Most may be.
	most = 64
)

// Config is how a Host works. Zero values are the defaults.
type Config struct {
	// Folders are looked through for programs, in this order. They and the programs must
	// belong to root or to the node's user, and nobody else may write to them.
	Folders []string
	// Confine limits the calling thread, and all that it starts, for good: files may be
	// read that are at or below paths of read, executed that are at or below those of
	// execute, and program may be both. The network is left alone. The thread has
	// renounced new privileges.
	Confine func(read, execute []string, program *os.File) error
	// Filter bounds the connector's system calls.
	Filter Filter
	// Weaker, if given, is told when a connector could not be sealed and started under
	// Filter.Start instead.
	Weaker func(kind string, why error)
	// Unconfined leaves Confine out when it is nil. Where the node is not root a connector
	// can then read what the node can.
	Unconfined bool
	// Most connectors at once, at most 64.
	Most int
	// Answer is how long a connector may take to say that it is ready, to look at
	// settings, and to answer that it is alive.
	Answer time.Duration
	// Grace is how long a connector may take to end when it was told to.
	Grace time.Duration
	// Pause is before the second start of a connector that ended; it doubles.
	Pause time.Duration
}

// Filter has programs of seccomp(2), encoded arrays of struct sock_filter. Sealed is put
// upon a connector before its first instruction. Where it cannot be, because nothing may be
// traced there, Start is put upon the thread that executes it: the same, but for what it
// takes to execute a program. Both or none must be given.
type Filter struct{ Sealed, Start []byte }

// Host starts connectors. Its methods may be called from many goroutines.
type Host struct {
	cfg   Config
	first int // user id of the first slot

	mu    sync.Mutex
	slots []bool // taken
}

// New checks the configuration.
func New(cfg Config) (*Host, error) {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.Answer, DefaultAnswer}, {&cfg.Grace, DefaultGrace}, {&cfg.Pause, DefaultPause}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if cfg.Most <= 0 {
		cfg.Most = DefaultMost
	}
	switch {
	case cfg.Most > most:
		return nil, fmt.Errorf("connectors: Most is %d, more than %d", cfg.Most, most)
	case (cfg.Filter.Sealed == nil) != (cfg.Filter.Start == nil) || len(cfg.Filter.Sealed)%8 != 0 || len(cfg.Filter.Start)%8 != 0:
		return nil, errors.New("connectors: Filter must have two programs, or none")
	case cfg.Confine == nil && !cfg.Unconfined:
		return nil, errors.New("connectors: they must be confined, or it must be said that they are not to be")
	}
	for _, f := range cfg.Folders {
		if !filepath.IsAbs(f) {
			return nil, fmt.Errorf("connectors: folder %s must be an absolute path", f)
		}
	}
	var seed [2]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("connectors: %v", err)
	}
	return &Host{
		cfg:   cfg,
		first: firstUID + int(binary.LittleEndian.Uint16(seed[:]))*most,
		slots: make([]bool, cfg.Most),
	}, nil
}

// firstUID begins the range of user ids for connectors: far from people, daemons, the
// ranges that containers are given, and boxes. A host has 64 of them, at a random place,
// so that two nodes on a machine hardly ever meet.
const firstUID = 1_601_000_000

var kindForm = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Installed gives the kinds whose programs lie in the folders, sorted. It does not start
// them.
func (h *Host) Installed() []string {
	var kinds []string
	for _, f := range h.cfg.Folders {
		entries, err := os.ReadDir(f)
		if err != nil {
			continue // it need not exist
		}
		for _, e := range entries {
			kind, ok := strings.CutPrefix(e.Name(), Prefix)
			if ok && kindForm.MatchString(kind) && !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Kind gives the kind of source that the program casemate-connector-NAME serves. The
// program need not be there yet.
func (h *Host) Kind(name string) (*Kind, error) {
	if !kindForm.MatchString(name) {
		return nil, fmt.Errorf("connectors: %.40q cannot be the name of a kind", name)
	}
	return &Kind{host: h, name: name}, nil
}

// Kind is a source.Kind and a source.ConnectionKind.
type Kind struct {
	host *Host
	name string
}

var (
	_ source.Kind           = (*Kind)(nil)
	_ source.ConnectionKind = (*Kind)(nil)
)

// Check implements source.Kind: it asks the program. It takes Config.Answer at most.
func (k *Kind) Check(t *function.Trigger) error {
	return k.check(&message{Settings: object(t.Settings)}, func(k *offered) error {
		switch {
		case k.Connection && t.Connection == "":
			return &source.FieldError{Field: "connection", Reason: "is missing: this kind needs one"}
		case !k.Connection && t.Connection != "":
			return &source.FieldError{Field: "connection", Reason: "must not be there: this kind has none"}
		}
		return nil
	})
}

// CheckConnection implements source.ConnectionKind: it asks the program.
func (k *Kind) CheckConnection(settings json.RawMessage, secrets []string) error {
	return k.check(&message{Connection: object(settings), SecretNames: secrets}, func(k *offered) error {
		if !k.Connection {
			return &source.FieldError{Field: "kind", Reason: "has no connections"}
		}
		for _, s := range secrets {
			if !slices.Contains(k.Secrets, s) {
				return &source.FieldError{Field: "secrets", Reason: fmt.Sprintf("has %.40q, which is none of %s", s, strings.Join(k.Secrets, ", "))}
			}
		}
		return nil
	})
}

// object is settings that may be missing.
func object(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}

// Run implements source.Kind. It starts the program again whenever it ends, and fails
// only with source.ErrRefused.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	source.Retry(ctx, k.host.cfg.Pause, MostPause, b.Clock, func(ctx context.Context) error {
		b.Report(source.Health{State: source.Starting, Lag: -1})
		err := k.once(ctx, b)
		if errors.Is(err, source.ErrRefused) {
			cancel(err)
		}
		return err
	}, func(err error, pause time.Duration) {
		b.Log.Warn("connector ended", "kind", k.name, "error", err, "again", pause)
		b.Report(source.Health{State: source.Failing, Reason: err.Error(), Lag: -1})
	})
	if err := context.Cause(ctx); errors.Is(err, source.ErrRefused) {
		return err
	}
	return nil
}
