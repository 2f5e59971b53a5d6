package history

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What is done to a channel: it is an append-only log in which an id is stored once.
type (
	operation struct {
		id   string // appended; empty for reading everything
		door string
	}
	outcome struct {
		known     bool // false: the one who asked was killed, or told nothing certain
		sequence  uint64
		duplicate bool
		found     []string
	}
)

// Linear reports whether appends and reads of each channel, as their callers saw them over
// all lives, are those of one log that did one thing after the other. It is true for
// channels for which it cannot be decided within limit; decided says how many were.
func Linear(lines []Line, limit time.Duration) (wrong []string, decided, operations int) {
	for door, ops := range operationsOf(lines) {
		operations += len(ops)
		switch porcupine.CheckOperationsTimeout(model, ops, limit) {
		case porcupine.Illegal:
			wrong = append(wrong, door)
			decided++
		case porcupine.Ok:
			decided++
		case porcupine.Unknown:
		}
	}
	slices.Sort(wrong)
	return wrong, decided, operations
}

// operationsOf pairs lines. What was begun and has no end may have had its effect at any
// later time, or never, which is the same as at the very end.
func operationsOf(lines []Line) map[string][]porcupine.Operation {
	all := map[string][]porcupine.Operation{}
	open := map[string]int{} // by what identifies an operation under way: its index
	client := 0
	end := int64(len(lines))
	begin := func(door, name string, i int, in operation) {
		open[door+"/"+name] = len(all[door])
		all[door] = append(all[door], porcupine.Operation{ClientId: client, Input: in, Call: int64(i), Output: outcome{}, Return: end})
		client++
	}
	finish := func(door, name string, i int, out outcome) {
		if at, ok := open[door+"/"+name]; ok {
			all[door][at].Output, all[door][at].Return = out, int64(i)
			delete(open, door+"/"+name)
		}
	}
	for i := range lines {
		l := &lines[i]
		switch l.What {
		case Sent:
			begin(l.Door, l.ID(), i, operation{id: l.ID(), door: l.Door})
		case Acked:
			if l.Sequence == 0 { // stored, but not known where
				delete(open, l.Door+"/"+l.ID())
				continue
			}
			finish(l.Door, l.ID(), i, outcome{known: true, sequence: l.Sequence, duplicate: l.Duplicate})
		case Refused: // an error leaves open what was stored
			delete(open, l.Door+"/"+l.ID())
		case Look:
			begin(l.Door, "look "+strconv.Itoa(l.Life)+" "+strconv.Itoa(l.Reader), i, operation{door: l.Door})
		case Seen:
			finish(l.Door, "look "+strconv.Itoa(l.Life)+" "+strconv.Itoa(l.Reader), i, outcome{known: true, found: l.Found})
		}
	}
	return all
}

// entry of the log, as the model's state holds it: id@sequence, joined by spaces.
func entry(id string, sequence uint64) string { return id + "@" + strconv.FormatUint(sequence, 10) }

var model = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		log, in, out := state.(string), input.(operation), output.(outcome)
		if in.id == "" {
			return !out.known || ids(log) == strings.Join(out.found, " "), log
		}
		_, after, there := strings.Cut(" "+log+" ", " "+in.id+"@")
		if there {
			at, _, _ := strings.Cut(after, " ")
			// Where an unknown one is, somebody may learn later.
			return !out.known || out.duplicate && (at == "?" || at == strconv.FormatUint(out.sequence, 10)), log
		}
		next := in.id + "@?"
		if out.known {
			if out.duplicate || out.sequence <= last(log) {
				return false, log
			}
			next = entry(in.id, out.sequence)
		}
		return true, strings.TrimLeft(log+" "+next, " ")
	},
}

// ids are those of the log without their places.
func ids(log string) string {
	var all []string
	for _, e := range strings.Fields(log) {
		id, _, _ := strings.Cut(e, "@")
		all = append(all, id)
	}
	return strings.Join(all, " ")
}

// last is the highest known sequence.
func last(log string) uint64 {
	entries := strings.Fields(log)
	for _, e := range slices.Backward(entries) {
		_, at, _ := strings.Cut(e, "@")
		if n, err := strconv.ParseUint(at, 10, 64); err == nil {
			return n
		}
	}
	return 0
}
