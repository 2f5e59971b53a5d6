package audit

import (
	"fmt"
	"strconv"

	"github.com/casemate-dev/casemate/internal/jsontext"
)

// appendReceipt appends what encoding/json makes of a receipt, byte for byte; one is
// made for each request. It fails for a time that JSON cannot hold.
func appendReceipt(b []byte, r *Receipt) ([]byte, error) {
	b = jsontext.Append(append(b, `{"id":`...), r.ID)
	b = jsontext.Append(append(b, `,"requestId":`...), r.RequestID)
	b = jsontext.Append(append(b, `,"namespace":`...), r.Namespace)
	b = jsontext.Append(append(b, `,"function":`...), r.Function)
	b = jsontext.Append(append(b, `,"version":`...), r.Version)
	b = jsontext.Append(append(b, `,"artifact":`...), r.Artifact)
	b = appendOptional(b, `,"alias":`, r.Alias)
	b = jsontext.Append(append(b, `,"trigger":`...), r.Trigger)
	b = appendOptional(b, `,"route":`, r.Route)
	b = jsontext.Append(append(b, `,"principal":`...), r.Principal)
	b = appendEvent(b, r)
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
	b = jsontext.Append(append(b, `,"outcome":`...), r.Outcome)
	return append(b, '}'), nil
}

// appendEvent appends what only the receipts of events have.
func appendEvent(b []byte, r *Receipt) []byte {
	b = appendOptional(b, `,"event":`, r.Event)
	b = appendCount(b, `,"events":`, r.Events)
	b = appendOptional(b, `,"members":`, r.Members)
	b = appendOptional(b, `,"source":`, r.Source)
	b = appendCount(b, `,"attempt":`, r.Attempt)
	if r.Replay {
		b = append(b, `,"replay":true`...)
	}
	b = appendOptional(b, `,"chain":`, r.Chain)
	return appendCount(b, `,"depth":`, r.Depth)
}

func appendCount(b []byte, member string, n int) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, member...), int64(n), 10)
}

func appendOptional(b []byte, member, s string) []byte {
	if s == "" {
		return b
	}
	return jsontext.Append(append(b, member...), s)
}
