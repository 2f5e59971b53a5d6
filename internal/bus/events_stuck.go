package bus

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// The server hands over no event that it cannot read, and does not say so: one that a
// consumer was given before and has not settled would be under way for ever. So while
// events are under way and the first of them stays the same, the consumer looks now and
// then whether it can be read at all.

// stuckEvents is how many events of the channel are read to see whether any is damaged.
const stuckEvents = 8192

// watch is when and for what a consumer looks.
type watch struct {
	timer *time.Timer
	every time.Duration
	armed bool
	floor uint64          // everything up to there was settled, when it looked last
	told  map[uint64]bool // handed over as damaged
}

func newWatch(ackWait time.Duration) *watch {
	w := &watch{every: ackWait + ackWait/8, told: map[uint64]bool{}}
	w.timer = time.NewTimer(w.every)
	w.timer.Stop()
	return w
}

// begin has the consumer look, some time from now.
func (w *watch) begin() {
	if !w.armed {
		w.armed = true
		w.timer.Reset(w.every)
	}
}

// look hands over what is under way and damaged.
func (c *consuming) look(ctx context.Context, fn func(*Delivered)) error {
	w := c.watch
	w.armed = false
	has, err := c.e.stream.Consumer(ctx, c.name)
	if err != nil {
		return err
	}
	now := has.CachedInfo()
	if now.NumAckPending == 0 {
		return nil // the next event has it look again
	}
	floor := now.AckFloor.Stream
	if floor > w.floor {
		w.floor = floor
		w.begin()
		return nil
	}
	w.begin()
	n := 0
	err = c.e.scan(ctx, scan{filter: c.subject, from: floor + 1, end: now.Delivered.Stream}, func(EventRecord) bool {
		n++
		return n < stuckEvents
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	damaged, buried := c.e.damagedAmong(c.subject, floor, now.Delivered.Stream)
	for _, sequence := range buried {
		// Nobody asks for it any more. The server knows whether it is one of this consumer's.
		if err := c.e.say(c.reply(sequence), "+TERM"); err != nil {
			return err
		}
	}
	for _, sequence := range damaged {
		c.damaged(&Delivered{EventRecord: EventRecord{Sequence: sequence}, Attempt: 2, reply: c.reply(sequence)}, fn)
	}
	return nil
}

// reply is where to send a word about an event that has not come; see parseAck.
func (c *consuming) reply(sequence uint64) string {
	return "$JS.ACK." + c.e.name + "." + c.name + ".2." + strconv.FormatUint(sequence, 10) + ".1.1.0"
}

// damaged hands over an event that cannot be read, once.
func (c *consuming) damaged(d *Delivered, fn func(*Delivered)) {
	if c.watch.told[d.Sequence] {
		return
	}
	c.watch.told[d.Sequence] = true
	d.Namespace, d.Channel = c.e.channel(c.subject)
	d.Damaged, d.events = true, c.e
	fn(d)
}

// damagedAmong lists the damaged events of a channel above a sequence and up to another,
// and such of all channels that were purged.
func (e *Events) damagedAmong(subject string, above, upTo uint64) (damaged, buried []uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for sequence, of := range e.damaged {
		if of == subject && sequence > above && sequence <= upTo {
			damaged = append(damaged, sequence)
		}
	}
	for sequence := range e.buried {
		if sequence > above && sequence <= upTo {
			buried = append(buried, sequence)
		}
	}
	return damaged, buried
}
