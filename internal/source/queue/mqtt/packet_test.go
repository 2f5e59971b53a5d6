package mqtt

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/casemate-dev/casemate/internal/event"
)

// FuzzRead looks for packets that crash the reader or have it keep too much.
func FuzzRead(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0}, true)
	f.Add([]byte{0x20, 3, 1, 0, 0}, false)
	f.Add([]byte{0x32, 7, 0, 1, 'a', 0, 1, 0, 'x'}, false)
	f.Add([]byte{0x32, 6, 0, 1, 'a', 0, 1, 'x'}, true)
	f.Add([]byte{0x36, 6, 0, 1, 'a', 0, 1, 'x'}, true)
	f.Add([]byte{0x90, 3, 0, 1, 0x80}, true)
	f.Add([]byte{0x90, 4, 0, 1, 0, 0x87}, false)
	f.Add([]byte{0xe0, 1, 0x8e}, false)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'a'}, true)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, true)
	f.Fuzz(func(t *testing.T, b []byte, three bool) {
		version := "5"
		if three {
			version = "3.1.1"
		}
		p, err := read(bufio.NewReader(bytes.NewReader(b)), version)
		if err != nil {
			return
		}
		if p == nil || len(p.payload) > len(b) || p.oversized > 0 && p.oversized <= event.MaxData {
			t.Errorf("got %+v", p)
		}
		switch p.kind {
		case connack, disconnect:
			if len(p.reasons) != 1 {
				t.Errorf("kind %d has %d reasons", p.kind, len(p.reasons))
			}
		case publish:
			if p.qos > 2 {
				t.Errorf("QoS %d", p.qos)
			}
		}
	})
}
