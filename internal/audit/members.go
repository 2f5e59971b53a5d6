package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/internal/jsontext"
	"github.com/casemate-dev/casemate/internal/state"
)

// maxMember is the longest id that Members shows as it is, in bytes. A batch has 1000
// events at most, so the receipt stays far below what the journal takes.
const maxMember = 100

// mostExamined bounds how many receipts a search for those of one event looks at.
const mostExamined = 1_000_000

// ErrUnsearched means that there were more receipts than a search looks at.
var ErrUnsearched = errors.New("not all receipts were looked at")

// Members names the events of a batch, for Receipt.Members: one id a line. One that is
// long, or does not fit into a line, is named by its digest.
func Members(ids []string) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = member(id)
	}
	return strings.Join(names, "\n")
}

func member(id string) string {
	if len(id) <= maxMember && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' }) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// EventIDs calls fn with the events that the receipt is about, as Members names them,
// until it returns false.
func (r *Receipt) EventIDs(fn func(id string) bool) {
	if r.Members == "" {
		if r.Event != "" {
			fn(member(r.Event))
		}
		return
	}
	for id := range strings.SplitSeq(r.Members, "\n") {
		if !fn(id) {
			return
		}
	}
}

// wants says whether a receipt is about the query's event.
func (q *Query) wants(r *Receipt) bool {
	found := false
	name := member(q.Event)
	r.EventIDs(func(id string) bool {
		found = id == name || q.EventSuffix != "" && strings.HasSuffix(id, q.EventSuffix)
		return !found
	})
	return found
}

// ofEvent reads the receipts of one event, the oldest first: they follow soon upon it,
// and there may be many others since.
func (r *Recorder) ofEvent(ctx context.Context, q Query, limit int) (out []Receipt, err error) {
	inside := func(s string) []byte {
		b := jsontext.Append(nil, s)
		return b[1 : len(b)-1] // as it stands among others
	}
	name, id, suffix := inside(member(q.Event)), inside(q.Event), inside(q.EventSuffix)
	examined, corrupt := 0, false
	err = r.cfg.Receipts.Read(ctx, state.LogFilter{Namespace: q.Namespace, Function: q.Function, Since: q.Since}, func(rec state.LogRecord) bool {
		for line := range lines(rec.Data) {
			examined++
			// Much faster than decoding.
			if !bytes.Contains(line, name) && !bytes.Contains(line, id) && (len(suffix) == 0 || !bytes.Contains(line, suffix)) {
				continue
			}
			var rc Receipt
			if json.Unmarshal(line, &rc) != nil {
				corrupt = true
				continue
			}
			if q.wants(&rc) && (q.RequestID == "" || rc.RequestID == q.RequestID) && !ended(&rc).Before(q.Since) {
				out = append(out, rc)
			}
		}
		return len(out) < limit && examined < mostExamined
	})
	if !onlyCorrupt(err) {
		return nil, fmt.Errorf("reading receipts of an event: %w", err)
	}
	out = out[:min(len(out), limit)]
	slices.SortStableFunc(out, func(a, b Receipt) int { return ended(&b).Compare(ended(&a)) })
	switch {
	case err != nil:
		return out, fmt.Errorf("reading receipts of an event: %w", err)
	case corrupt:
		return out, fmt.Errorf("decoding a receipt: %w", state.ErrCorrupt)
	case examined >= mostExamined:
		return out, fmt.Errorf("reading receipts of an event: %w", ErrUnsearched)
	}
	return out, nil
}
