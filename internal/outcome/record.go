package outcome

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// Channel is where the records of a namespace are.
const Channel = "result.all"

// States of an invocation.
const (
	Pending   = "pending"
	Succeeded = "succeeded"
	Failed    = "failed"
)

// Bounds on what is kept of one answer, in bytes.
const (
	MaxBody    = 256 << 10
	MaxHeaders = 32 << 10
	maxText    = 2 << 10 // of a reason's detail
)

// Invocation is what is known of one.
type Invocation struct {
	ID        string       `json:"id"`
	Ref       function.Ref `json:"ref"`
	Principal string       `json:"principal"` // who asked for it
	State     string       `json:"state"`     // one of those above
	Accepted  time.Time    `json:"accepted"`

	// What follows is zero while it is pending.
	Ended    time.Time           `json:"ended,omitzero"`
	Attempts int                 `json:"attempts,omitempty"`
	Reason   string              `json:"reason,omitempty"` // why it was given up
	Code     string              `json:"code,omitempty"`   // of the problem, when the function did not answer
	Detail   string              `json:"detail,omitempty"` // public
	Receipt  string              `json:"receipt,omitempty"`
	Version  string              `json:"version,omitempty"`
	Status   int                 `json:"status,omitempty"` // 0: the function did not answer
	Headers  map[string][]string `json:"headers,omitempty"`
	Body     []byte              `json:"body,omitempty"`
	Omitted  int                 `json:"omitted,omitempty"` // bytes of a body that was too large to keep
}

// Result is how an invocation ended.
type Result struct {
	Succeeded bool
	Reason    string
	Code      string
	Detail    string
	Attempts  int
	Receipt   string
	Version   string
	Status    int
	Headers   map[string][]string
	Body      []byte
	Ended     time.Time
}

// put copies what is kept of a result into inv.
func (r *Result) put(inv *Invocation) {
	inv.State = Failed
	if r.Succeeded {
		inv.State = Succeeded
	}
	inv.Ended, inv.Attempts, inv.Reason, inv.Code = r.Ended.UTC(), r.Attempts, r.Reason, r.Code
	inv.Detail, inv.Receipt, inv.Version, inv.Status = r.Detail[:min(len(r.Detail), maxText)], r.Receipt, r.Version, r.Status
	size := 0
	for name, values := range r.Headers {
		size += len(name)
		for _, v := range values {
			size += len(v)
		}
	}
	if size <= MaxHeaders {
		inv.Headers = r.Headers
	}
	if len(r.Body) <= MaxBody {
		inv.Body = r.Body
	} else {
		inv.Omitted = len(r.Body)
	}
}

// record is the stored form.
type record struct {
	Form int `json:"v"`
	Invocation
}

const recordForm = 1

func encode(inv *Invocation) ([]byte, error) {
	b, err := json.Marshal(record{recordForm, *inv})
	if err != nil {
		return nil, fmt.Errorf("encoding the outcome of %s: %v", inv.ID, err)
	}
	return b, nil
}

func decode(b []byte) (*Invocation, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("decoding an outcome: %v", err)
	}
	if r.Form != recordForm || !validID(r.ID) || !function.ValidName(r.Ref.Namespace) {
		return nil, fmt.Errorf("decoding an outcome: it has another form")
	}
	return &r.Invocation, nil
}

// maxID is the longest id, in bytes.
const maxID = 64

// validID accepts 1 to 64 of [A-Za-z0-9._-].
func validID(s string) bool {
	if s == "" || len(s) > maxID {
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
