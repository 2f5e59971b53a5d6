package gateway

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// lowerNames spares the common fields an allocation each.
func lowerNames() map[string]string {
	m := make(map[string]string)
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Method", "Authorization",
		"Cache-Control", "Content-Encoding", "Content-Type", "Cookie", "Dnt", "Etag",
		"If-Match", "If-Modified-Since", "If-None-Match", "Origin", "Pragma", "Priority", "Range", "Referer",
		"Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
		"Sec-Fetch-Site", "Sec-Fetch-User", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent",
	} {
		m[name] = strings.ToLower(name)
	}
	return m
}

// hopByHop reports fields that concern one connection only (RFC 9110, section
// 7.6.1, and those that came before it). The name is canonical.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// withheld reports fields that no function gets to see from a caller, for the
// reasons given in the package comment. The name is canonical.
func withheld(name string) bool {
	switch name {
	case headerAPIKey, headerHost, headerRequestID, "Content-Length", "Forwarded", "X-Real-Ip", "Proxy", "Expect",
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url":
		return true
	}
	return hopByHop(name) || strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Casemate-") || strings.IndexByte(name, '_') >= 0
}

// connectionOptions lists the canonical names that Connection makes hop-by-hop.
// It is read from the fields as sent and only ever removes what a function would
// see: authentication has looked before, and what we add comes after.
func connectionOptions(values []string) []string {
	var names []string
	for _, v := range values {
		for option := range strings.SplitSeq(v, ",") {
			option = strings.Trim(option, " \t")
			if option != "" && !strings.EqualFold(option, "keep-alive") && !strings.EqualFold(option, "close") {
				names = append(names, textproto.CanonicalMIMEHeaderKey(option))
			}
		}
	}
	return names
}

// inboundHeaders makes the function's view of the request's fields. Values are
// shared with the request.
func (g *Gateway) inboundHeaders(x *exchange) map[string][]string {
	h := x.r.Header
	named := connectionOptions(h["Connection"])
	out := make(map[string][]string, len(h)+5)
	for name, values := range h {
		if withheld(name) || (x.ownedAuth && name == "Authorization") || slices.Contains(named, name) {
			continue
		}
		lower, ok := g.lower[name]
		if !ok {
			lower = strings.ToLower(name)
		}
		out[lower] = values
	}
	// Each entry is a slice of its own capacity, so that appending to one copies.
	own := &[5]string{x.r.Host, x.id, remoteIP(x.r.RemoteAddr), scheme(x.r), ""}
	out["host"] = own[0:1:1]
	out["x-forwarded-host"] = own[0:1:1]
	out["x-request-id"] = own[1:2:2]
	out["x-forwarded-for"] = own[2:3:3]
	out["x-forwarded-proto"] = own[3:4:4]
	if len(x.body) > 0 {
		own[4] = strconv.Itoa(len(x.body))
		out["content-length"] = own[4:5:5]
	}
	return out
}

func scheme(r *http.Request) string {
	if r.TLS == nil {
		return "http"
	}
	return "https"
}
