package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/registry"
)

// Artifacts keeps code by its digest; see registry.Registry for all four. What
// Artifact gives has been checked against the digest.
type Artifacts interface {
	PutArtifact(ctx context.Context, d function.Digest, size int64, r io.Reader) error
	HasArtifact(ctx context.Context, d function.Digest) (bool, error)
	Artifact(ctx context.Context, d function.Digest) ([]byte, error)
}

// Deployments changes what is deployed.
type Deployments interface {
	Plan(ctx context.Context, ns, alias string, specs []registry.Spec) (registry.Plan, error)
	Apply(ctx context.Context, plan registry.Plan, specs []registry.Spec, by string) ([]registry.Deployed, error)
	Delete(ctx context.Context, ref function.Ref, by string) error
}

// Functions reads what is deployed.
type Functions interface {
	Function(ref function.Ref) (registry.Function, error)
	Functions(ns string) []registry.Function
	Versions(ref function.Ref) ([]*function.Version, error)
	Version(ref function.Ref, id string) (*function.Version, error)
}

// Aliases moves pointers.
type Aliases interface {
	SetAlias(ctx context.Context, ref function.Ref, alias string, targets []registry.Weight, revision uint64, by string) (registry.Alias, error)
	DeleteAlias(ctx context.Context, ref function.Ref, alias, by string) error
	Rollback(ctx context.Context, ref function.Ref, alias, to, by string) (registry.Alias, error)
}

// Registry is what is deployed on the node.
type Registry interface {
	Artifacts
	Deployments
	Functions
	Aliases
}

// Invoker runs calls; see invoke.Invoker.
type Invoker interface {
	Invoke(ctx context.Context, call *invoke.Call) (*invoke.Outcome, error)
}

// Keys keeps API keys; see identity.Keys.
type Keys interface {
	Verify(presented string) (identity.Principal, error)
	Create(ctx context.Context, in identity.NewKey) (secret string, key identity.Key, err error)
	Revoke(ctx context.Context, id, by string) error
	List(ctx context.Context) ([]identity.Key, error)
}

// Recorder reads what was recorded; see audit.Recorder.
type Recorder interface {
	Receipt(ctx context.Context, id string) (audit.Receipt, error)
	Receipts(ctx context.Context, q audit.Query) ([]audit.Receipt, error)
	Stream(ctx context.Context, q audit.Query, fn func(audit.Record) bool) error
}

// Config is what a Handler is made of. Every field is needed but CheckTriggers and
// Events: without them a node has no triggers, and says so.
type Config struct {
	Registry Registry
	Invoker  Invoker
	Keys     Keys
	Recorder Recorder
	Status   func(context.Context) api.Status
	Posture  func() api.SandboxPosture // of what separates guest code from the machine
	// Corruptions counts the places in stored data that were found damaged since the start.
	Corruptions func() int64
	// Prepare makes a version ready to run, before an alias may point at it. Its
	// error is a *problem.Error, invalid_module when the code cannot be run.
	Prepare func(context.Context, *function.Version) error
	// Reserve reports, as a *problem.Error, whether the places that these versions
	// reserve can be had together, beside what the other functions hold.
	Reserve func([]*function.Version) error
	// CheckTriggers is asked before triggers are put in force.
	CheckTriggers CheckTriggers
	Events        *EventsConfig
	Clock         func() time.Time
	Logger        *slog.Logger
	NewID         func() string // of requests and events
}

// Limits of this door. Sizes are bytes.
const (
	MaxArtifact      = 64 << 20
	maxDeployBody    = 8 << 20
	maxSmallBody     = 64 << 10
	maxInvokeBody    = function.MaxBodyLimit/3*4 + 512<<10 // base64, and the rest
	maxHeaders       = 32 << 10
	bodyTime         = time.Minute
	headerTime       = 10 * time.Second
	readTime         = 10 * time.Minute // an artifact over a slow line
	exchangeTime     = function.MaxTimeout + readTime
	idleTime         = 2 * time.Minute
	streamWriteTime  = 30 * time.Second // for one record to be taken off our hands
	maxStreams       = 100
	pingAfter        = 15 * time.Second
	pingTime         = 15 * time.Second
	maxRequestID     = 64
	statsWindow      = 24 * time.Hour
	statsReceipts    = 1000
	describeReceipts = 10
	defaultTail      = 100
	maxTail          = 10_000
	keepLogLines     = 100
)

// Handler is the door. New makes one.
type Handler struct {
	cfg  Config
	mux  *http.ServeMux
	api  huma.API
	end  context.Context // of the log streams
	stop context.CancelCauseFunc

	tallies   tallies
	metrics   *metrics
	examining sync.Mutex // held while the node is examined
}

// New checks that the configuration is complete.
func New(cfg Config) (*Handler, error) {
	missing := ""
	switch {
	case cfg.Registry == nil:
		missing = "Registry"
	case cfg.Invoker == nil:
		missing = "Invoker"
	case cfg.Keys == nil:
		missing = "Keys"
	case cfg.Recorder == nil:
		missing = "Recorder"
	case cfg.Status == nil:
		missing = "Status"
	case cfg.Posture == nil:
		missing = "Posture"
	case cfg.Corruptions == nil:
		missing = "Corruptions"
	case cfg.Reserve == nil:
		missing = "Reserve"
	case cfg.Prepare == nil:
		missing = "Prepare"
	case cfg.Clock == nil:
		missing = "Clock"
	case cfg.Logger == nil:
		missing = "Logger"
	case cfg.NewID == nil:
		missing = "NewID"
	}
	if missing != "" {
		return nil, fmt.Errorf("making the control door: Config.%s is not set", missing)
	}
	if cfg.Events != nil {
		if err := cfg.Events.check(); err != nil {
			return nil, err
		}
	}
	return build(cfg), nil
}

func build(cfg Config) *Handler {
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), metrics: newMetrics()}
	h.end, h.stop = context.WithCancelCause(context.Background())
	h.api = newAPI(h.mux)
	h.registerNode()
	h.registerMetrics()
	h.registerArtifacts()
	h.registerDeployments()
	h.registerFunctions()
	h.registerInvocations()
	h.registerRecords()
	h.registerKeys()
	h.registerTriggers()
	h.registerEvents()
	h.registerStory()
	h.registerTail()
	h.registerReplays()
	h.registerDeadLetters()
	h.registerConnections()
	h.registerDoctor()
	finishDocument(h.api)
	return h
}

// Drain ends the log streams that are open. It may be called more than once.
func (h *Handler) Drain() { h.stop(errDraining) }

// Server returns the HTTP server for the door, HTTP/1.1 and HTTP/2, with its
// limits set. When it is shut down, a Handler's log streams end.
func Server(handler http.Handler, config *tls.Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	srv := &http.Server{
		Handler: handler, TLSConfig: config, Protocols: protocols,
		MaxHeaderBytes: maxHeaders, ReadHeaderTimeout: headerTime, ReadTimeout: readTime,
		WriteTimeout: exchangeTime, IdleTimeout: idleTime,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTime},
	}
	if h, ok := handler.(*Handler); ok {
		srv.ErrorLog = slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelDebug)
		srv.RegisterOnShutdown(h.Drain)
	}
	return srv
}
