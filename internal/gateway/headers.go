package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api/problem"
)

// checkHeaders refuses what net/http lets pass but two readers could understand
// differently. Conflicting lengths and malformed fields never get this far.
func (g *Gateway) checkHeaders(x *exchange) error {
	h := x.r.Header
	if !validHost(x.r.Host) {
		return problem.New(problem.InvalidHeader, "the host is missing or malformed").At(headerHost)
	}
	// Over HTTP/2, :authority wins and a host field may say something else.
	for _, v := range h[headerHost] {
		if v != x.r.Host {
			return problem.New(problem.InvalidHeader, "there are two different hosts").At(headerHost)
		}
	}
	if err := checkLength(x.r); err != nil {
		return err
	}
	if len(h["Upgrade"]) > 0 {
		return problem.New(problem.NotImplemented, "changing the protocol is not available here").At("Upgrade")
	}
	if x.r.ProtoMajor == 1 && len(x.r.TransferEncoding) > 0 {
		// net/http drops a Content-Length that came along, so we cannot see whether
		// there was one; with both, the connection must end (RFC 9112, section 6.1).
		x.setHeader("Connection", "close")
	}
	count := 0
	for name, values := range h {
		count += len(values)
		for _, v := range values {
			// A function's head is JSON, which cannot carry anything else unchanged.
			if !utf8.ValidString(v) {
				return problem.New(problem.InvalidHeader, "the value is not valid UTF-8").At(name)
			}
		}
	}
	if count > g.limits.HeaderCount {
		return problem.New(problem.HeadersTooLarge, "there are more than %d header fields", g.limits.HeaderCount)
	}
	return nil
}

// checkLength refuses a length that is given twice, or that net/http's HTTP/2
// overlooked because the request ended with its head (RFC 9113, section 8.1.1).
func checkLength(r *http.Request) error {
	given := r.Header["Content-Length"]
	if len(given) == 0 {
		return nil
	}
	n, err := strconv.ParseInt(given[0], 10, 64)
	if len(given) > 1 || err != nil || n != r.ContentLength {
		return problem.New(problem.InvalidHeader, "the length is not that of the body").At("Content-Length")
	}
	return nil
}

// validHost accepts a DNS name or an IPv4 address of letters, digits, "-", "_"
// and ".", or an IPv6 address in brackets, and then a port if any.
func validHost(host string) bool {
	if host == "" || len(host) > maxHost {
		return false
	}
	name, port := host, ""
	if host[0] == '[' {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		name, port = host[1:end], host[end+1:]
		if name == "" || strings.Trim(name, "0123456789abcdefABCDEF:.") != "" {
			return false
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			name, port = host[:i], host[i:]
		}
		if !validHostName(name) {
			return false
		}
	}
	if port == "" {
		return true
	}
	if port[0] != ':' || len(port) > len(":65535") {
		return false
	}
	n := 0
	for _, c := range []byte(port[1:]) {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func validHostName(name string) bool {
	if name == "" || name[0] == '.' {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			if i > 0 && name[i-1] == '.' {
				return false
			}
		default:
			return false
		}
	}
	return true
}
