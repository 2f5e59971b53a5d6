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

// maxLogRecord bounds one line of a log stream, in bytes. A guest's line has
// 8 KiB at most, which JSON may make six times as long.
const maxLogRecord = 128 << 10

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
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		header := http.Header{"Accept": {LogMediaType}}
		resp, err := c.send(ctx, http.MethodGet, path("namespaces", ns, "logs")+q.encode(), header, nil, -1)
		if err != nil {
			yield(LogRecord{}, err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(make([]byte, 0, 4<<10), maxLogRecord)
		for lines.Scan() {
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			var el LogElement
			if err := json.Unmarshal(line, &el); err != nil {
				yield(LogRecord{}, fmt.Errorf("reading log of %s: a line is not the JSON expected: %v", c.base, err))
				return
			}
			if el.Error != nil {
				yield(LogRecord{}, &Error{Details: *el.Error})
				return
			}
			if !yield(el.LogRecord, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(LogRecord{}, c.broken(ctx, err))
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
