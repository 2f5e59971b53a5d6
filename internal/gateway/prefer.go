package gateway

import "strings"

// asksAsync reports whether a preference respond-async was sent (RFC 7240, section 4.1).
// What cannot be read is not there: a preference is never an error (section 2).
func asksAsync(values []string) bool {
	for _, v := range values {
		for len(v) > 0 {
			var one string
			one, v = cutPreference(v)
			if respondAsync(one) {
				return true
			}
		}
	}
	return false
}

// cutPreference splits a list at its first comma outside a quoted string.
func cutPreference(list string) (one, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == ',':
			return list[:i], list[i+1:]
		}
	}
	return list, ""
}

// respondAsync reports whether one preference is that one, with parameters or without. It
// has no value; an empty one is none.
func respondAsync(s string) bool {
	const name = "respond-async"
	s = strings.Trim(s, " \t")
	if len(s) < len(name) || !strings.EqualFold(s[:len(name)], name) {
		return false
	}
	s = strings.TrimLeft(s[len(name):], " \t")
	if after, ok := strings.CutPrefix(s, "="); ok {
		s = strings.TrimLeft(after, " \t")
		s = strings.TrimLeft(strings.TrimPrefix(s, `""`), " \t")
	}
	return s == "" || s[0] == ';'
}
