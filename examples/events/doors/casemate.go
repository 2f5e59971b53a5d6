package main

// This file carries requests from the platform to your function and its answers
// back. It is yours: read it, change it, or leave it alone.
//
// A request arrives on standard input as one line of JSON, then the body; the
// answer leaves on standard output in the same shape. What you write on standard
// error (println does) is the function's log.
//
// With `entry: handle` the platform starts the program once, when it is deployed,
// and keeps it as prepare leaves it. Each request is a call of handle on a copy of
// that: what one request changes in variables, no other sees.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
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
	Status      int
	ContentType string
	Headers     map[string]string // the other ones
	Body        []byte
}

// JSON answers with v encoded as JSON.
func JSON(status int, v any) (*Response, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &Response{Status: status, ContentType: "application/json", Body: append(b, '\n')}, nil
}

// Handler answers one request. When it fails, the error goes to the log and the
// caller gets a 502 that says nothing about it.
type Handler = func(context.Context, *Request) (*Response, error)

// Serve answers requests with fn. Call it once, at the end of main.
//
// With samples, and `entry: handle`, fn answers those once when it is deployed, so
// that what it fills on first use is full for every request; README.md says more.
func Serve(fn Handler, samples ...*Request) {
	if library {
		handler, warmUps = fn, samples
	} else if err := answer(fn); err != nil {
		os.Exit(int(failed(err)))
	}
}

var (
	library bool // main only has to say what to serve
	handler Handler
	warmUps []*Request
)

// call is what one request needs. Writing to memory costs time by the page, and
// allocating writes to many, so it lies together and is there from the start.
type call struct {
	request Request
	ctx     deadline
	values  [64]string
	output  [2 << 10]byte
}

var (
	current call
	buffer  [64 << 10]byte
)

// prepare runs main and then the samples, when the function is deployed.
//
//go:wasmexport prepare
func prepare() int32 {
	library = true
	if main(); handler == nil {
		return failed(errors.New("main did not call Serve"))
	}
	for range 2 { // the second round refills what collecting garbage emptied
		runtime.GC() // so that no request has to
		err := try(&Request{}, func(context.Context, *Request) (*Response, error) { return JSON(200, "") })
		for i := 0; i < len(warmUps) && err == nil; i++ {
			err = try(warmUps[i], handler)
		}
		if err != nil {
			return failed(err)
		}
	}
	current.request.Headers = map[string][]string{"": nil} // a map that has room
	clear(current.request.Headers)
	return 0
}

//go:wasmexport handle
func handle() int32 {
	if err := answer(handler); err != nil {
		return failed(err)
	}
	return 0
}

func failed(err error) int32 {
	_, _ = os.Stderr.WriteString("error: " + err.Error() + "\n")
	return 1
}

// try has fn answer a request that nobody sent.
func try(r *Request, fn Handler) error {
	head, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// In memory of its own, since fn may keep parts of it.
	_, _, err = new(call).serve(append(append(head, '\n'), r.Body...), fn)
	return err
}

// answer reads the request, has fn answer it, and writes what it answers.
func answer(fn Handler) error {
	input := buffer[:]
	for length := 0; ; {
		n, err := syscall.Read(syscall.Stdin, input[length:])
		if err != nil {
			return errors.New("reading the request: " + err.Error())
		}
		if length += n; n == 0 {
			input = input[:length]
			break
		}
		if length == len(input) {
			input = append(input, make([]byte, 3*length)...)
		}
	}
	head, body, err := current.serve(input, fn)
	if err != nil {
		return err
	}
	if len(body) <= cap(head)-len(head) { // each write leaves the sandbox
		head, body = append(head, body...), nil
	}
	for _, b := range [][]byte{head, body} {
		for len(b) > 0 {
			n, err := syscall.Write(syscall.Stdout, b)
			if err != nil {
				return errors.New("writing the answer: " + err.Error())
			}
			b = b[n:]
		}
	}
	return nil
}

// serve gives the answer to a request as a head line and a body.
func (c *call) serve(input []byte, fn Handler) (head, body []byte, err error) {
	head, body, ok := bytes.Cut(input, []byte("\n"))
	if !ok {
		return nil, nil, errors.New("reading the request: it has no head")
	}
	r := &c.request
	if !c.quick(unsafe.String(unsafe.SliceData(head), len(head))) { // the input stays as it is
		*r = Request{}
		if err := json.Unmarshal(head, r); err != nil {
			return nil, nil, errors.New("reading the request: " + err.Error())
		}
	}
	r.Body = body
	c.ctx.at = time.UnixMilli(r.Deadline)
	w, err := fn(&c.ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if w == nil {
		w = &Response{Status: 204}
	}
	if w.Status == 0 {
		w.Status = 200
	}
	head = strconv.AppendInt(append(c.output[:0], `{"status":`...), int64(w.Status), 10)
	head = append(head, `,"headers":{`...)
	if w.ContentType != "" {
		head = append(quote(append(head, `"content-type":`...), w.ContentType), ',')
	}
	for name, value := range w.Headers {
		head = append(quote(append(quote(head, name), ':'), value), ',')
	}
	return append(bytes.TrimSuffix(head, []byte(",")), "}}\n"...), w.Body, nil
}

// quote appends s as a JSON string.
func quote(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // it cannot fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// deadline is a context that has a timer only when somebody waits for it.
type deadline struct {
	at    time.Time // 1970 for none
	once  sync.Once
	timed context.Context
	stop  context.CancelFunc
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, d.at.Unix() > 0 }
func (d *deadline) Done() <-chan struct{}       { return d.timer().Done() }
func (d *deadline) Err() error                  { return d.timer().Err() }
func (d *deadline) Value(any) any               { return nil }

func (d *deadline) timer() context.Context {
	d.once.Do(func() {
		d.timed = context.Background()
		if at, ok := d.Deadline(); ok {
			d.timed, d.stop = context.WithDeadline(d.timed, at)
		}
	})
	return d.timed
}

// quick decodes a head as the platform usually writes it, and reports whether it
// could. What it does not know, mistakes too, is encoding/json's to judge.
func (c *call) quick(head string) bool {
	r, values, s := &c.request, c.values[:0], scanner{rest: head}
	for s.open('{'); s.more('}'); {
		switch name := s.text(':'); name {
		case "id":
			r.ID = s.text(0)
		case "method":
			r.Method = s.text(0)
		case "path":
			r.Path = s.text(0)
		case "query":
			r.Query = s.text(0)
		case "trigger":
			r.Trigger = s.text(0)
		case "caller":
			r.Caller = s.text(0)
		case "deadline":
			r.Deadline = s.number()
		case "params":
			r.Params = map[string]string{}
			for s.open('{'); s.more('}'); {
				name := s.text(':')
				r.Params[name] = s.text(0)
			}
		case "headers":
			if r.Headers == nil {
				r.Headers = map[string][]string{}
			}
			for s.open('{'); s.more('}'); {
				name, from := s.text(':'), len(values)
				for s.open('['); s.more(']'); {
					values = append(values, s.text(0))
				}
				r.Headers[name] = values[from:len(values):len(values)]
			}
		default:
			s.text(0) // a later platform may say more
		}
	}
	return !s.bad && s.rest == ""
}

// scanner takes JSON without blanks off the front of rest. After the first thing
// that it does not take, bad is set and what it gives means nothing.
type scanner struct {
	rest       string
	bad, first bool
}

// open takes the beginning of a list, more what comes before its next member, or
// its end.
func (s *scanner) open(begin byte) { s.take(begin); s.first = true }

func (s *scanner) more(end byte) bool {
	first := s.first
	s.first = false
	if s.bad || s.rest != "" && s.rest[0] == end {
		s.take(end)
		return false
	}
	if !first {
		s.take(',')
	}
	return !s.bad
}

func (s *scanner) take(c byte) {
	if s.rest == "" || s.rest[0] != c {
		s.bad = true
		return
	}
	s.rest = s.rest[1:]
}

// text takes a string, and what has to follow it.
func (s *scanner) text(then byte) string {
	s.take('"')
	end := strings.IndexByte(s.rest, '"')
	if end < 0 {
		s.bad = true
		return ""
	}
	text := s.rest[:end]
	if strings.IndexByte(text, '\\') >= 0 {
		text, end = s.escaped()
	}
	s.rest = s.rest[end+1:]
	if then != 0 {
		s.take(then)
	}
	return text
}

// escaped decodes a string that has escapes, and says where it ends.
func (s *scanner) escaped() (text string, end int) {
	for end < len(s.rest)-1 && s.rest[end] != '"' {
		if s.rest[end] == '\\' && end < len(s.rest)-2 {
			end++
		}
		end++
	}
	s.bad = s.bad || json.Unmarshal([]byte(`"`+s.rest[:end+1]), &text) != nil
	return text, end
}

func (s *scanner) number() (n int64) {
	for s.rest != "" && '0' <= s.rest[0] && s.rest[0] <= '9' {
		n = 10*n + int64(s.rest[0]-'0')
		s.rest = s.rest[1:]
	}
	return n
}
