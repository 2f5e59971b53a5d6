package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file decodes the messages of the output plugin pgoutput, version 1 of its
// protocol (PostgreSQL's documentation, "Logical Replication Message Formats"). What is
// decoded points into the message: it is valid until the next one is read.

// lsn is a place in the server's log.
type lsn uint64

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

func parseLSN(s string) (lsn, error) {
	high, low, _ := strings.Cut(s, "/")
	hi, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a place in the log", s)
	}
	lo, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a place in the log", s)
	}
	return lsn(hi<<32 | lo), nil
}

// pgEpoch is what PostgreSQL counts microseconds from: 2000-01-01, in Unix microseconds.
const pgEpoch = 946684800 * 1e6

func pgTime(us uint64) time.Time { return time.UnixMicro(int64(us) + pgEpoch).UTC() } //nolint:gosec // two's complement, as it was sent

// Most columns of a table, by PostgreSQL's own bound; and most tables that one TRUNCATE
// may name, by ours.
const (
	maxColumns   = 1664
	maxTruncated = 1 << 16
)

// Kinds of a datum.
const (
	datumNull      = 'n'
	datumUnchanged = 'u' // stored apart (TOAST), not changed and so not sent
	datumText      = 't'
)

type datum struct {
	kind byte
	text []byte
}

// What a message decodes to: one of these.
type (
	beginMessage struct {
		final     lsn // where the transaction's commit is
		committed time.Time
		xid       uint32
	}
	commitMessage struct{ lsn, end lsn }
	// relationMessage describes a table before its first change, and again after its
	// description changed.
	relationMessage struct {
		id            uint32
		schema, table string
		identity      byte // d: primary key, n: nothing, f: full, i: an index
		columns       []column
	}
	changeMessage struct {
		relation uint32
		operation
		oldKind byte // K: the key's columns alone, O: all, 0: none was sent
		old     []datum
		new     []datum // nil for a delete
	}
	truncateMessage struct{ relations []uint32 }
	// otherMessage is one without meaning for us: types, origins, messages.
	otherMessage struct{ kind byte }
)

type column struct {
	name string
	oid  uint32
	key  bool
}

var errMalformed = errors.New("malformed message of pgoutput")

// decoder reads one message. Its first mistake makes all further reads empty.
type decoder struct {
	b   []byte
	bad bool
	// Reused from message to message.
	change   changeMessage
	old, new []datum
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	t := d.b[:n]
	d.b = d.b[n:]
	return t
}

func (d *decoder) u8() byte {
	if t := d.take(1); t != nil {
		return t[0]
	}
	return 0
}

func (d *decoder) u16() int {
	if t := d.take(2); t != nil {
		return int(binary.BigEndian.Uint16(t))
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if t := d.take(4); t != nil {
		return binary.BigEndian.Uint32(t)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if t := d.take(8); t != nil {
		return binary.BigEndian.Uint64(t)
	}
	return 0
}

func (d *decoder) text() string {
	i := bytes.IndexByte(d.b, 0)
	t := d.take(i + 1)
	if i < 0 || t == nil {
		d.bad = true
		return ""
	}
	return string(t[:i])
}

// decode reads exactly one message.
func (d *decoder) decode(b []byte) (any, error) {
	d.b, d.bad = b, false
	var m any
	switch kind := d.u8(); kind {
	case 'B':
		m = beginMessage{final: lsn(d.u64()), committed: pgTime(d.u64()), xid: d.u32()}
	case 'C':
		d.u8() // flags, not used
		m = commitMessage{lsn: lsn(d.u64()), end: lsn(d.u64())}
		d.u64() // when
	case 'R':
		m = d.relation()
	case 'I', 'U', 'D':
		m = d.row(kind)
	case 'T':
		n := d.u32()
		d.u8() // CASCADE, RESTART IDENTITY
		if n > maxTruncated {
			return nil, errMalformed
		}
		var t truncateMessage
		for range n {
			t.relations = append(t.relations, d.u32())
			if d.bad {
				break
			}
		}
		m = t
	case 'Y', 'O', 'M':
		return otherMessage{kind}, nil
	default:
		return nil, fmt.Errorf("%w: it has the unknown type %q", errMalformed, kind)
	}
	if d.bad || len(d.b) > 0 {
		return nil, errMalformed
	}
	return m, nil
}

func (d *decoder) relation() relationMessage {
	m := relationMessage{id: d.u32(), schema: d.text(), table: d.text(), identity: d.u8()}
	if m.schema == "" {
		m.schema = "pg_catalog" // that is how it is sent
	}
	n := d.u16()
	if n > maxColumns {
		d.bad = true
		return m
	}
	for range n {
		c := column{key: d.u8()&1 != 0, name: d.text(), oid: d.u32()}
		d.u32() // the type's modifier
		if d.bad {
			break
		}
		m.columns = append(m.columns, c)
	}
	return m
}

// row reads an insert, update or delete.
func (d *decoder) row(kind byte) *changeMessage {
	d.change = changeMessage{relation: d.u32()}
	m := &d.change
	part := d.u8()
	if (part == 'K' || part == 'O') && kind != 'I' {
		m.oldKind = part
		d.old = d.tuple(d.old[:0])
		m.old = d.old
		if kind == 'U' {
			part = d.u8()
		}
	}
	switch kind {
	case 'D':
		m.operation = opDelete
		if m.oldKind == 0 {
			d.bad = true
		}
		return m
	case 'I':
		m.operation = opInsert
	case 'U':
		m.operation = opUpdate
	}
	if part != 'N' {
		d.bad = true
		return m
	}
	d.new = d.tuple(d.new[:0])
	m.new = d.new
	return m
}

func (d *decoder) tuple(t []datum) []datum {
	n := d.u16()
	if n > maxColumns {
		d.bad = true
		return nil
	}
	for range n {
		v := datum{kind: d.u8()}
		switch v.kind {
		case datumNull, datumUnchanged:
		case datumText:
			size := d.u32()
			if uint64(size) > uint64(len(d.b)) {
				d.bad = true
				return nil
			}
			v.text = d.take(int(size))
		default: // binary values were not asked for
			d.bad = true
			return nil
		}
		t = append(t, v)
	}
	return t
}
