package gateway

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
)

// answer sends what the function said, checked in full before the first byte: a
// refused answer leaves no trace in the problem that is sent instead.
func (g *Gateway) answer(x *exchange) error {
	if x.lambda != nil {
		g.sendLambda(x, x.lambda.answer)
		return nil
	}
	out := x.outcome
	if out.Status < 200 || out.Status > 599 {
		return badAnswer("its status is not between 200 and 599")
	}
	if reason := checkAnswerHeaders(out.Headers); reason != "" {
		return badAnswer(reason)
	}
	h := x.w.Header()
	copyAnswerHeaders(h, out.Headers, x.target.cors != nil)
	if x.receipt != "" {
		x.setHeader(headerReceipt, x.receipt)
	}
	x.setHeader("X-Content-Type-Options", "nosniff")
	body := out.Body
	if bodiless(out.Status) {
		body = nil
		delete(h, "Content-Type")
	} else {
		if len(h["Content-Type"]) == 0 {
			// Never left to a guess: net/http would look at the body.
			x.setHeader("Content-Type", "application/octet-stream")
		}
		x.setHeader("Content-Length", strconv.Itoa(len(body)))
	}
	g.limitAnswerTime(x, len(body))
	x.WriteHeader(out.Status)
	if len(body) > 0 && x.r.Method != http.MethodHead {
		_, _ = x.Write(body) // the client is gone; the receipt says what was done
	}
	return nil
}

func badAnswer(reason string) error {
	return problem.New(problem.FunctionBadAnswer, "the function's answer was refused: %s", reason)
}

// bodiless statuses have no content (RFC 9110, sections 15.3.5, 15.3.6, 15.4.5).
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent || status == http.StatusNotModified
}

// checkAnswerHeaders refuses fields that could end the header section early or
// start another answer (RFC 9110, section 5.5), and too many of them. The reason
// names no value.
func checkAnswerHeaders(headers map[string][]string) (reason string) {
	fields, size := 0, 0
	for name, values := range headers {
		if !validToken(name) {
			return "a header name is malformed"
		}
		for _, v := range values {
			if !validFieldValue(v) {
				return "the value of header " + name + " holds a control character"
			}
			fields++
			size += len(name) + len(v)
		}
	}
	if fields > maxAnswerFields || size > maxAnswerHeader {
		return "its headers are too large"
	}
	return ""
}

// copyAnswerHeaders adds the function's fields to h, without those that are not
// a function's to set. The names in h are ours and come first.
func copyAnswerHeaders(h http.Header, headers map[string][]string, ownCORS bool) {
	var named []string
	for name, values := range headers {
		if strings.EqualFold(name, "Connection") {
			named = append(named, connectionOptions(values)...)
		}
	}
	for name, values := range headers {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if len(values) == 0 || reservedForUs(name) || slices.Contains(named, name) || (ownCORS && strings.HasPrefix(name, "Access-Control-")) {
			continue
		}
		switch {
		case name == "Content-Type":
			h[name] = values[:1:1] // two would be read as either
		case len(h[name]) > 0:
			h[name] = append(slices.Clone(h[name]), values...)
		default:
			h[name] = values[:len(values):len(values)]
		}
	}
}

// reservedForUs reports fields that a function cannot set, for the reasons given
// in the package comment. The name is canonical.
func reservedForUs(name string) bool {
	switch name {
	case "Content-Length", "Date", headerRequestID, "X-Content-Type-Options",
		"Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Nel", "Report-To",
		"Public-Key-Pins", "Public-Key-Pins-Report-Only", "Service-Worker-Allowed":
		return true
	}
	return hopByHop(name) || strings.HasPrefix(name, "Casemate-")
}

// validToken accepts a token of RFC 9110, section 5.6.2.
func validToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// validFieldValue accepts everything but control characters; a tab is none here.
func validFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}
