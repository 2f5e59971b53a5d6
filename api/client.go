package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// RequestIDHeader carries a request's id, in both directions.
const RequestIDHeader = "X-Request-Id"

// Limits of a client.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	// maxAnswer bounds one JSON answer: the largest output of a function
	// (32 MiB), as base64, and room for the rest.
	maxAnswer = 48 << 20
)

// Options of a Client.
type Options struct {
	URL       string // of the control listener: https://host:port
	CA        []byte // PEM; the node's own authority, and the only one trusted
	Key       string // API key; without one the node refuses nearly everything
	UserAgent string // "casemate-api" when empty
}

// Client calls one node's control plane. All methods may be called from many
// goroutines. They fail with *Error when the node refused, with *ConnectError
// when no answer came, and with the context's error when that ended first.
type Client struct {
	base      string // without a slash at the end
	key       string
	userAgent string
	http      *http.Client
	transport *http.Transport
}

// NewClient checks the options and connects to nothing yet.
func NewClient(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return nil, errors.New("making client: URL is malformed; give it as https://host:port") // the cause repeats the text, which may hold a password
	case u.Scheme != "https" || u.Host == "":
		return nil, errors.New("making client: URL must be https://host:port, with nothing in the clear")
	case u.User != nil:
		return nil, errors.New("making client: URL must not hold a user or password; give the API key as Key")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("making client: URL must end with the port or a path; take away what follows ? or #")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(o.CA) {
		return nil, errors.New("making client: CA holds no PEM certificate; give the node's ca.pem")
	}
	for _, c := range []byte(o.Key) {
		if c <= ' ' || c > '~' {
			return nil, errors.New("making client: Key holds white space or characters that no key has; copy it again")
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		TLSHandshakeTimeout: handshakeTimeout,
		IdleConnTimeout:     time.Minute,
		Protocols:           protocols,
		// Small, so that a dead node is noticed while a log is followed.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	c := &Client{
		base: strings.TrimSuffix(u.String(), "/"), key: o.Key, userAgent: o.UserAgent, transport: t,
		http: &http.Client{
			Transport: t,
			// A node never redirects, and the key must not travel elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if c.userAgent == "" {
		c.userAgent = "casemate-api"
	}
	return c, nil
}

// Address is the URL that the client was made for.
func (c *Client) Address() string { return c.base }

// Close lets go of idle connections. The client can still be used.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// path joins segments, each escaped, under /v1.
func path(segments ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(escape(s))
	}
	return b.String()
}

// escape keeps a segment from being read as more or fewer than one.
func escape(s string) string {
	switch s {
	case "":
		return "%00" // no name is empty: let the node say so
	case ".":
		return "%2E"
	case "..":
		return "%2E%2E"
	}
	return url.PathEscape(s)
}

// send makes one round trip. On a nil error the status is 2xx and the caller
// closes the body.
func (c *Client) send(ctx context.Context, method, path string, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("making request: %v", err)
	}
	if size >= 0 && body != nil {
		req.ContentLength = size
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.userAgent)
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer func() { _ = resp.Body.Close() }()
		return nil, refusal(c.base, resp)
	}
	return resp, nil
}

// broken explains an exchange that ended early.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("calling %s: %w", c.base, context.Cause(ctx))
	}
	return connectError(c.base, err)
}

// call sends in as JSON, unless nil, and reads the answer into out, unless nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	header := http.Header{"Accept": {"application/json"}}
	var body io.Reader
	size := int64(-1)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding request: %v", err)
		}
		header.Set("Content-Type", "application/json")
		body, size = bytes.NewReader(b), int64(len(b))
	}
	resp, err := c.send(ctx, method, path, header, body, size)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := c.read(ctx, resp)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("reading answer of %s: it is not the JSON expected; are client and node of one version? (%v)", c.base, err)
	}
	return nil
}

func (c *Client) read(ctx context.Context, resp *http.Response) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("reading answer of %s: larger than %d MiB", c.base, maxAnswer>>20)
	}
	return b, nil
}
