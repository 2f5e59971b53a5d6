package audit

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// appendReceipt appends what encoding/json makes of a receipt, byte for byte; one is
// made for each request. It fails for a time that JSON cannot hold.
func appendReceipt(b []byte, r *Receipt) ([]byte, error) {
	b = appendText(append(b, `{"id":`...), r.ID)
	b = appendText(append(b, `,"requestId":`...), r.RequestID)
	b = appendText(append(b, `,"namespace":`...), r.Namespace)
	b = appendText(append(b, `,"function":`...), r.Function)
	b = appendText(append(b, `,"version":`...), r.Version)
	b = appendText(append(b, `,"artifact":`...), r.Artifact)
	b = appendOptional(b, `,"alias":`, r.Alias)
	b = appendText(append(b, `,"trigger":`...), r.Trigger)
	b = appendOptional(b, `,"route":`, r.Route)
	b = appendText(append(b, `,"principal":`...), r.Principal)
	b = appendOptional(b, `,"sandbox":`, r.Sandbox)
	b = appendOptional(b, `,"isolation":`, r.Isolation)
	if r.Cold {
		b = append(b, `,"cold":true`...)
	}
	b = append(b, `,"start":"`...)
	b, err := r.Start.AppendText(b)
	if err != nil {
		return nil, fmt.Errorf("encoding its start: %v", err)
	}
	b = strconv.AppendInt(append(b, `","wallNanos":`...), int64(r.Wall), 10)
	b = strconv.AppendInt(append(b, `,"cpuNanos":`...), int64(r.CPU), 10)
	if r.Fuel != 0 {
		b = strconv.AppendInt(append(b, `,"fuel":`...), r.Fuel, 10)
	}
	if r.Calls != 0 {
		b = strconv.AppendInt(append(b, `,"calls":`...), r.Calls, 10)
	}
	b = strconv.AppendInt(append(b, `,"memoryPeakBytes":`...), r.Memory, 10)
	b = strconv.AppendInt(append(b, `,"bytesIn":`...), r.BytesIn, 10)
	b = strconv.AppendInt(append(b, `,"bytesOut":`...), r.BytesOut, 10)
	b = strconv.AppendInt(append(b, `,"logBytes":`...), r.LogBytes, 10)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	b = appendText(append(b, `,"outcome":`...), r.Outcome)
	return append(b, '}'), nil
}

func appendOptional(b []byte, member, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(append(b, member...), s)
}

// appendText appends s as a JSON string. What needs escaping is left to
// encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, err := json.Marshal(s)
			if err != nil {
				panic("audit: encoding/json refused a string: " + err.Error()) // it never does
			}
			return append(b, escaped...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
