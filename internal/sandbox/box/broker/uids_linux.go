package broker

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The host's user ids for boxes: far from people, daemons and the ranges that
// containers are given. Each box has two, the init's and the guest's.
const (
	firstUID = 1_600_000_000
	pairs    = 1 << 15
)

// uids gives out pairs. It begins at a random one, so that two brokers on a machine
// hardly ever meet, and goes round, so that a pair rests before it is used again.
type uids struct {
	used map[int]bool
	next int
}

func newUIDs() *uids {
	var seed [2]byte
	// crypto/rand would make the small program a tenth larger. Without a random number the
	// round begins at the first pair.
	_, _ = unix.Getrandom(seed[:], 0)
	return &uids{used: map[int]bool{}, next: int(binary.LittleEndian.Uint16(seed[:])) % pairs}
}

// take gives the first id of a pair that no living box has, and false when there is none.
func (u *uids) take() (int, bool) {
	if len(u.used) == pairs {
		return 0, false
	}
	for u.used[u.next] {
		u.next = (u.next + 1) % pairs
	}
	n := u.next
	u.used[n] = true
	u.next = (n + 1) % pairs
	return firstUID + 2*n, true
}

func (u *uids) free(uid int) { delete(u.used, (uid-firstUID)/2) }
