package gateway

import "strings"

// identify gives the request its id: the caller's own when it is well-formed, so
// that a trace can span systems, else a new one. The id names a request in logs
// and answers and decides nothing; receipts have ids of their own.
func (g *Gateway) identify(x *exchange) {
	if given := x.r.Header[headerRequestID]; len(given) == 1 && validRequestID(given[0]) {
		x.id = given[0]
	} else {
		x.id = g.newID()
	}
	x.setHeader(headerRequestID, x.id)
}

// validRequestID accepts 1 to 64 of [A-Za-z0-9._-], but not a key of ours, which
// would end up in logs.
func validRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID || strings.HasPrefix(s, keyPrefix) {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
