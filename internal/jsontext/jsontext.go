// Package jsontext writes strings as JSON, for the encoders on the path of a request,
// which must give what encoding/json gives and cost less. It is a leaf: it imports the
// standard library alone and anybody may import it. Its function may be called from
// many goroutines.
package jsontext

import "encoding/json"

// Append appends s as a JSON string, byte for byte as encoding/json writes it. What
// needs escaping is left to encoding/json.
func Append(b []byte, s string) []byte {
	for i := range len(s) {
		if !plain(s[i]) {
			escaped, err := json.Marshal(s)
			if err != nil {
				panic("jsontext: encoding/json refused a string: " + err.Error()) // it never does
			}
			return append(b, escaped...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// plain reports characters that stand for themselves in what encoding/json writes:
// printable ASCII but for the quote, the backslash and what HTML reserves.
func plain(c byte) bool {
	return ' ' <= c && c <= '~' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}
