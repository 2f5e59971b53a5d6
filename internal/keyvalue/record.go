package keyvalue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// form is the number of the form of entries and records; another one is refused.
const form = 1

// maxHead bounds the first line of an entry or a record, in bytes.
const maxHead = 16 << 10

// head is the first line of an entry of the log, and of a record of the KV. The values
// follow it.
type head struct {
	Form      int       `json:"v"`
	Namespace string    `json:"ns"`
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	Operation string    `json:"op"`
	Revision  uint64    `json:"rev,omitempty"` // of a record; that of an entry is its sequence
	Modified  time.Time `json:"time"`
	Expires   time.Time `json:"expires,omitzero"`
	Type      string    `json:"type,omitempty"`
	By        string    `json:"by,omitempty"`
	Expired   bool      `json:"expired,omitempty"`
	Length    int       `json:"length"` // of the value

	// Of entries alone: the value before.
	Previous  uint64 `json:"prev,omitempty"`
	OldType   string `json:"oldType,omitempty"`
	OldSize   int    `json:"oldSize,omitempty"`
	OldLength int    `json:"oldLength,omitempty"` // of what is here of it: all or nothing
}

// encode gives the line of the head, then the values.
func (h *head) encode(value, old []byte) ([]byte, error) {
	h.Form, h.Length, h.OldLength = form, len(value), len(old)
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding a change: %v", err)
	}
	out := make([]byte, 0, len(line)+1+len(value)+len(old))
	out = append(append(out, line...), '\n')
	return append(append(out, value...), old...), nil
}

// decode reads what encode made. The values are parts of b. It fails with state.ErrCorrupt.
func decode(b []byte) (h *head, value, old []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	h = &head{}
	if ok && len(line) <= maxHead {
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		ok = d.Decode(h) == nil
	}
	switch {
	case !ok, h.Form != form, h.Length < 0, h.OldLength < 0, h.Length > MaxValue, h.OldLength > MaxValue, len(rest) != h.Length+h.OldLength,
		h.Operation != OpPut && h.Operation != OpDelete, CheckBucket(h.Namespace, h.Bucket) != nil, CheckKey(h.Key) != nil:
		return nil, nil, nil, fmt.Errorf("it is malformed: %w", state.ErrCorrupt)
	}
	return h, rest[:h.Length:h.Length], rest[h.Length:], nil
}

// channelPrefix begins the channels of buckets.
const channelPrefix = "kv."

// decodeEntry reads a record of the log.
func decodeEntry(r *Record) (h *head, value, old []byte, err error) {
	h, value, old, err = decode(r.Data)
	if err == nil && (h.Namespace != r.Namespace || channelPrefix+h.Bucket != r.Channel) {
		err = fmt.Errorf("it is that of another bucket: %w", state.ErrCorrupt)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("reading change %d: %w", r.Sequence, err)
	}
	return h, value, old, nil
}

// change tells what an entry says.
func (h *head) change(rev uint64, value, old []byte) Change {
	c := Change{
		Namespace: h.Namespace, Bucket: h.Bucket, Key: h.Key, Operation: h.Operation, Revision: rev, Previous: h.Previous,
		Time: h.Modified, By: h.By, Expired: h.Expired, Expires: h.Expires,
	}
	if h.Operation == OpPut {
		c.New = &Told{Size: h.Length, ContentType: h.Type}
		if h.Length <= MaxTold {
			c.New.Data = bytes.Clone(value)
		}
	}
	if h.Previous != 0 {
		c.Old = &Told{Size: h.OldSize, ContentType: h.OldType}
		if h.OldLength == h.OldSize {
			c.Old.Data = bytes.Clone(old)
		}
	}
	return c
}

func slotName(slot uint32) string {
	return fmt.Sprintf("v.%d.%d", slot/pageSlots, slot%pageSlots)
}

func pagePrefix(page uint32) string { return fmt.Sprintf("v.%d.", page) }

// slotOf reads a slot's name.
func slotOf(name string) (slot uint32, ok bool) {
	var page, at uint32
	n, err := fmt.Sscanf(name, "v.%d.%d", &page, &at)
	slot = page*pageSlots + at
	return slot, err == nil && n == 2 && page < maxPages && at < pageSlots && strings.EqualFold(slotName(slot), name)
}
