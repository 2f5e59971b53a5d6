package main

// This file carries one request from the platform to your function and the
// answer back. It is yours: read it, change it, or leave it alone.
//
// A request arrives on standard input as one line of JSON, then the body; the
// answer leaves on standard output in the same shape. What you write on
// standard error (println does) is the function's log.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

// Request is what came in.
type Request struct {
	ID       string              `json:"id"`
	Method   string              `json:"method"`
	Path     string              `json:"path"`     // decoded
	Query    string              `json:"query"`    // as sent, without "?"
	Headers  map[string][]string `json:"headers"`  // lower-case names
	Params   map[string]string   `json:"params"`   // {name} parts of the route's path
	Trigger  string              `json:"trigger"`  // http, invoke, …
	Caller   string              `json:"caller"`   // verified by the platform; "anonymous" on a public route
	Deadline int64               `json:"deadline"` // Unix milliseconds; also the deadline of the context
	Body     []byte              `json:"-"`
}

// Header returns the first value of a header, or "". Case does not matter.
func (r *Request) Header(name string) string {
	if v := r.Headers[strings.ToLower(name)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Response is what goes out. A zero Status means 200.
type Response struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    []byte            `json:"-"`
}

// JSON answers with v encoded as JSON.
func JSON(status int, v any) (*Response, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &Response{
		Status:  status,
		Headers: map[string]string{"content-type": "application/json"},
		Body:    append(b, '\n'),
	}, nil
}

// Serve hands one request to fn and writes its answer. Call it once, from main.
// When fn fails, the error goes to the log and the caller gets a 502 that says
// nothing about it.
func Serve(fn func(context.Context, *Request) (*Response, error)) {
	if err := serve(os.Stdin, os.Stdout, fn); err != nil {
		_, _ = os.Stderr.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
}

// handle is the way in when casemate.yaml says `entry: handle`: the Go runtime is
// then started before the request comes.
//
//go:wasmexport handle
func handle() { main() }

func serve(in io.Reader, out io.Writer, fn func(context.Context, *Request) (*Response, error)) error {
	input, err := readAll(in)
	if err != nil {
		return err
	}
	head, body, ok := bytes.Cut(input, []byte("\n"))
	if !ok {
		return errors.New("reading the request: it has no head")
	}
	r := &Request{Body: body}
	if err := json.Unmarshal(head, r); err != nil {
		return errors.New("reading the request: " + err.Error())
	}
	ctx := context.Background()
	if r.Deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, time.UnixMilli(r.Deadline))
		defer cancel()
	}

	w, err := fn(ctx, r)
	if err != nil {
		return err
	}
	if w == nil {
		w = &Response{Status: 204}
	}
	if w.Status == 0 {
		w.Status = 200
	}
	if head, err = json.Marshal(w); err != nil {
		return err
	}
	if _, err = out.Write(append(head, '\n')); err != nil {
		return err
	}
	_, err = out.Write(w.Body)
	return err
}

// readAll is io.ReadAll with a large buffer, since each read leaves the sandbox.
func readAll(r io.Reader) ([]byte, error) {
	b := make([]byte, 0, 64<<10)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
	}
}
