package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Dial connects to the guest's server. It fails at once, with an error that matches
// ErrNotListening or ECONNREFUSED, while nobody listens.
type Dial func(ctx context.Context) (net.Conn, error)

// Options of a Client.
type Options struct {
	Dial        Dial
	Host        string           // the host field where a request has none
	MaxResponse int64            // of a body, in bytes
	Clock       func() time.Time // to tell how long a connection was idle
}

// MaxIdle is how long an idle connection is used again. Servers close theirs after
// 2 s (gunicorn) or 5 s (Node.js); a request that crosses with that is lost, and
// could have been acted upon, so we stay well below.
const MaxIdle = time.Second

// Client calls one guest's server, one request at a time. It is not safe for use by
// several goroutines at once.
type Client struct {
	o    Options
	conn *conn  // kept between requests; nil when there is none
	head []byte // reused
}

// conn is a connection and what was read of it.
type conn struct {
	net.Conn
	r    *bufio.Reader
	idle time.Time // since when
}

// New gives a client. Nothing is dialled yet.
func New(o Options) *Client {
	if o.Host == "" {
		o.Host = "localhost"
	}
	return &Client{o: o}
}

// Close closes what is kept open. The client may be used again.
func (c *Client) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// How long Await waits between attempts.
const (
	firstWait = time.Millisecond
	longWait  = 20 * time.Millisecond
)

// Await returns when the guest's server accepts connections, and keeps the one that
// told it so. It fails with an *Error of kind Unreachable when it cannot be dialled
// for another reason than that nobody listens yet, or with the context's cause.
func (c *Client) Await(ctx context.Context) error {
	c.Close()
	t := time.NewTimer(firstWait)
	defer t.Stop()
	for wait := firstWait; ; wait = min(wait*3/2, longWait) {
		err := c.connect(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, ErrNotListening) {
			return err
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// AwaitListening returns when somebody accepts connections; see Client.Await.
func AwaitListening(ctx context.Context, dial Dial) error {
	c := New(Options{Dial: dial, Clock: func() time.Time { return time.Time{} }})
	defer c.Close()
	return c.Await(ctx)
}

func (c *Client) connect(ctx context.Context) error {
	raw, err := c.o.Dial(ctx)
	if err != nil {
		return &Error{Kind: Unreachable, Detail: "it does not accept connections", Cause: err}
	}
	c.conn = &conn{Conn: raw, r: bufio.NewReaderSize(raw, maxLine), idle: c.o.Clock()}
	return nil
}

// reuse reports whether the kept connection can take another request, and closes it
// when it cannot.
func (c *Client) reuse() bool {
	if c.conn == nil {
		return false
	}
	if c.o.Clock().Sub(c.conn.idle) < MaxIdle && c.conn.r.Buffered() == 0 && quiet(c.conn.Conn) {
		return true
	}
	c.Close()
	return false
}

// Invoke sends the request that a head describes. It fails with an *Error or with
// the context's cause; after either the state of the guest is unknown.
func (c *Client) Invoke(ctx context.Context, h *sandbox.Head, body []byte) (sandbox.ResponseHead, []byte, error) {
	r := fromHead(h, body)
	res, err := c.Do(ctx, &r)
	if err != nil {
		return sandbox.ResponseHead{}, nil, err
	}
	return sandbox.ResponseHead{Status: res.Status, Headers: res.Header}, res.Body, nil
}

// Do sends a request and reads its answer. It fails as Invoke does.
func (c *Client) Do(ctx context.Context, r *Request) (Response, error) {
	if ctx.Err() != nil {
		return Response{}, context.Cause(ctx)
	}
	var err error
	if c.head, err = appendRequest(c.head[:0], r, c.o.Host); err != nil {
		return Response{}, err
	}
	if cap(c.head) > maxHead {
		defer func() { c.head = nil }()
	}
	for {
		kept := c.reuse()
		if !kept {
			if err := c.connect(ctx); err != nil {
				if ctx.Err() != nil {
					return Response{}, context.Cause(ctx)
				}
				return Response{}, err
			}
		}
		res, sent, err := c.exchange(ctx, r)
		switch {
		case err == nil:
			return res, nil
		case ctx.Err() != nil:
			return Response{}, context.Cause(ctx)
		case kept && !sent:
			continue // on a new connection, so not again
		}
		return Response{}, err
	}
}

// past is a deadline that ends whatever is under way.
func past() time.Time { return time.Unix(1, 0) }

// exchange sends one request on the connection and reads the answer. It reports
// whether anything was sent. The connection is kept only after a clean answer.
func (c *Client) exchange(ctx context.Context, r *Request) (Response, bool, error) {
	k := c.conn
	c.conn = nil
	stop := context.AfterFunc(ctx, func() { _ = k.SetDeadline(past()) })
	again := false
	defer func() {
		if stop() && again {
			k.idle = c.o.Clock()
			c.conn = k
			return
		}
		_ = k.Close()
	}()

	sent, written, err := c.send(k, r)
	if !sent {
		return Response{}, false, err
	}
	res, keep, failed := answer(k.r, r.Method, c.o.MaxResponse)
	if failed != nil {
		// Ends a write that is still under way.
		_ = k.SetDeadline(past())
		<-written
		return Response{}, true, failed
	}
	// A server may answer before it has read all, and then the connection is spent.
	select {
	case whole := <-written:
		again = keep && whole
	default:
		_ = k.SetDeadline(past())
		<-written
	}
	return res, true, nil
}

// inlineBody is how large a body may be to be sent before the answer is awaited: it
// fits the socket's buffer, so that sending it does not wait for the guest.
const inlineBody = 16 << 10

// send sends the request. A large body goes on being sent after it returns; written
// gives one value when that is over: whether all was sent. When not a byte could be sent, err
// says why.
func (c *Client) send(k *conn, r *Request) (sent bool, written <-chan bool, err error) {
	done := make(chan bool, 1)
	small := len(r.Body) <= inlineBody
	if small {
		c.head = append(c.head, r.Body...)
	}
	n, err := k.Write(c.head)
	switch {
	case n == 0 && err != nil:
		return false, nil, &Error{Kind: Closed, Detail: "it closed the connection", Cause: err}
	case err != nil || small:
		done <- err == nil // when not, the server may have answered before it closed
	default:
		go func() {
			_, err := k.Write(r.Body)
			done <- err == nil
		}()
	}
	return true, done, nil
}

// sizeError names a limit, in bytes.
type sizeError int64

func (e sizeError) Error() string { return fmt.Sprintf("the limit is %d bytes", int64(e)) }
