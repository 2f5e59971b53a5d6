package web

import (
	"maps"
	"testing"
)

// Node.js makes a new kind of object of fields in another order, and compiles what uses
// them only while there are few kinds.
func TestFieldsComeInOneOrder(t *testing.T) {
	header := map[string][]string{"connection": {"x-two"}}
	for _, name := range []string{"x-two", "host", "accept", "content-type", "x-request-id", "user-agent"} {
		header[name] = []string{name[:1]}
	}
	header["x-two"] = []string{"2", "1"}
	const want = "POST /a HTTP/1.1\r\naccept: a\r\ncontent-type: c\r\nhost: h\r\nuser-agent: u\r\n" +
		"x-request-id: x\r\nx-two: 2\r\nx-two: 1\r\nmine: m\r\ncontent-length: 2\r\n\r\n"
	for range 20 { // maps are walked in another order each time
		r := Request{Method: "POST", Target: "/a", Header: maps.Clone(header), Extra: []Field{{"mine", "m"}}, Body: []byte("{}")}
		got, err := appendRequest(nil, &r, "nobody")
		if err != nil || string(got) != want {
			t.Fatalf("%v, and\n%s\nwant\n%s", err, got, want)
		}
	}
}
