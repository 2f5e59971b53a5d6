package delivery

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/casemate-dev/casemate/internal/event"
)

// rerun says how an event of the replay channel is to be run. It stands before the event,
// where no source can write: whoever could set it would choose the version that runs.
type rerun struct {
	Qualifier string `json:"qualifier,omitempty"`
	Replay    bool   `json:"replay,omitempty"` // false for a dead letter that is tried anew
}

// wrap gives the form of the replay channel: a line of JSON, then the event as encoded.
func (r rerun) wrap(encoded []byte) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding replay: %v", err)
	}
	return append(append(b, '\n'), encoded...), nil
}

// cut reads what wrap made.
func (r *rerun) cut(b []byte) (encoded []byte, bad Reason) {
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if !ok || d.Decode(r) != nil {
		return b, ReasonMalformed
	}
	return rest, ""
}

// Caused marks an event that a function brought about while it worked on cause: it is
// one link further in the chain, and is not delivered when the chain is too long. cause
// may be nil, for what a function does at a request.
func Caused(m, cause *event.Message) {
	if cause == nil {
		m.Chain = event.Chain{ID: m.ID, Depth: 1}
	} else {
		m.Chain = event.Chain{ID: cause.Chain.ID, Depth: cause.Chain.Depth + 1}
		if m.Chain.ID == "" {
			m.Chain.ID = cause.ID
		}
	}
	if m.Extensions == nil {
		m.Extensions = map[string]string{}
	}
	m.Extensions["chainid"] = m.Chain.ID
	m.Extensions["chaindepth"] = fmt.Sprint(m.Chain.Depth)
}
