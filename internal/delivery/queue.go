package delivery

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
)

// item is one event of a trigger: in hand, or parked until its next attempt.
type item struct {
	seq    uint64
	stored time.Time
	rerun  rerun
	key    string // by which it is ordered; empty for not at all
	tried  tried

	data    []byte         // as stored; nil while it is parked and not being run
	msg     *event.Message // decoded from data, when somebody had to look
	bad     Reason         // why it cannot be run at all
	size    int64          // what it takes of the budget
	settler Settler        // nil once it is parked: then the retry log answers for it
	feed    *feed

	arrived time.Time // when it became ready, for batches
	parked  bool      // the retry log has a record of it
	logged  bool      // it may have one: writing it failed, which is no proof
	rev     uint64    // of that record
	nextRev uint64    // of the one being written
	queued  bool      // in fresh, retries or waiting
	running bool      // a worker has it, or it is just being parked
}

// tried is what is known of earlier attempts.
type tried struct {
	Attempts int       `json:"attempts,omitempty"`
	First    time.Time `json:"first,omitzero"` // when the first one began
	Last     time.Time `json:"last,omitzero"`  // when the last one ended
	Due      time.Time `json:"due,omitzero"`   // not before
	Alone    bool      `json:"alone,omitempty"`
	Status   int       `json:"status,omitempty"`
	Code     string    `json:"code,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Version  string    `json:"version,omitempty"`
	Receipt  string    `json:"receipt,omitempty"`
}

// lane is the queue of one key: only its first item may run, and only when no other
// one does. A late one may come before the one that runs.
type lane struct {
	items []*item
	busy  bool
}

func (l *lane) insert(it *item) {
	i, _ := slices.BinarySearchFunc(l.items, it.seq, func(o *item, seq uint64) int { return cmp.Compare(o.seq, seq) })
	l.items = slices.Insert(l.items, i, it)
}

// order is a heap of items: by sequence, or by when they are due.
type order struct {
	items []*item
	due   bool
}

func (o *order) Len() int      { return len(o.items) }
func (o *order) Swap(i, j int) { o.items[i], o.items[j] = o.items[j], o.items[i] }
func (o *order) Push(x any)    { o.items = append(o.items, x.(*item)) }
func (o *order) Less(i, j int) bool {
	if a, b := o.items[i], o.items[j]; o.due && !a.tried.Due.Equal(b.tried.Due) {
		return a.tried.Due.Before(b.tried.Due)
	}
	return o.items[i].seq < o.items[j].seq
}

func (o *order) Pop() any {
	last := len(o.items) - 1
	it := o.items[last]
	o.items[last] = nil
	o.items = o.items[:last]
	return it
}

func (o *order) add(it *item) { it.queued = true; heap.Push(o, it) }

func (o *order) first() *item {
	if len(o.items) == 0 {
		return nil
	}
	return o.items[0]
}

func (o *order) pop() *item {
	it := heap.Pop(o).(*item)
	it.queued = false
	return it
}

// queues are what a running session knows. trigger.mu guards them.
type queues struct {
	items   map[uint64]*item // all of them
	lanes   map[string]*lane // by key, of an ordered trigger
	fresh   order            // ready, never parked
	retries order            // ready, parked before
	waiting order            // parked, by when they are due
	retried bool             // whose turn it was last
	running int              // invocations under way
	parked  int
	held    int   // items with a settler
	bytes   int64 // of these
}

func newQueues() queues {
	return queues{items: map[uint64]*item{}, lanes: map[string]*lane{}, waiting: order{due: true}}
}

// add takes in an item. It becomes ready unless it is behind another one of its key.
func (q *queues) add(it *item, now time.Time) {
	q.items[it.seq] = it
	it.arrived = now
	if it.key == "" {
		q.enqueue(it, now)
		return
	}
	l := q.lanes[it.key]
	if l == nil {
		l = &lane{}
		q.lanes[it.key] = l
	}
	l.insert(it)
	// An item that is second now but has been queued stays so: next looks again.
	if l.items[0] == it {
		q.enqueue(it, now)
	}
}

// enqueue makes an item ready, or has it wait until it is due.
func (q *queues) enqueue(it *item, now time.Time) {
	switch {
	case it.queued || it.running:
	case it.tried.Due.After(now):
		q.waiting.add(it)
	case it.parked:
		q.retries.add(it)
	default:
		q.fresh.add(it)
	}
}

// leads reports whether the item may run as far as its key goes.
func (q *queues) leads(it *item) bool {
	if it.key == "" {
		return true
	}
	l := q.lanes[it.key]
	return l != nil && l.items[0] == it && !l.busy
}

// begin gives an item to a worker.
func (q *queues) begin(it *item) {
	it.running = true
	if l := q.lanes[it.key]; it.key != "" && l != nil {
		l.busy = true
	}
}

// end takes it back: ready, or waiting when it is not due yet.
func (q *queues) end(it *item, now time.Time) {
	it.running = false
	if it.key == "" {
		q.enqueue(it, now)
		return
	}
	if l := q.lanes[it.key]; l != nil {
		l.busy = false
		q.enqueue(l.items[0], now)
	}
}

// awake moves what is due to the ready ones.
func (q *queues) awake(now time.Time) {
	for {
		it := q.waiting.first()
		if it == nil || it.tried.Due.After(now) {
			return
		}
		q.waiting.pop()
		if q.items[it.seq] == it {
			q.enqueue(it, now)
		}
	}
}

// next takes the item whose turn it is, or nil. Fresh items are left out when there is
// no room to park them if they fail.
func (q *queues) next() *item {
	for {
		var from *order
		f, r := q.fresh.first(), q.retries.first()
		if q.parked >= MaxParked {
			f = nil
		}
		switch {
		case f == nil && r == nil:
			return nil
		case r == nil, f != nil && q.retried:
			from = &q.fresh
		default:
			from = &q.retries
		}
		q.retried = from == &q.retries
		it := from.pop()
		// Whoever lost his place at the head of his key is queued again when he has it back.
		if q.items[it.seq] == it && !it.running && q.leads(it) {
			return it
		}
	}
}

// remove forgets an item that is done with, and makes the next one of its key ready.
func (q *queues) remove(it *item, now time.Time) {
	delete(q.items, it.seq)
	if it.parked {
		q.parked--
	}
	defer func() { it.running = false }()
	if it.key == "" {
		return
	}
	l := q.lanes[it.key]
	if l == nil {
		return
	}
	l.busy = l.busy && !it.running
	l.items = slices.DeleteFunc(l.items, func(o *item) bool { return o == it })
	if len(l.items) == 0 {
		delete(q.lanes, it.key)
		return
	}
	head := l.items[0]
	head.arrived = now
	q.enqueue(head, now)
}
