package history

import (
	"fmt"
	"time"
)

// Rules are what was promised.
type Rules struct {
	// Ordered are the doors whose events of one key are done one after another.
	Ordered map[string]bool
	// Window is how long before a kill an event may have been given to the function that is
	// done again for it: what the node says when an event is settled is lost for that long.
	Window time.Duration
	// Redelivery is how long an event may be with the function before it is taken for lost
	// and comes again. Zero is for ever.
	Redelivery time.Duration
	// Lossy says that nobody waited for the end, so that what is not done is not lost.
	Lossy bool
}

// Verdict is what came of a history.
type Verdict struct {
	Faults []string // what was promised and not kept

	Lives, Kills, Damages int
	Acked, Refused        int // events, and attempts to hand one in
	Delivered, Dead       int // events done, and dead letters
	Again                 int // times that an event was done again for a reason
	Told                  bool
}

// event is what is known of one.
type event struct {
	n           int
	sent, acked bool
	kept        bool              // it is acknowledged now or later
	done        []doing           // times it was done
	begun       int               // life in which it runs
	begins      map[int]time.Time // by life, the last time it was given to the function
	excused     int               // kills that have explained that it was done again
	dead        bool
	died        time.Time
	reason      string
}

// doing is the end of an invocation.
type doing struct {
	took time.Duration
	life int
	line int
}

// judge reads a history.
type judge struct {
	Rules
	Verdict
	events  map[string]*event
	ordered map[string][]*event // by door and key, in the order of their numbers
	order   []string            // ids as they were first sent
	kills   map[int]time.Time   // by life
	full    map[int]bool        // lives in which the disk was full
	damages []int               // lines
	tells   []int
	stuck   []string
}

// Judge holds a history against the rules.
func Judge(lines []Line, r Rules) Verdict {
	j := &judge{Rules: r, events: map[string]*event{}, ordered: map[string][]*event{}, kills: map[int]time.Time{}, full: map[int]bool{}}
	// Dead letters are listed in the end, but were there when they were written.
	for i := range lines {
		l := &lines[i]
		if l.What == Acked {
			j.of(l).kept = true
		}
		if l.What == Dead {
			e := j.of(l)
			e.dead, e.reason = true, l.Text
			if e.died.IsZero() || l.At.Before(e.died) {
				e.died = l.At
			}
		}
	}
	for i := range lines {
		j.line(i, &lines[i])
	}
	j.total()
	return j.Verdict
}

func (j *judge) fault(format string, a ...any) {
	const most = 20
	if len(j.Faults) < most {
		j.Faults = append(j.Faults, fmt.Sprintf(format, a...))
	}
}

func (j *judge) of(l *Line) *event {
	id := l.ID()
	e := j.events[id]
	if e == nil {
		e = &event{n: l.N, begins: map[int]time.Time{}}
		j.events[id] = e
		j.order = append(j.order, id)
	}
	return e
}

func (j *judge) line(i int, l *Line) {
	j.Lives = max(j.Lives, l.Life)
	switch l.What {
	case Sent:
		e := j.of(l)
		if !e.sent {
			e.sent = true
			j.ordered[l.Door+"/"+l.Key] = append(j.ordered[l.Door+"/"+l.Key], e)
		}
	case Acked:
		j.of(l).acked = true
	case Refused:
		j.Refused++
	case Begin:
		j.begin(l)
	case End:
		e := j.of(l)
		if e.begun == l.Life {
			e.begun = 0
		}
		if l.OK {
			e.done = append(e.done, doing{l.At.Sub(e.begins[l.Life]), l.Life, i})
		}
	case Bad:
		j.fault("life %d: the function was given other data for %s than was sent: %s", l.Life, l.ID(), l.Text)
	case Killed:
		j.Kills++
		j.kills[l.Life] = l.At
	case Full:
		j.full[l.Life] = true
	case Damaged:
		j.Damages++
		j.damages = append(j.damages, i)
	case Told:
		j.tells = append(j.tells, i)
		if len(j.damages) == 0 {
			j.fault("life %d: damage was reported and there was none: %s", l.Life, l.Text)
		}
		j.Told = true
	case Stuck:
		j.stuck = append(j.stuck, fmt.Sprintf("life %d: %s", l.Life, l.Text))
	}
}

func (j *judge) begin(l *Line) {
	e := j.of(l)
	if !e.sent {
		j.fault("life %d: %s was delivered and nobody sent it", l.Life, l.ID())
		return
	}
	e.begins[l.Life] = l.At
	if !j.Ordered[l.Door] || len(j.damages) > 0 {
		return
	}
	for _, earlier := range j.ordered[l.Door+"/"+l.Key] {
		if earlier == e {
			break
		}
		if earlier.begun == l.Life {
			j.fault("life %d: %s began while number %d of its key ran", l.Life, l.ID(), earlier.n)
		}
		if !earlier.kept {
			continue // perhaps there is none
		}
		// A dead letter is written before the next one of its key begins.
		if len(earlier.done) == 0 && (!earlier.dead || earlier.died.After(l.At)) {
			j.fault("life %d: %s began before number %d of its key was done", l.Life, l.ID(), earlier.n)
		}
	}
	e.begun = l.Life
}

// damaged reports whether files were changed between two lines, and whether that was told
// after.
func (j *judge) damaged(from, to int) (damaged, told bool) {
	for _, d := range j.damages {
		if d > from && d < to {
			damaged = true
			for _, t := range j.tells {
				told = told || t > d
			}
		}
	}
	return damaged, told
}

func (j *judge) total() {
	for _, s := range j.stuck {
		j.fault("%s", s)
	}
	for _, id := range j.order {
		e := j.events[id]
		if e.acked {
			j.Acked++
		}
		if len(e.done) > 0 {
			j.Delivered++
		}
		if e.dead {
			j.Dead++
			if e.reason == "" {
				j.fault("%s is a dead letter without a reason", id)
			}
			if !e.sent {
				j.fault("%s is a dead letter and nobody sent it", id)
			}
		}
		if e.acked && len(e.done) == 0 && !e.dead && !j.Lossy {
			damaged, told := j.damaged(-1, 1<<62)
			switch {
			case !damaged:
				j.fault("%s was acknowledged and is lost", id)
			case !told:
				j.fault("%s is lost to damage that nobody reported", id)
			}
		}
		j.repeats(id, e)
	}
}

// repeats looks for a reason for each time that an event was done again.
func (j *judge) repeats(id string, e *event) {
	for i := 1; i < len(e.done); i++ {
		j.Again++
		was, is := e.done[i-1], e.done[i]
		if j.Redelivery > 0 && was.took >= j.Redelivery {
			continue
		}
		if e.excused++; e.excused <= j.explaining(e, is.life) {
			continue
		}
		damaged, told := j.damaged(-1, is.line) // a consumer that was damaged may begin anew at any later time
		switch {
		case damaged && told:
		case damaged:
			j.fault("%s was done again in life %d after damage that nobody reported", id, is.life)
		case was.life == is.life:
			j.fault("%s was done twice in life %d", id, is.life)
		default:
			j.fault("%s was done in life %d and again in life %d, and no kill explains it", id, was.life, is.life)
		}
	}
	if e.dead && len(e.done) > 0 {
		damaged, _ := j.damaged(-1, 1<<62)
		if !damaged && j.explaining(e, j.Lives) == 0 {
			j.fault("%s was done in life %d and is a dead letter too", id, e.done[len(e.done)-1].life)
		}
	}
}

// explaining counts the lives before one, after which the event had to come again because
// it was under way or had just been settled, and that could not be kept.
func (j *judge) explaining(e *event, life int) int {
	n := 0
	for in, at := range e.begins {
		killed, ok := j.kills[in]
		if in < life && (j.full[in] || ok && killed.Sub(at) <= j.Window) {
			n++
		}
	}
	return n
}
