package wasi

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/tetratelabs/wazero/api"
)

func argsGet(g Guest, mem api.Memory, params []uint64) Errno {
	args, _ := g.Strings()
	return putStrings(mem, uint32(params[0]), uint32(params[1]), args)
}

func argsSizesGet(g Guest, mem api.Memory, params []uint64) Errno {
	args, _ := g.Strings()
	return putSizes(mem, uint32(params[0]), uint32(params[1]), args)
}

func environGet(g Guest, mem api.Memory, params []uint64) Errno {
	_, env := g.Strings()
	return putStrings(mem, uint32(params[0]), uint32(params[1]), env)
}

func environSizesGet(g Guest, mem api.Memory, params []uint64) Errno {
	_, env := g.Strings()
	return putSizes(mem, uint32(params[0]), uint32(params[1]), env)
}

// putStrings writes pointers to the strings at list, and the strings, each with a
// zero at its end, one after another at buf.
func putStrings(mem api.Memory, list, buf uint32, all []string) Errno {
	for _, s := range all {
		if errno := put32(mem, list, buf); errno != Success {
			return errno
		}
		if !mem.WriteString(buf, s) || !mem.WriteByte(buf+uint32(len(s)), 0) {
			return Fault
		}
		list += 4
		buf += uint32(len(s)) + 1
	}
	return Success
}

func putSizes(mem api.Memory, count, size uint32, all []string) Errno {
	total := uint32(0)
	for _, s := range all {
		total += uint32(len(s)) + 1
	}
	if errno := put32(mem, count, uint32(len(all))); errno != Success {
		return errno
	}
	return put32(mem, size, total)
}

// Clocks, of witx type clockid.
const (
	clockRealtime  = 0
	clockMonotonic = 1
)

// resolution is what the clocks are stated to resolve, in nanoseconds.
const resolution = 1000

func clockResGet(_ Guest, mem api.Memory, params []uint64) Errno {
	if id := uint32(params[0]); id != clockRealtime && id != clockMonotonic {
		return Inval
	}
	return put64(mem, uint32(params[1]), resolution)
}

func clockSight(params []uint64) (Sight, bool) {
	if uint32(params[0]) == clockRealtime {
		return Realtime, true
	}
	return Monotonic, true
}

func clockTimeGet(g Guest, mem api.Memory, params []uint64) Errno {
	var now int64
	switch uint32(params[0]) {
	case clockRealtime:
		now = g.Realtime()
	case clockMonotonic:
		now = g.Monotonic()
	default:
		return Inval
	}
	return put64(mem, uint32(params[2]), uint64(now))
}

func randomGet(g Guest, mem api.Memory, params []uint64) Errno {
	p, ok := mem.Read(uint32(params[0]), uint32(params[1]))
	if !ok {
		return Fault
	}
	g.Random(p)
	return Success
}

// Sizes and kinds of poll_oneoff, of witx types subscription, event, eventtype and
// subclockflags.
const (
	subscriptionSize  = 48
	eventSize         = 32
	eventClock        = 0
	eventRead         = 1
	eventWrite        = 2
	flagAbsolute      = 1
	maxSubscriptions  = 1024
	subscriptionKind  = 8
	subscriptionClock = 16
	subscriptionTime  = 24
	subscriptionFlags = 40
)

// pollOneoff waits for the first of what it is given. Descriptors are always ready,
// so a guest waits only when it asks for clocks alone.
func pollOneoff(g Guest, mem api.Memory, params []uint64) Errno {
	n := uint32(params[2])
	if n == 0 || n > maxSubscriptions {
		return Inval
	}
	subs, ok := mem.Read(uint32(params[0]), n*subscriptionSize)
	if !ok {
		return Fault
	}
	if _, ok := mem.Read(uint32(params[1]), n*eventSize); !ok {
		return Fault
	}
	ready, wait := false, time.Duration(math.MaxInt64)
	waits := make([]time.Duration, n)
	for i := range waits {
		sub := subs[i*subscriptionSize:][:subscriptionSize]
		waits[i] = 0
		if sub[subscriptionKind] == eventClock {
			waits[i] = untilClock(g, sub)
			wait = min(wait, waits[i])
		} else {
			ready = true
		}
	}
	if ready {
		wait = 0
	}
	if wait > 0 {
		g.Sleep(wait)
	}
	events, out := uint32(0), uint32(params[1])
	for i, w := range waits {
		if w > wait {
			continue
		}
		event := eventOf(g, subs[i*subscriptionSize:][:subscriptionSize])
		if errno := put(mem, out+events*eventSize, event[:]); errno != Success {
			return errno
		}
		events++
	}
	return put32(mem, uint32(params[3]), events)
}

// untilClock gives how long a subscription to a clock has to wait, at least 0.
func untilClock(g Guest, sub []byte) time.Duration {
	timeout := binary.LittleEndian.Uint64(sub[subscriptionTime:])
	if binary.LittleEndian.Uint16(sub[subscriptionFlags:])&flagAbsolute != 0 {
		now := g.Monotonic()
		if le32(sub[subscriptionClock:]) == clockRealtime {
			now = g.Realtime()
		}
		if timeout <= uint64(now) {
			return 0
		}
		timeout -= uint64(now)
	}
	return time.Duration(min(timeout, math.MaxInt64))
}

// eventOf is the event that answers a subscription.
func eventOf(g Guest, sub []byte) (event [eventSize]byte) {
	copy(event[:8], sub[:8]) // the guest's own mark
	kind := sub[subscriptionKind]
	event[10] = kind
	errno := Success
	switch kind {
	case eventClock:
	case eventRead, eventWrite:
		if fd := le32(sub[subscriptionClock:]); !g.Files().open(fd) || (fd == 0) != (kind == eventRead) {
			errno = Badf
		}
		event[16] = 1 // a byte at least
	default:
		errno = Inval
	}
	binary.LittleEndian.PutUint16(event[8:], uint16(errno))
	return event
}
