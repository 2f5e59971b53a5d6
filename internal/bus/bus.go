package bus

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// KeySize is the length of Config.Key in bytes.
const KeySize = 32

// Defaults and bounds.
const (
	// DefaultMinFree is the space that a write leaves free in the file system of
	// the data directory.
	DefaultMinFree int64 = 64 << 20
	// MaxValue is the largest value of a KV and the largest record of a Log.
	MaxValue = 7 << 20

	maxPayload   = 8 << 20 // MaxValue, digest and headers fit in it
	maxMemory    = 16 << 20
	maxStore     = 1 << 60          // Config.MinFree bounds it; else the server reserves each log's bound at once
	startTimeout = 2 * time.Minute  // reading the index of large streams takes time
	callTimeout  = 30 * time.Second // of one request to the server when the context has no deadline
	maxWarnings  = 100
)

// ErrCorrupt and ErrFull are those of the package state, under their name here.
var (
	ErrCorrupt = state.ErrCorrupt
	ErrFull    = state.ErrFull
)

// Config of a Bus. Dir, Key, Name and Clock are required.
type Config struct {
	Dir     string // made with mode 0700 when absent; used by nothing else
	Key     []byte // 32 bytes that nothing else uses
	Name    string // of the node
	Logger  *slog.Logger
	Clock   func() time.Time // dates the warnings
	MinFree int64            // bytes; DefaultMinFree when zero
}

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("starting the bus: Config.Dir is empty: give the folder for its files")
	case len(c.Key) != KeySize:
		return fmt.Errorf("starting the bus: Config.Key has %d bytes: derive one of %d from the root key", len(c.Key), KeySize)
	case c.Name == "":
		return errors.New("starting the bus: Config.Name is empty: give the node's id")
	case c.Clock == nil:
		return errors.New("starting the bus: Config.Clock is nil: pass the node's clock")
	case c.MinFree < 0:
		return errors.New("starting the bus: Config.MinFree is negative: give bytes, or 0 for the default")
	}
	if c.MinFree == 0 {
		c.MinFree = DefaultMinFree
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Bus is the running server with a connection to it.
type Bus struct {
	cfg   Config
	log   *slog.Logger
	seal  sealer
	srv   *server.Server
	conn  *nats.Conn
	js    jetstream.JetStream
	close sync.Once

	opening sync.Mutex // before mu; held while a store is opened, so that each is opened once
	kvs     map[string]*KV
	blobs   map[string]*Blobs
	logs    map[string]*Log
	events  map[string]*Events

	marking  sync.Mutex // before mu; held while marks are saved
	markedAt time.Time
	marks    map[string]mark // of the last run; fixed after Start

	lost map[string]map[string]lostPosition // by stream and consumer; after Start, opening guards it

	mu       sync.Mutex
	streams  map[string]marked
	corrupt  error           // the first corruption that was met
	places   map[string]bool // where: each is reported once
	damages  int64           // corruptions met since the start
	warnings []string
	stopping bool
	tasks    sync.WaitGroup // Add only under mu while not stopping
}

// Start starts the server in this process. The caller holds the lock of the data
// directory, and stops the Bus with Close.
func Start(ctx context.Context, cfg Config) (*Bus, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the bus: %v", err)
	}
	atRest, err := hkdf.Key(sha256.New, cfg.Key, nil, "casemate/1 bus at rest", KeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the bus: %v", err)
	}
	digest, err := hkdf.Key(sha256.New, cfg.Key, nil, "casemate/1 bus digest", KeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the bus: %v", err)
	}
	b := &Bus{
		cfg: cfg, log: cfg.Logger, seal: newSealer(digest),
		kvs: map[string]*KV{}, blobs: map[string]*Blobs{}, logs: map[string]*Log{}, events: map[string]*Events{},
		streams: map[string]marked{}, markedAt: cfg.Clock(), lost: map[string]map[string]lostPosition{}, places: map[string]bool{},
	}
	if err := b.loadMarks(); err != nil {
		return nil, err
	}
	key := hex.EncodeToString(atRest)
	if err := b.inspect(key); err != nil {
		return nil, err
	}
	if b.srv, err = server.NewServer(options(cfg, key)); err != nil {
		return nil, fmt.Errorf("preparing the bus: %v", err)
	}
	b.srv.SetLoggerV2(serverLog{cfg.Logger}, false, false, false)
	// Start returns only when all streams are recovered, and a damaged one can keep
	// it from ever doing so.
	started := make(chan struct{})
	go func() {
		defer close(started)
		b.srv.Start()
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-started:
	case <-ctx.Done():
		return nil, fmt.Errorf("starting the bus: the server is still busy with its files after %v: if they are not very large, they are damaged; restore the data directory from your backup", startTimeout)
	}
	if err := b.connect(ctx); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func options(cfg Config, key string) *server.Options {
	return &server.Options{
		ServerName: cfg.Name,
		DontListen: true, // the only way in is a connection within this process
		NoSigs:     true, // signals are the node's business
		MaxPayload: maxPayload,

		JetStream:              true,
		StoreDir:               cfg.Dir,
		JetStreamKey:           key,
		JetStreamCipher:        server.AES,
		JetStreamMaxStore:      maxStore,
		JetStreamMaxMemory:     maxMemory, // for the state of readers; no stream lives in memory
		SyncAlways:             true,      // else acknowledged writes die with the power
		DisableJetStreamBanner: true,
	}
}

func (b *Bus) connect(ctx context.Context) error {
	if !b.srv.ReadyForConnections(startTimeout) || !b.srv.JetStreamEnabled() {
		return errors.New("starting the bus: the server did not become ready; the log says why")
	}
	var err error
	b.conn, err = nats.Connect("", nats.InProcessServer(b.srv), nats.Name("casemate"), nats.MaxReconnects(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("bus connection", "error", err)
		}))
	if err != nil {
		return fmt.Errorf("connecting to the bus: %v", err)
	}
	if b.js, err = jetstream.New(b.conn, jetstream.WithDefaultTimeout(callTimeout)); err != nil {
		return fmt.Errorf("connecting to the bus: %v", err)
	}
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("connecting to the bus: %v", err)
	}
	return nil
}

// Close stops the server and waits for it, at most until ctx ends. Everything
// that was acknowledged is on disk already.
func (b *Bus) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.stop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping the bus: %w", ctx.Err())
	}
}

func (b *Bus) stop() {
	b.close.Do(func() {
		b.mu.Lock()
		b.stopping = true
		b.mu.Unlock()
		b.tasks.Wait()
		b.opening.Lock()
		for _, e := range b.events {
			e.stop()
			ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
			if err := e.look(ctx); err != nil {
				b.log.Warn("asking consumers where they are", "events", e.cfg.Name, "error", err)
			}
			cancel()
		}
		b.opening.Unlock()
		if b.conn != nil {
			b.marking.Lock()
			if err := b.saveMarks(context.Background()); err != nil {
				b.log.Warn("saving the marks of the bus", "error", err)
			}
			b.marking.Unlock()
			b.conn.Close()
		}
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	})
}

// Version names the server and its version.
func (b *Bus) Version() string { return "nats-server " + server.VERSION }

// Check reports whether the bus can do its work: it fails with ErrCorrupt once a
// read has met corrupt data, with ErrFull when writes are refused for lack of
// space, and when the server does not answer.
func (b *Bus) Check(ctx context.Context) error {
	if !b.srv.JetStreamEnabled() || !b.conn.IsConnected() {
		return errors.New("checking the bus: the server has turned itself off; restart the node once the cause in the log is gone")
	}
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return b.failure("checking the bus", err)
	}
	b.mu.Lock()
	err := b.corrupt
	var all []*Events
	for _, m := range b.streams {
		if m.events != nil {
			all = append(all, m.events)
		}
	}
	b.mu.Unlock()
	for _, e := range all {
		err = cmp.Or(err, e.unpurged())
	}
	if err != nil {
		return err
	}
	return b.room("checking the bus")
}

// background runs fn beside the caller, unless the bus is stopping: Close waits for it.
func (b *Bus) background(fn func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return
	}
	b.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		fn(ctx)
	})
}

// Warnings lists damage met since the start, oldest first, as lines for people.
func (b *Bus) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.warnings...)
}

// Damages counts the corruptions that were met since the start. One that is met twice
// counts once.
func (b *Bus) Damages() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.damages
}

func (b *Bus) warn(text string) {
	b.log.Error("stored data is damaged", "what", text)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.warnings) < maxWarnings {
		b.warnings = append(b.warnings, b.cfg.Clock().UTC().Format(time.RFC3339)+" "+text)
	}
}

// corruption reports a value that is not what was written, and returns the error
// for the caller.
func (b *Bus) corruption(where string) error {
	return b.damage(where, where+": the stored value does not fit its digest")
}

// maxPlaces is how many damaged places are told apart. Of further ones, each time that
// one is met is reported.
const maxPlaces = 10_000

// damage reports a damaged place, once, with a text for people. It returns the error for
// the caller.
func (b *Bus) damage(where, text string) error {
	err := fmt.Errorf("reading %s: %w", where, ErrCorrupt)
	b.mu.Lock()
	known := b.places[where]
	if !known {
		if len(b.places) < maxPlaces {
			b.places[where] = true
		}
		b.damages++
	}
	if b.corrupt == nil {
		b.corrupt = err
	}
	b.mu.Unlock()
	if !known {
		b.warn(text)
	}
	return err
}

// room fails with ErrFull when the file system has less than MinFree left.
func (b *Bus) room(doing string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.cfg.Dir, &st); err != nil {
		return fmt.Errorf("%s: asking for free space: %v", doing, err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // of another type on other systems
	if free < b.cfg.MinFree {
		return fmt.Errorf("%s: %w: %d MiB are free and %d MiB stay reserved", doing, ErrFull, free>>20, b.cfg.MinFree>>20)
	}
	return nil
}

// Error codes of the server (its errors.json) that mean a lack of space.
const (
	codeResources   jetstream.ErrorCode = 10023
	codeStorage     jetstream.ErrorCode = 10047
	codeStoreFailed jetstream.ErrorCode = 10077 // carries the text of whatever kept a message from being stored
)

// failure turns an error of the server or the client into ours. The context's
// own error stays matchable.
func (b *Bus) failure(doing string, err error) error {
	if b.wantsSpace(err) {
		return fmt.Errorf("%s: %w: %v", doing, ErrFull, err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %v", doing, err)
}

// wantsSpace reports whether something failed because the disk is full. The server says
// so in few cases: in others a stream or consumer could not be made, or its file not be
// written (10049, 10012 and more, all of the kind 5xx), or it has turned itself off. So
// when one of those comes while the disk is full, that is why.
func (b *Bus) wantsSpace(err error) bool {
	var answer jetstream.JetStreamError
	switch {
	case err == nil:
		return false
	case errors.As(err, &answer) && answer.APIError() != nil:
		api := answer.APIError()
		switch api.ErrorCode {
		case codeResources, codeStorage:
			return true
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		default:
			if strings.Contains(api.Description, unix.ENOSPC.Error()) {
				return true
			}
			if api.Code < http.StatusInternalServerError {
				return false
			}
		}
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
	default:
		return false
	}
	return errors.Is(b.room("asking the bus"), ErrFull)
}

// stream makes the stream or brings its configuration up to date, and reports
// what was lost of it since. Keys are the subjects that keys selects; a log has
// none, and gaps in it are losses.
func (b *Bus) stream(ctx context.Context, cfg jetstream.StreamConfig, keys string) (jetstream.Stream, error) {
	cfg.Storage, cfg.Replicas, cfg.DenyDelete = jetstream.FileStorage, 1, true
	st, err := b.ensureStream(ctx, cfg)
	if err != nil {
		return nil, b.failure("opening "+cfg.Name, err)
	}
	s := st.CachedInfo().State
	if s.Lost != nil {
		b.warn(fmt.Sprintf("%s: the server cut away %d damaged messages (%d bytes) while starting", cfg.Name, len(s.Lost.Msgs), s.Lost.Bytes))
	}
	if keys == "" && s.NumDeleted > 0 {
		b.warn(fmt.Sprintf("%s: %d records are missing between the first and the last", cfg.Name, s.NumDeleted))
	}
	var subjects uint64
	if keys != "" {
		if subjects, err = countSubjects(ctx, st, keys); err != nil {
			return nil, b.failure("opening "+cfg.Name, err)
		}
	}
	if err := b.compare(cfg.Name, s, subjects, keys != ""); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams[cfg.Name] = marked{stream: st, filter: keys}
	return st, nil
}

// ensureStream makes a stream, or brings its configuration up to date. One that is as it
// should be is left alone: the server writes a configuration to two files, and does not
// know the stream any more when it is killed between them.
func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	st, err := b.js.Stream(ctx, want.Name)
	if err == nil && hasAll(st.CachedInfo().Config, want) {
		return st, nil
	}
	return b.js.CreateOrUpdateStream(ctx, want)
}

// hasAll reports whether a stream has all that is set in another configuration. The server
// fills in what is not set.
func hasAll(has, want jetstream.StreamConfig) bool {
	h, w := reflect.ValueOf(has), reflect.ValueOf(want)
	for i := range w.NumField() {
		if !w.Field(i).IsZero() && !reflect.DeepEqual(h.Field(i).Interface(), w.Field(i).Interface()) {
			return false
		}
	}
	return true
}

func checkName(what, name string) error {
	if !function.ValidName(name) {
		return fmt.Errorf("%s %.80q: want lower-case letters, digits and hyphens, beginning with a letter, at most 63", what, name)
	}
	return nil
}
