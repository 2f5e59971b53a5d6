package node

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// ids makes the ids of requests and receipts: UUIDs of version 7 (RFC 9562, section
// 5.7), which sort by the order in which they were made. Two are made for each request,
// so entropy is read for many at once. The clock is the only field to set; the mutex
// guards those below it.
type ids struct {
	clock func() time.Time

	mu     sync.Mutex
	last   uint64 // time of the last id: milliseconds, and 12 bits of their fractions
	random [64 * 8]byte
	left   int // bytes of random, at its end, that no id has had
}

// next gives an id that nobody had before.
func (g *ids) next() string {
	now := uint64(g.clock().UnixNano())
	millis := now / uint64(time.Millisecond)
	// Fractions of a millisecond, in units of 256 ns (section 6.2, method 3).
	at := millis<<12 | (now-millis*uint64(time.Millisecond))>>8

	g.mu.Lock()
	// Also when the clock was set back, or stood still.
	at = max(at, g.last+1)
	g.last = at
	if g.left == 0 {
		_, _ = rand.Read(g.random[:]) // never fails; without randomness the program ends
		g.left = len(g.random)
	}
	entropy := binary.BigEndian.Uint64(g.random[len(g.random)-g.left:])
	g.left -= 8
	g.mu.Unlock()

	var id [16]byte
	binary.BigEndian.PutUint64(id[:], at>>12<<16|7<<12|at&0xfff)
	binary.BigEndian.PutUint64(id[8:], entropy>>2|1<<63)
	var text [36]byte
	hex.Encode(text[:], id[:4])
	text[8] = '-'
	hex.Encode(text[9:], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:], id[10:])
	return string(text[:])
}
