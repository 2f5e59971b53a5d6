package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/casemate-dev/casemate/internal/state"
)

// contents reads what a stream holds.
func contents(t *testing.T, s Stream) (data []string, err error) {
	t.Helper()
	err = s.Read(t.Context(), state.LogFilter{}, func(rec state.LogRecord) bool {
		data = append(data, string(rec.Data))
		return true
	})
	return data, err
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := &packed{Stream: m}
	line := `{"id":"` + strings.Repeat("x", 90) + `"}` + "\n"
	want := []string{
		line, strings.Repeat(line, 5000), strings.Repeat(line, packAbove/len(line)), strings.Repeat(line, packAbove/len(line)+1),
		strings.Repeat(line, 2), strings.Repeat(line, 800),
	}
	for i, data := range want {
		ok(t, s.Append(t.Context(), "default", "x", string(rune('a'+i)), []byte(data)))
	}
	got, err := contents(t, s)
	ok(t, err)
	if len(got) != len(want) {
		t.Fatalf("%d records of %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("record %d has %d bytes that are not the %d of before", i, len(got[i]), len(want[i]))
		}
		stored := m.records[i].Data
		if large := len(want[i]) >= packAbove; large != (len(stored) < len(want[i])/2) || !large && string(stored) != want[i] {
			t.Errorf("record %d of %d bytes takes %d", i, len(want[i]), len(stored))
		}
	}
}

func TestReceiptsThatAreAlikeTakeLittleRoom(t *testing.T) {
	t.Parallel()
	const n = 200
	s := newMemory()
	r := open(t, t.TempDir(), s, newMemory())
	var last string
	size := 0
	for range n {
		rc := receipt("x")
		ok(t, r.Record(t.Context(), rc))
		last = rc.ID
		b, err := appendReceipt(nil, rc)
		ok(t, err)
		size += len(b) + 1
	}
	ok(t, r.Flush(t.Context()))
	stored := 0
	for _, rec := range s.records {
		stored += len(rec.Data)
	}
	if stored == 0 || stored > size/3 {
		t.Errorf("%d bytes of receipts take %d", size, stored)
	}
	if rc, err := r.Receipt(t.Context(), last); err != nil || rc.ID != last {
		t.Errorf("looking for a receipt: %+v, %v", rc, err)
	}
}

func TestARecordThatCannotBeUnpackedIsLeftOut(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte(`{"id":"1"}`+"\n"), 1000)
	packing := func(data []byte) []byte { return pack(make([]byte, 0, 1+s2.MaxEncodedLen(len(data))), data) }
	whole := packing(data)
	huge := binary.AppendUvarint([]byte{packedMark}, 1<<31)
	for name, broken := range map[string][]byte{
		"cut": whole[:len(whole)-3], "mark alone": whole[:1], "a block that claims too much": huge,
		"just too much": packing(make([]byte, mostPacked+1)),
	} {
		m := newMemory()
		for i, data := range [][]byte{[]byte("first\n"), broken, whole} {
			ok(t, m.Append(t.Context(), "default", "x", string(rune('a'+i)), data))
		}
		got, err := contents(t, &packed{Stream: m})
		if !errors.Is(err, state.ErrCorrupt) || len(got) != 2 || got[0] != "first\n" || got[1] != string(data) {
			t.Errorf("%s: %d records, %v", name, len(got), err)
		}
	}
}
