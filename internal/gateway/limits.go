package gateway

import (
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// What holds where Limits is silent.
const (
	// DefaultHeaderBytes bounds the request line and all header fields together.
	DefaultHeaderBytes = 32 << 10
	// DefaultHeaderCount bounds the number of header fields.
	DefaultHeaderCount = 100
	// DefaultHeaderTime is how long a handshake, and the head of a request, may
	// take to arrive: a client that needs longer is holding the connection open.
	DefaultHeaderTime = 5 * time.Second
	// DefaultBodyGrace is how long a body may take before MinRate counts.
	DefaultBodyGrace = 10 * time.Second
	// DefaultBodyTime bounds the arrival of a body, however steadily it comes.
	DefaultBodyTime = 5 * time.Minute
	// DefaultMinRate is the slowest a body may arrive and an answer may be taken,
	// in bytes per second, once the grace is over.
	DefaultMinRate = 16 << 10
	// DefaultAnswerGrace is how long taking an answer may last before MinRate counts.
	DefaultAnswerGrace = 30 * time.Second
	// DefaultIdleTime ends a connection on which nothing is asked.
	DefaultIdleTime = 2 * time.Minute
	// DefaultExchangeTime bounds everything after the head of a request. It is the
	// backstop behind the finer limits, so it outlasts the longest function.
	DefaultExchangeTime = function.MaxTimeout + DefaultBodyTime + 5*time.Minute
	// DefaultStreams bounds the requests under way on one HTTP/2 connection.
	DefaultStreams = 100
	// DefaultConnections bounds the open connections of a listener.
	DefaultConnections = 4096
	// DefaultBodyMemory bounds the bytes of all request bodies held at once.
	DefaultBodyMemory = 256 << 20
)

// Bounds that are not for an operator to move.
const (
	maxRequestID       = 64          // bytes of an inbound X-Request-Id
	maxHost            = 255         // bytes of a Host field: the longest DNS name, RFC 1035
	maxMethod          = 20          // bytes of a method name
	maxCredential      = 512         // bytes of a presented key
	maxAnswerHeader    = 64 << 10    // bytes of the header fields of a function's answer
	maxAnswerFields    = 200         // header fields of a function's answer
	maxLoggedPath      = 1 << 10     // bytes of a path in the access log
	firstBodyBuffer    = 64 << 10    // bytes taken on the word of a Content-Length alone
	firstChunkBuffer   = 4 << 10     // bytes taken for a body of unknown length
	keepAliveRemainder = 64 << 10    // bytes of an unread body worth reading to keep a connection
	lingerTime         = time.Second // for the rest of a body nobody wants
	drainRetry         = time.Second // Retry-After while the node shuts down
	memoryRetry        = time.Second // Retry-After while body memory is used up
	h2StreamBuffer     = 256 << 10
	h2ConnectionBuffer = 1 << 20
	h2PingAfter        = 30 * time.Second
	h2PingTimeout      = 15 * time.Second
	h2WriteTimeout     = 30 * time.Second // without one byte taken
)

// Limits bound what one client, or all of them, can take. A zero field holds
// its default.
type Limits struct {
	HeaderBytes  int
	HeaderCount  int
	HeaderTime   time.Duration
	BodyGrace    time.Duration
	BodyTime     time.Duration
	MinRate      int64 // bytes per second
	AnswerGrace  time.Duration
	IdleTime     time.Duration
	ExchangeTime time.Duration
	Streams      int
	Connections  int
	BodyMemory   int64
}

// number is what Limits counts in.
type number interface {
	~int | ~int64
}

// settle puts the default where v is zero; it reports a value below least.
func settle[N number](field string, v *N, otherwise, least N) error {
	if *v == 0 {
		*v = otherwise
	}
	if *v < least {
		return fmt.Errorf("checking gateway limits: %s is %v: give at least %v, or leave it out for %v", field, *v, least, otherwise)
	}
	return nil
}

// withDefaults returns l with nothing left open, or says which field is wrong.
func (l Limits) withDefaults() (Limits, error) {
	for _, err := range []error{
		settle("HeaderBytes", &l.HeaderBytes, DefaultHeaderBytes, 1<<10),
		settle("HeaderCount", &l.HeaderCount, DefaultHeaderCount, 8),
		settle("HeaderTime", &l.HeaderTime, DefaultHeaderTime, time.Millisecond),
		settle("BodyGrace", &l.BodyGrace, DefaultBodyGrace, time.Millisecond),
		settle("BodyTime", &l.BodyTime, DefaultBodyTime, time.Millisecond),
		settle("MinRate", &l.MinRate, DefaultMinRate, 1),
		settle("AnswerGrace", &l.AnswerGrace, DefaultAnswerGrace, time.Millisecond),
		settle("IdleTime", &l.IdleTime, DefaultIdleTime, time.Millisecond),
		settle("ExchangeTime", &l.ExchangeTime, DefaultExchangeTime, time.Millisecond),
		settle("Streams", &l.Streams, DefaultStreams, 1),
		settle("Connections", &l.Connections, DefaultConnections, 1),
		settle("BodyMemory", &l.BodyMemory, DefaultBodyMemory, function.MaxBodyLimit),
	} {
		if err != nil {
			return l, err
		}
	}
	if l.BodyTime < l.BodyGrace {
		return l, fmt.Errorf("checking gateway limits: BodyTime %v is shorter than BodyGrace %v: raise BodyTime", l.BodyTime, l.BodyGrace)
	}
	return l, nil
}

// transferTime is what n bytes may take: the grace, and what they need at the
// slowest rate that is allowed.
func transferTime(grace time.Duration, n, rate int64) time.Duration {
	return grace + time.Duration(n)*time.Second/time.Duration(rate)
}
