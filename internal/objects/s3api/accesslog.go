package s3api

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Bounds of what a line of the log quotes of a request, in bytes.
const maxLogged = 512

// counted is the writer of an exchange, so that status and size are known to the log.
type counted struct {
	http.ResponseWriter
	x *exchange
}

// WriteHeader is part of http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	if c.x.status == 0 && status >= http.StatusOK {
		c.x.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write is part of http.ResponseWriter.
func (c *counted) Write(b []byte) (int, error) {
	if c.x.status == 0 {
		c.x.status = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(b)
	c.x.bytesOut += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// countedBody is the body of an exchange.
type countedBody struct {
	io.ReadCloser
	x *exchange
}

func (c *countedBody) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.x.bytesIn += int64(n)
	return n, err
}

// account writes the request's line in the access log: no header field and no query, in
// which a signature may be. What was denied, and what changes a bucket itself, is on the
// record of changes besides, as what operators do is.
func (x *exchange) account() {
	ctx, end := x.r.Context(), x.Clock()
	who, operation, code := "anonymous", "", ""
	if x.holder != nil { // its signature was verified
		who = x.holder.String()
	}
	if x.op != nil {
		operation = x.op.name
	}
	if x.failure != nil {
		code = render(x.failure).code
	}
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	remote, _, _ := net.SplitHostPort(x.r.RemoteAddr) // "" for none
	attrs := []slog.Attr{
		slog.String("id", x.id),
		slog.String("method", loggable(x.r.Method)),
		slog.String("path", loggable(path)),
		slog.String("operation", operation),
		slog.Int("status", x.status),
		slog.Int64("bytesIn", x.bytesIn),
		slog.Int64("bytesOut", x.bytesOut),
		slog.Duration("duration", end.Sub(x.begun)),
		slog.String("principal", who),
		slog.String("remote", remote),
	}
	if code != "" {
		attrs = append(attrs, slog.String("code", code))
	}
	x.Log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
	denied := x.status == http.StatusForbidden
	if !denied && (x.op == nil || !x.op.write || x.op.level != onBucket) {
		return
	}
	object := "objects"
	if x.bucket != "" {
		object = x.namespace + "/" + x.bucket
	}
	if x.key != "" {
		object += "/" + x.key
	}
	if operation == "" {
		operation = "request"
	}
	outcome := "ok"
	if code != "" {
		outcome = code
	}
	x.Log.LogAttrs(ctx, slog.LevelInfo, "audit",
		slog.String("principal", who), slog.String("action", "objects."+operation), slog.String("object", loggable(object)),
		slog.String("outcome", outcome), slog.String("request_id", x.id))
}

// loggable returns s so that no reader of a log is deceived by it: in one line, in ASCII,
// bounded, and without what looks like a secret of ours.
func loggable(s string) string {
	const secret = "cm_"
	if strings.Contains(s, secret) {
		segments := strings.Split(s, "/")
		for i, segment := range segments {
			if before, _, found := strings.Cut(segment, secret); found {
				segments[i] = before + "[key]"
			}
		}
		s = strings.Join(segments, "/")
	}
	if len(s) > maxLogged {
		s = s[:maxLogged] + "…"
	}
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}
