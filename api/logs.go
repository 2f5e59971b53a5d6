package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// LogMediaType is the form of a log stream: one JSON object a line. Empty lines
// keep a quiet stream alive and mean nothing.
const LogMediaType = "application/x-ndjson"

// maxStreamLine bounds one line of a stream, in bytes. A guest's line has 8 KiB at
// most and an event's attributes 40 KiB, which JSON may make six times as long.
const maxStreamLine = 512 << 10

// LogElement is one line of a log stream on the wire: a record, or the problem
// that ended the stream.
type LogElement struct {
	LogRecord
	Error *problem.Details `json:"error,omitempty"`
}

// Logs streams the log of a namespace or of one function, in order of time. The
// request is made when the sequence is first drawn from, and again each time it
// is ranged over. An error is the last element. Ending the range, or the
// context, ends the stream; the latter yields the context's error.
func (c *Client) Logs(ctx context.Context, ns string, q LogQuery) iter.Seq2[LogRecord, error] {
	return func(yield func(LogRecord, error) bool) {
		for el, err := range streamOf[LogElement](ctx, c, "log", path("namespaces", ns, "logs")+q.encode()) {
			if err == nil && el.Error != nil {
				yield(LogRecord{}, &Error{Details: *el.Error})
				return
			}
			if !yield(el.LogRecord, err) || err != nil {
				return
			}
		}
	}
}

// streamOf reads an answer of JSON objects, one a line. An error is the last element.
func streamOf[T any](ctx context.Context, c *Client, what, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		header := http.Header{"Accept": {LogMediaType}}
		resp, err := c.send(ctx, http.MethodGet, path, header, nil, -1)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 0, 4<<10), maxStreamLine)
		for lines.Scan() {
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			var el T
			if err := json.Unmarshal(line, &el); err != nil {
				yield(none, fmt.Errorf("reading %s of %s: a line is not the JSON expected: %v", what, c.base, err))
				return
			}
			if !yield(el, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(none, c.broken(ctx, err))
		}
	}
}

// encode gives the query string, with "?" when there is one.
func (q LogQuery) encode() string {
	v := url.Values{}
	if q.Function != "" {
		v.Set("function", q.Function)
	}
	if q.RequestID != "" {
		v.Set("requestId", q.RequestID)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Tail != 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}
