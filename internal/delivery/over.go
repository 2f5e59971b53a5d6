package delivery

// mostOver is how many ended events a trigger remembers. A copy that comes late was under
// way when its event was settled, so it is one of the last few of the consumer's window.
const mostOver = 1024

// maxEndedBefore is how many events that ended in earlier sessions a trigger remembers when
// its consumer has lost its place.
const maxEndedBefore = 100_000

// over remembers the sequences of the events that ended last. The stream hands an event
// over again when it waited longer than AckWait, and that copy may arrive after the event
// was done, as may the copy of one that waited in the retry log over a crash. It is settled
// and not run. The zero value remembers nothing.
type over struct {
	known map[uint64]bool
	ring  []uint64
	next  int
}

func (o *over) has(seq uint64) bool { return o.known[seq] }

func (o *over) add(seq uint64) {
	if seq == 0 || o.known[seq] {
		return
	}
	if o.known == nil {
		o.known = map[uint64]bool{}
	}
	if len(o.ring) < mostOver {
		o.ring = append(o.ring, seq)
	} else {
		delete(o.known, o.ring[o.next])
		o.ring[o.next] = seq
		o.next = (o.next + 1) % mostOver
	}
	o.known[seq] = true
}

// keep adds one that is remembered as long as the trigger is in force.
func (o *over) keep(seq uint64) {
	if o.known == nil {
		o.known = map[uint64]bool{}
	}
	if seq != 0 && len(o.known) < mostOver+maxEndedBefore {
		o.known[seq] = true
	}
}
