package cloudevent

import (
	"strconv"
	"strings"
)

// Handshake is how a target answers the handshake of web hooks (web hooks 1.0, section 4).
type Handshake struct {
	// Origins are names of senders that may deliver. "*" is everybody; none is nobody.
	Origins []string
	// Rate is how many requests a minute are granted; 0 is no bound.
	Rate int
}

// maxOrigin is the most of a DNS name (RFC 1035, section 2.3.4).
const maxOrigin = 253

// Answer gives the headers that answer an OPTIONS request with the given headers, whose
// names are in lower case, and whether permission is granted. Without permission the two
// headers that grant it are missing, which is how the specification refuses.
//
// A callback in webhook-request-callback is never called: the address is an unknown
// sender's, and calling it would make the node an agent of whoever names it.
func (h *Handshake) Answer(header map[string][]string) (answer map[string]string, granted bool) {
	answer = map[string]string{"allow": "POST, OPTIONS"}
	origin := header["webhook-request-origin"]
	if len(origin) != 1 || !isName(origin[0]) || !h.allows(origin[0]) {
		return answer, false
	}
	rate := "*"
	if h.Rate > 0 {
		rate = strconv.Itoa(h.Rate)
	}
	if asked, ok := header["webhook-request-rate"]; ok {
		if len(asked) != 1 {
			return answer, false
		}
		n, err := strconv.ParseUint(asked[0], 10, 31)
		if err != nil || n == 0 {
			return answer, false
		}
		// Who asks for less than there is gets what was asked for.
		if h.Rate == 0 || int(n) < h.Rate {
			rate = strconv.FormatUint(n, 10)
		}
	}
	answer["webhook-allowed-origin"] = origin[0]
	answer["webhook-allowed-rate"] = rate
	return answer, true
}

// Allows says whether a delivery with these headers comes from a sender that the
// handshake would let deliver (section 2.1). Who allows everybody asks for no header.
func (h *Handshake) Allows(header map[string][]string) bool {
	for _, o := range h.Origins {
		if o == "*" {
			return true
		}
	}
	origin := header["webhook-request-origin"]
	return len(origin) == 1 && isName(origin[0]) && h.allows(origin[0])
}

func (h *Handshake) allows(origin string) bool {
	for _, o := range h.Origins {
		if o == "*" || strings.EqualFold(o, origin) {
			return true
		}
	}
	return false
}

// isName says whether s can be a DNS name: it is sent back in a header.
func isName(s string) bool {
	if s == "" || len(s) > maxOrigin {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}
