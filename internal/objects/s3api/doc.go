// Package s3api is the object store's door: the S3 REST API, path style and virtual-host
// style, for the clients that there are.
//
// Only node imports it, and serves it on a listener of its own. It is safe for concurrent
// use. Every request must be signed; who signed may do what the Holder says. A bucket
// b of namespace n is called n.b here, and that of the namespace default just b: who may
// not read or write it does not learn whether it exists.
//
// What is not in the list of operations is answered NotImplemented, and so is a parameter
// or header that would change what a request means: nothing is passed over in silence.
// Bodies are streamed, documents are bounded, and a change is answered after it is on
// disk and told. Source: Amazon S3 API Reference, 2006-03-01.
package s3api

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/objects"
)

// Defaults and bounds.
const (
	DefaultNamespace = "default"
	DefaultAtOnce    = 256
	maxHeader        = 32 << 10 // bytes of the request's head
	maxDocument      = 1 << 20  // bytes of an XML document
	maxComplete      = 4 << 20  // of that which completes an upload: 10,000 parts with checksums
	headTime         = 10 * time.Second
	idleTime         = 2 * time.Minute
	stallTime        = 30 * time.Second // without a byte of a body, either way
	region           = "us-east-1"      // is what clients assume when none is told
)

// Holder is who holds an access key.
type Holder interface {
	String() string
	// May reports whether the bucket may be read or written. The bucket "*" asks for all
	// that there may be.
	May(write bool, namespace, bucket string) bool
}

// Keys knows access keys.
type Keys interface {
	// SigningKey derives the key that signs for an access key on a day (form 20060102),
	// in a region, for a service. For an access key that is not known or not good any
	// more it gives some key and a nil Holder, and takes as long.
	SigningKey(accessKey, day, region, service string) ([]byte, Holder)
}

// Config is what a door is made of. Store, Keys, Clock, Log and RequestID must be set.
type Config struct {
	Store     *objects.Store
	Keys      Keys
	Clock     func() time.Time
	Log       *slog.Logger
	RequestID func() string
	Domains   []string // virtual-host style is BUCKET.DOMAIN
	AtOnce    int      // requests; 0 means DefaultAtOnce; more are answered SlowDown
}

// Door answers S3 requests.
type Door struct {
	Config
	places chan struct{}
	routes []route
}

// New makes a door.
func New(c Config) (*Door, error) {
	if c.Store == nil || c.Keys == nil || c.Clock == nil || c.Log == nil || c.RequestID == nil {
		return nil, errors.New("making the S3 door: Store, Keys, Clock, Log and RequestID must be set")
	}
	if c.AtOnce == 0 {
		c.AtOnce = DefaultAtOnce
	}
	for i, d := range c.Domains {
		c.Domains[i] = strings.ToLower(strings.Trim(d, "."))
	}
	return &Door{Config: c, places: make(chan struct{}, c.AtOnce), routes: routes()}, nil
}

// Server returns the HTTP server for this door with its limits set. It speaks HTTP/1.1
// alone, as S3 does. Without TLS, bodies must be signed.
func (d *Door) Server(config *tls.Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: d, TLSConfig: config, Protocols: protocols,
		MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headTime, IdleTimeout: idleTime,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
	}
}
