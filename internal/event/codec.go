package event

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The form in which a message is stored: formBinary, the length of the head, the head, the
// data. Numbers are varints (encoding/binary), text is its length and its bytes. The head:
// ID, Source, Type, Subject, DataContentType, Key, Chain.ID as text; Chain.Depth; Time as 0,
// or 1 with seconds since 1970 and nanoseconds; Extensions and Detail as their number and
// then each name and value, by name.
//
// Before there was this form, a line of JSON stood before the data. It is still read.
const (
	formBinary = 0x02
	formJSON   = '{'
)

// maxHead is the most bytes of a head; of the older form, in which control characters take
// six times their size, too.
const maxHead = 256 << 10

// Encode gives the form in which a message is stored. The message must be valid. The same
// message gives the same bytes.
func (m *Message) Encode() ([]byte, error) {
	size := 64 + len(m.ID) + len(m.Source) + len(m.Type) + len(m.Subject) + len(m.DataContentType) + len(m.Key) + len(m.Chain.ID)
	for _, pairs := range []map[string]string{m.Extensions, m.Detail} {
		for k, v := range pairs {
			size += len(k) + len(v) + 2*binary.MaxVarintLen32
		}
	}
	// The head is written behind the room for its own length, and moved up to it.
	const before = 1 + binary.MaxVarintLen32
	b := make([]byte, before, before+size+len(m.Data))
	for _, s := range []string{m.ID, m.Source, m.Type, m.Subject, m.DataContentType, m.Key, m.Chain.ID} {
		b = appendText(b, s)
	}
	b = binary.AppendVarint(b, int64(m.Chain.Depth))
	if m.Time.IsZero() {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.AppendVarint(b, m.Time.Unix())
		b = binary.AppendUvarint(b, uint64(m.Time.Nanosecond())) //nolint:gosec // never negative
	}
	b = appendPairs(b, m.Extensions)
	b = appendPairs(b, m.Detail)
	head := len(b) - before
	if head > maxHead {
		return nil, fmt.Errorf("encoding event: its attributes have %d bytes, more than %d", head, maxHead)
	}
	var length [binary.MaxVarintLen32]byte
	n := binary.PutUvarint(length[:], uint64(head)) //nolint:gosec // never negative
	b = b[before-1-n:]
	b[0] = formBinary
	copy(b[1:], length[:n])
	return append(b, m.Data...), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPairs(b []byte, pairs map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	var few [8]string
	names := few[:0]
	for k := range pairs {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		b = appendText(appendText(b, k), pairs[k])
	}
	return b
}

// errForm is what does not come from Encode.
var errForm = errors.New("decoding event: malformed")

// Decode reads what Encode made. The data is a part of b, not a copy.
func Decode(b []byte) (*Message, error) {
	var m *Message
	var err error
	switch {
	case len(b) == 0:
		return nil, errForm
	case b[0] == formBinary:
		m, err = decodeBinary(b[1:])
	case b[0] == formJSON:
		m, err = decodeJSON(b)
	default:
		return nil, errForm
	}
	if err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("decoding event: %w", err)
	}
	return m, nil
}

func decodeBinary(b []byte) (*Message, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 || size > maxHead || size > uint64(len(b)-n) {
		return nil, errForm
	}
	end := n + int(size)
	h := heading{rest: string(b[n:end])} // one copy, of which all text is a part
	m := &Message{Data: b[end:]}
	for _, s := range []*string{&m.ID, &m.Source, &m.Type, &m.Subject, &m.DataContentType, &m.Key, &m.Chain.ID} {
		*s = h.text()
	}
	depth := h.signed()
	m.Chain.Depth = int(depth)
	h.bad = h.bad || int64(m.Chain.Depth) != depth
	switch h.number() {
	case 0:
	case 1:
		seconds, nanoseconds := h.signed(), h.number()
		if nanoseconds >= uint64(time.Second) {
			return nil, errForm
		}
		m.Time = time.Unix(seconds, int64(nanoseconds)).UTC()
		h.bad = h.bad || m.Time.IsZero() // which is written as 0
	default:
		h.bad = true
	}
	m.Extensions = h.pairs()
	m.Detail = h.pairs()
	if h.bad || h.rest != "" {
		return nil, errForm
	}
	return m, nil
}

// heading is what is left of a head. Its first mistake makes all further reads empty.
type heading struct {
	rest string
	bad  bool
}

func (h *heading) number() uint64 {
	var v uint64
	for i := 0; i < len(h.rest) && i < binary.MaxVarintLen64; i++ {
		c := h.rest[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break // more than 64 bits
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				break // not as short as it can be
			}
			h.rest = h.rest[i+1:]
			return v
		}
	}
	h.bad, h.rest = true, ""
	return 0
}

func (h *heading) signed() int64 {
	v := h.number()
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // as encoding/binary has it
}

func (h *heading) text() string {
	size := h.number()
	if size > uint64(len(h.rest)) {
		h.bad, h.rest = true, ""
		return ""
	}
	s := h.rest[:size]
	h.rest = h.rest[size:]
	return s
}

// pairs are in the order of their names, so that none is there twice.
func (h *heading) pairs() map[string]string {
	n := h.number()
	if n == 0 || n > uint64(len(h.rest)/2) { // each has two lengths
		h.bad = h.bad || n > 0
		return nil
	}
	pairs := make(map[string]string, n)
	last := ""
	for i := range n {
		k := h.text()
		if h.bad || (i > 0 && k <= last) {
			h.bad = true
			return nil
		}
		pairs[k], last = h.text(), k
	}
	return pairs
}

// headJSON is the first line of a message in the older form.
type headJSON struct {
	Form            int               `json:"v"`
	ID              string            `json:"id"`
	Source          string            `json:"source"`
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"ext,omitempty"`
	Key             string            `json:"key,omitempty"`
	Detail          map[string]string `json:"detail,omitempty"`
	Chain           *Chain            `json:"chain,omitempty"`
}

func decodeJSON(b []byte) (*Message, error) {
	line, data, ok := bytes.Cut(b, []byte{'\n'})
	if !ok || len(line) > maxHead {
		return nil, errForm
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var h headJSON
	if err := d.Decode(&h); err != nil || h.Form != 1 {
		return nil, errForm
	}
	m := &Message{
		Event: Event{
			ID: h.ID, Source: h.Source, Type: h.Type, Subject: h.Subject,
			DataContentType: h.DataContentType, Extensions: h.Extensions,
		},
		Data: data, Key: h.Key, Detail: h.Detail,
	}
	if h.Time != nil {
		m.Time = *h.Time
	}
	if h.Chain != nil {
		m.Chain = *h.Chain
	}
	return m, nil
}
