package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/jsontext"
)

// operation is what happened to a row; it is the end of the event's type.
type operation string

const (
	opInsert   operation = "insert"
	opUpdate   operation = "update"
	opDelete   operation = "delete"
	opTruncate operation = "truncate"
	opSnapshot operation = "snapshot"
)

// typePrefix of events.
const typePrefix = "casemate.postgres."

// maxKey is the longest ordering key that goes as it is; a longer one goes as its digest.
const maxKey = 256

// table is what is known of a table whose changes are wanted.
type table struct {
	schema, name string
	subject      string // schema.name, fit for an attribute
	columns      []tableColumn
	keys         []int // of columns, the primary key's or the replica identity's
	wanted       bool
	identity     byte
}

type tableColumn struct {
	column
	label  []byte // "name": as JSON
	hidden bool   // left out of events by the trigger's settings
}

// newTable describes a table. keys are the names of the key's columns; those that the
// columns' own flags name when it is nil.
func newTable(schema, name string, identity byte, columns []column, keys []string, only []string) *table {
	t := &table{schema: schema, name: name, subject: printable(schema + "." + name), wanted: true, identity: identity}
	missing := false
	for _, k := range keys {
		missing = missing || !slices.ContainsFunc(columns, func(c column) bool { return c.name == k })
	}
	for i, c := range columns {
		tc := tableColumn{column: c, label: append(jsontext.Append(nil, c.name), ':')}
		tc.hidden = len(only) > 0 && !slices.Contains(only, c.name)
		t.columns = append(t.columns, tc)
		// A key of which a column has gone by now is no key any more.
		if (keys == nil && c.key) || (!missing && slices.Contains(keys, c.name)) {
			t.keys = append(t.keys, i)
		}
	}
	return t
}

// printable makes an identifier fit for an attribute of an event.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// place is where in the log a change stands, and when it was committed.
type place struct {
	system    string // system identifier and timeline: what tells one server's log from another's
	commit    lsn
	change    lsn // of the change's own record
	n         int // several rows may share one record
	xid       uint32
	committed time.Time
}

// id is the same whenever the server sends the change again.
func (p *place) id() string {
	b := append(make([]byte, 0, 80), p.system...)
	b = strconv.AppendUint(append(b, '-'), uint64(p.commit), 16)
	b = strconv.AppendUint(append(b, '-'), uint64(p.change), 16)
	return string(strconv.AppendInt(append(b, '-'), int64(p.n), 10))
}

// sequence sorts as the changes were committed, as text.
func (p *place) sequence() string {
	b := make([]byte, 0, 40)
	for _, part := range []struct {
		value uint64
		width int
	}{{uint64(p.commit), 16}, {uint64(p.change), 16}, {uint64(p.n), 8}} { //nolint:gosec // a count
		digits := strconv.AppendUint(make([]byte, 0, 16), part.value, 16)
		for range part.width - len(digits) {
			b = append(b, '0')
		}
		b = append(b, digits...)
	}
	return string(b)
}

// row is one change of one row.
type row struct {
	op       operation
	old, new []datum // nil when there is none
	oldKind  byte
	moved    bool // a delete that stands for a key that an update has changed
	large    int  // bytes of a change that is too large to be read
}

// key gives the ordering key of a row and, as JSON, the values of its key. Without a key
// the whole table is one.
func (t *table) key(values, old []datum) (order string, object []byte) {
	if len(t.keys) == 0 || values == nil {
		return t.orderKey(nil), nil
	}
	object = append(object, '{')
	for n, i := range t.keys {
		if i >= len(values) {
			return t.orderKey(nil), nil
		}
		v := values[i]
		if v.kind == datumUnchanged && i < len(old) { // then the old key is always sent
			v = old[i]
		}
		if n > 0 {
			object = append(object, ',')
		}
		object = append(object, t.columns[i].label...)
		object = t.append(object, i, v)
	}
	object = append(object, '}')
	return t.orderKey(object), object
}

func (t *table) orderKey(object []byte) string {
	k := t.subject
	if object != nil {
		k += ":" + string(object)
	}
	if len(k) > maxKey {
		sum := sha256.Sum256([]byte(k))
		k = t.subject[:min(len(t.subject), maxKey-1-2*len(sum))]
		k = strings.ToValidUTF8(k, "") + ":" + hex.EncodeToString(sum[:])
	}
	return k
}

func (t *table) append(dst []byte, i int, d datum) []byte {
	if d.kind != datumText {
		return append(dst, "null"...)
	}
	return appendValue(dst, t.columns[i].oid, d.text)
}

// message makes the event of a change. What is too large for an event is left out,
// the largest columns first, and named in "omitted".
func (t *table) message(r row, p *place) event.Message {
	identity := r.new
	if identity == nil {
		identity = r.old
	}
	order, key := t.key(identity, r.old)
	m := event.Message{
		Event: event.Event{
			ID: p.id(), Type: typePrefix + string(r.op), Subject: t.subject, Time: p.committed,
			DataContentType: "application/json", Extensions: map[string]string{"sequence": p.sequence()},
		},
		Key: order,
	}
	omit := make(map[int]bool)
	for {
		m.Data = t.data(r, p, key, omit)
		largest := t.largest(r, omit)
		if len(m.Data) <= event.MaxData || largest < 0 {
			return m
		}
		omit[largest] = true
		if slices.Contains(t.keys, largest) {
			key = nil
		}
	}
}

// largest gives the column that takes the most room, -1 when none is left.
func (t *table) largest(r row, omit map[int]bool) int {
	most, at := 0, -1
	for i := range t.columns {
		size := 0
		for _, values := range [][]datum{r.old, r.new} {
			if i < len(values) {
				size += len(values[i].text)
			}
		}
		if size > most && !omit[i] && !t.columns[i].hidden {
			most, at = size, i
		}
	}
	return at
}

func (t *table) data(r row, p *place, key []byte, omit map[int]bool) []byte {
	b := make([]byte, 0, 256+t.size(r.old)+t.size(r.new))
	b = append(b, `{"schema":`...)
	b = jsontext.Append(b, t.schema)
	b = append(b, `,"table":`...)
	b = jsontext.Append(b, t.name)
	b = append(b, `,"operation":"`...)
	b = append(b, r.op...)
	b = append(b, `","key":`...)
	if key == nil {
		key = []byte("null")
	}
	b = append(b, key...)
	var unchanged []int
	b = append(b, `,"new":`...)
	b, unchanged = t.object(b, r.new, 'O', r.old, r.oldKind, omit)
	b = append(b, `,"old":`...)
	b, _ = t.object(b, r.old, r.oldKind, nil, 0, omit)
	b = append(b, `,"lsn":"`...)
	b = append(b, p.commit.String()...)
	if r.op == opSnapshot {
		b = append(b, `","xid":null,"committed":null`...)
	} else {
		b = append(b, `","xid":`...)
		b = strconv.AppendUint(b, uint64(p.xid), 10)
		b = append(b, `,"committed":"`...)
		b = p.committed.AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	b = t.names(b, "unchanged", unchanged)
	if len(omit) > 0 {
		var left []int
		for i := range t.columns {
			if omit[i] {
				left = append(left, i)
			}
		}
		b = t.names(b, "omitted", left)
	}
	if r.large > 0 {
		b = append(b, `,"omittedBytes":`...)
		b = strconv.AppendInt(b, int64(r.large), 10)
	}
	if r.moved {
		b = append(b, `,"moved":true`...)
	}
	return append(b, '}')
}

func (t *table) size(values []datum) int {
	n := 0
	for i, v := range values {
		n += len(v.text) + 8
		if i < len(t.columns) {
			n += len(t.columns[i].label)
		}
	}
	return n
}

func (t *table) names(b []byte, label string, columns []int) []byte {
	if len(columns) == 0 {
		return b
	}
	b = append(b, `,"`+label+`":[`...)
	for n, i := range columns {
		if n > 0 {
			b = append(b, ',')
		}
		b = jsontext.Append(b, t.columns[i].name)
	}
	return append(b, ']')
}

// object appends a row. Columns stored apart that were not changed come from the old
// row when the server sent it whole; otherwise they are left out and given as unchanged.
func (t *table) object(b []byte, values []datum, kind byte, old []datum, oldKind byte, omit map[int]bool) ([]byte, []int) {
	if values == nil {
		return append(b, "null"...), nil
	}
	var unchanged []int
	b = append(b, '{')
	first := true
	for i := range t.columns {
		c := &t.columns[i]
		// Of a key alone the other columns are sent as null, which they are not.
		if i >= len(values) || c.hidden || omit[i] || (kind == 'K' && !c.key) {
			continue
		}
		v := values[i]
		if v.kind == datumUnchanged && oldKind == 'O' && i < len(old) {
			v = old[i]
		}
		if v.kind == datumUnchanged {
			unchanged = append(unchanged, i)
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, c.label...)
		b = t.append(b, i, v)
	}
	return append(b, '}'), unchanged
}

// moved says whether an update has changed the row's key.
func (t *table) moved(c *changeMessage) bool {
	if c.operation != opUpdate || c.oldKind == 0 || len(t.keys) == 0 {
		return false
	}
	for _, i := range t.keys {
		if i >= len(c.old) || i >= len(c.new) || c.new[i].kind == datumUnchanged {
			continue
		}
		if c.old[i].kind != c.new[i].kind || string(c.old[i].text) != string(c.new[i].text) {
			return true
		}
	}
	return false
}

// messages gives the events of a change: one, or two when an update has changed the key.
// Then the old key is deleted first, so that whatever is ordered by key stays right: what
// happens to the old key afterwards follows its deletion, whoever handles the new one.
func (t *table) messages(dst []event.Message, c *changeMessage, p *place, wanted func(operation) bool) []event.Message {
	if t.moved(c) {
		if wanted(opDelete) && wanted(opUpdate) {
			dst = append(dst, t.message(row{op: opDelete, old: c.old, oldKind: c.oldKind, moved: true}, p))
		}
		p.n++ // in any case, so that ids do not depend on the settings
	}
	if wanted(c.operation) {
		dst = append(dst, t.message(row{op: c.operation, old: c.old, new: c.new, oldKind: c.oldKind}, p))
	}
	p.n++
	return dst
}
