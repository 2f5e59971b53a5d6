package runtimeapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// base precedes every path.
const base = "/2018-06-01/runtime/"

// Names of headers, in the form in which net/http keeps them.
const (
	headerRequestID     = "Lambda-Runtime-Aws-Request-Id"
	headerDeadline      = "Lambda-Runtime-Deadline-Ms"
	headerARN           = "Lambda-Runtime-Invoked-Function-Arn"
	headerTrace         = "Lambda-Runtime-Trace-Id"
	headerClientContext = "Lambda-Runtime-Client-Context"
	headerErrorType     = "Lambda-Runtime-Function-Error-Type"
	headerErrorBody     = "Lambda-Runtime-Function-Error-Body"
	headerResponseMode  = "Lambda-Runtime-Function-Response-Mode"
	headerContentType   = "Content-Type"
)

// refusal is the body of an answer that says no.
type refusal struct {
	status           int
	message, errType string
}

var (
	invalidRequestID    = refusal{http.StatusBadRequest, "Invalid request ID", "InvalidRequestID"}
	invalidResponseMode = refusal{http.StatusBadRequest, "Invalid function response mode", "InvalidFunctionResponseMode"}
	truncatedRequest    = refusal{http.StatusBadRequest, "HTTP request detected as truncated", "TruncatedHTTPRequest"}
	noTransition        = refusal{http.StatusForbidden, "The runtime may not ask for this in the state that it is in", "InvalidStateTransition"}
	notFound            = refusal{http.StatusNotFound, "There is nothing at this path", "NotFound"}
	notAllowed          = refusal{http.StatusMethodNotAllowed, "This path has another method", "MethodNotAllowed"}
)

// serve is the whole surface. What is not named here does not exist.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.running.Done()
	rest, ok := strings.CutPrefix(r.URL.Path, base)
	if !ok || r.URL.RawPath != "" || r.URL.RawQuery != "" {
		notFound.write(w, r)
		return
	}
	if rest == "invocation/next" {
		if allowed(w, r, http.MethodGet) {
			s.next(w, r)
		}
		return
	}
	if rest == "init/error" {
		if allowed(w, r, http.MethodPost) {
			s.initError(w, r)
		}
		return
	}
	id, ok := strings.CutPrefix(rest, "invocation/")
	if !ok {
		notFound.write(w, r)
		return
	}
	id, verb, _ := strings.Cut(id, "/")
	if verb != "response" && verb != "error" {
		notFound.write(w, r)
		return
	}
	if allowed(w, r, http.MethodPost) {
		s.answer(w, r, id, verb == "error")
	}
}

// next hands the runtime its next event when there is one.
func (s *Server) next(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.asking || s.current != nil || s.initErr != nil {
		s.mu.Unlock()
		noTransition.write(w, r)
		return
	}
	s.asking = true
	if !s.asked {
		s.asked = true
		close(s.ready)
	}
	s.mu.Unlock()
	for {
		select {
		case inv := <-s.handing:
			if s.take(inv) {
				s.hand(w, inv)
				return
			}
		case <-r.Context().Done(): // the runtime hung up
			s.mu.Lock()
			s.asking = false
			s.mu.Unlock()
			return
		case <-s.closed:
			return
		}
	}
}

// hand writes the event.
func (s *Server) hand(w http.ResponseWriter, inv *invocation) {
	e := &inv.event
	h := w.Header()
	h["Date"] = nil // nobody reads it
	h[headerContentType] = []string{"application/json"}
	h[headerRequestID] = []string{e.RequestID}
	h[headerDeadline] = []string{strconv.FormatInt(e.Deadline.UnixMilli(), 10)}
	h[headerARN] = []string{e.ARN}
	if e.TraceID != "" {
		h[headerTrace] = []string{e.TraceID}
	}
	if e.ClientContext != "" {
		h[headerClientContext] = []string{e.ClientContext}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(e.Payload))}
	if _, err := w.Write(e.Payload); err != nil {
		s.finish(inv, outcome{err: ErrDisconnected})
	}
}

// answer takes what the function gave, or the fault that it reported.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, id string, fault bool) {
	inv := s.claim(id)
	if inv == nil {
		invalidRequestID.write(w, r)
		return
	}
	streamed := false
	if mode := r.Header[headerResponseMode]; len(mode) > 0 && !fault {
		streamed = strings.EqualFold(mode[0], "streaming")
		if !streamed && !strings.EqualFold(mode[0], "buffered") {
			s.unclaim(inv)
			invalidResponseMode.write(w, r)
			return
		}
	}
	limit := s.opts.MaxResponse
	if fault {
		limit = s.opts.MaxFault
	}
	// A body that does not come must not outlive the wait for it.
	stop := context.AfterFunc(inv.ctx, func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	})
	body, err := readBody(r.Body, r.ContentLength, limit)
	// Before the wait is ended by this very answer: the connection is needed again.
	stop()
	tooLarge := errors.Is(err, errTooLarge)
	switch {
	case tooLarge && !fault:
		f := responseTooLarge(limit)
		s.finish(inv, outcome{response: Response{Fault: f, Streamed: streamed}})
		refusal{
			http.StatusRequestEntityTooLarge,
			"Exceeded maximum allowed payload size (" + strconv.FormatInt(limit, 10) + " bytes).", "RequestEntityTooLarge",
		}.write(w, r)
		return
	case err != nil && !tooLarge:
		s.unclaim(inv)
		truncatedRequest.write(w, r)
		return
	}
	var out outcome
	switch {
	case fault:
		out.response.Fault = newFault(r.Header.Get(headerErrorType), body, tooLarge)
	default:
		out.response = Response{Body: body, ContentType: r.Header.Get(headerContentType), Streamed: streamed}
		if f := trailerFault(r.Trailer, s.opts.MaxFault); streamed && f != nil {
			out.response = Response{Fault: f, Streamed: true}
		}
	}
	if !s.finish(inv, out) {
		invalidRequestID.write(w, r)
		return
	}
	accept(w)
}

// initError takes the runtime's reason why it cannot start: once, and before it has
// asked for an event.
func (s *Server) initError(w http.ResponseWriter, r *http.Request) {
	if !s.mayFail() {
		noTransition.write(w, r)
		return
	}
	body, err := readBody(r.Body, r.ContentLength, s.opts.MaxFault)
	if err != nil && !errors.Is(err, errTooLarge) {
		truncatedRequest.write(w, r)
		return
	}
	f := newFault(r.Header.Get(headerErrorType), body, err != nil)
	s.mu.Lock()
	if s.asked || s.initErr != nil {
		s.mu.Unlock()
		noTransition.write(w, r)
		return
	}
	s.initErr = f
	close(s.failed)
	s.mu.Unlock()
	accept(w)
}

// mayFail says whether a failure to start would be news.
func (s *Server) mayFail() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.asked && s.initErr == nil
}

// allowed answers 405 to another method.
func allowed(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header()["Allow"] = []string{method}
	notAllowed.write(w, r)
	return false
}

const acceptedBody = `{"status":"OK"}` + "\n"

func accept(w http.ResponseWriter) {
	writeJSON(w, http.StatusAccepted, acceptedBody)
}

// write refuses r. It ends the connection when r has a body: that need not be read, and
// may never come.
func (f refusal) write(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		w.Header()["Connection"] = []string{"close"}
	}
	writeJSON(w, f.status, `{"errorMessage":"`+f.message+`","errorType":"`+f.errType+`"}`+"\n")
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	h := w.Header()
	h["Date"] = nil
	h[headerContentType] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a guest that hung up will not learn of it
}
