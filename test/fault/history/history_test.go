package history_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/test/fault/history"
)

// right is a history in which all went as promised: three events of an ordered key, the
// second of which fails once, a kill, and the third done again after it.
func right() []history.Line {
	at := time.Unix(1_700_000_000, 0)
	line := func(life int, what string, n int, more ...func(*history.Line)) history.Line {
		at = at.Add(time.Millisecond)
		l := history.Line{At: at, Life: life, What: what, Door: "source", Key: "a", N: n}
		for _, f := range more {
			f(&l)
		}
		return l
	}
	ok := func(l *history.Line) { l.OK = true }
	place := func(seq uint64, dup bool) func(*history.Line) {
		return func(l *history.Line) { l.Sequence, l.Duplicate = seq, dup }
	}
	found := func(ids ...string) func(*history.Line) { return func(l *history.Line) { l.Found = ids } }
	return []history.Line{
		line(1, history.Sent, 1), line(1, history.Acked, 1, place(10, false)),
		line(1, history.Begin, 1), line(1, history.Sent, 2), line(1, history.End, 1, ok),
		line(1, history.Acked, 2, place(11, false)),
		line(1, history.Look, 0), line(1, history.Seen, 0, found("source.a.1", "source.a.2")),
		line(1, history.Begin, 2), line(1, history.End, 2),
		line(1, history.Begin, 2), line(1, history.End, 2, ok),
		line(1, history.Sent, 3),
		line(1, history.Begin, 3), line(1, history.End, 3, ok),
		line(1, history.Killed, 0),
		line(2, history.Sent, 3), line(2, history.Acked, 3, place(12, true)),
		line(2, history.Begin, 3), line(2, history.End, 3, ok),
		line(2, history.Stopped, 0),
	}
}

var rules = history.Rules{Ordered: map[string]bool{"source": true}, Window: time.Second, Redelivery: time.Minute}

// without leaves out the lines of which f is true.
func without(lines []history.Line, f func(int, *history.Line) bool) []history.Line {
	var out []history.Line
	for i := range lines {
		if !f(i, &lines[i]) {
			out = append(out, lines[i])
		}
	}
	return out
}

func insert(lines []history.Line, before int, l ...history.Line) []history.Line {
	for i := range l {
		if l[i].At.IsZero() {
			l[i].At = lines[before].At
		}
	}
	return slices.Insert(slices.Clone(lines), before, l...)
}

func TestJudgeFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	of := func(what string, n int) history.Line {
		return history.Line{Life: 2, What: what, Door: "source", Key: "a", N: n, OK: what == history.End}
	}
	end := len(right()) - 1
	for name, tc := range map[string]struct {
		lines []history.Line
		want  string // in the first fault; empty for none
	}{
		"nothing": {right(), ""},
		"a loss":  {insert(right(), end, of(history.Sent, 4), of(history.Acked, 4)), "source.a.4 was acknowledged and is lost"},
		"a loss of one that failed for ever": {
			without(right(), func(_ int, l *history.Line) bool { return l.N == 3 && l.What == history.End }),
			"source.a.3 was acknowledged and is lost",
		},
		"an event that was never acknowledged is no loss": {insert(right(), end, of(history.Sent, 4)), ""},
		"a dead letter is no loss": {
			insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), func() history.Line { l := of(history.Dead, 4); l.Text = "attempts"; return l }()), "",
		},
		"a dead letter without a reason": {insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), of(history.Dead, 4)), "without a reason"},
		"a dead letter of one that was done": {
			insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), of(history.Begin, 4), of(history.End, 4),
				func() history.Line { l := of(history.Dead, 4); l.Text = "attempts"; return l }()), "is a dead letter too",
		},
		"an event that nobody sent": {insert(right(), end, of(history.Begin, 9), of(history.End, 9)), "nobody sent it"},
		"other data":                {insert(right(), end, of(history.Bad, 2)), "other data"},
		"a key out of order": {
			insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), of(history.Sent, 5), of(history.Acked, 5),
				of(history.Begin, 5), of(history.End, 5), of(history.Begin, 4), of(history.End, 4)),
			"source.a.5 began before number 4",
		},
		"a key before its dead letter": {
			insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), of(history.Sent, 5), of(history.Acked, 5),
				of(history.Begin, 5), of(history.End, 5), func() history.Line {
					l := of(history.Dead, 4)
					l.Text, l.At = "age", right()[end].At.Add(time.Hour)
					return l
				}()),
			"source.a.5 began before number 4",
		},
		"a key after one that never came": {
			insert(right(), end, of(history.Sent, 4), of(history.Sent, 5), of(history.Acked, 5), of(history.Begin, 5), of(history.End, 5)), "",
		},
		"two of a key at once": {
			insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), of(history.Sent, 5), of(history.Acked, 5),
				of(history.Begin, 4), of(history.Begin, 5), of(history.End, 4), of(history.End, 5)),
			"source.a.5 began while number 4",
		},
		"again after it took too long":   {slow(insert(right(), end, of(history.Begin, 4), of(history.End, 4), of(history.End, 4)), 20), ""},
		"again and it did not take long": {insert(right(), end, of(history.Sent, 4), of(history.Begin, 4), of(history.End, 4), of(history.End, 4)), "done twice"},
		"a silent duplicate":             {insert(right(), end, of(history.Begin, 3), of(history.End, 3)), "source.a.3 was done twice in life 2"},
		"a duplicate after a kill":       {insert(right(), end, of(history.End, 1)), ""},
		"a duplicate after a full disk":  {without(insert(right(), 15, history.Line{Life: 1, What: history.Full}), isKill), ""},
		"a duplicate without a kill":     {without(insert(right(), end, of(history.End, 1)), isKill), "no kill explains it"},
		"damage that nobody reported":    {insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), history.Line{Life: 2, What: history.Damaged}), "that nobody reported"},
		"damage that was told too early": {insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), history.Line{Life: 2, What: history.Told}, history.Line{Life: 2, What: history.Damaged}), "and there was none"},
		"damage that is reported":        {insert(right(), end, of(history.Sent, 4), of(history.Acked, 4), history.Line{Life: 2, What: history.Damaged}, history.Line{Life: 2, What: history.Told}), ""},
		"again after unreported damage":  {insert(without(right(), isKill), 15, history.Line{Life: 1, What: history.Damaged}), "again in life 2 after damage that nobody reported"},
		"damage is reported without any": {insert(right(), end, history.Line{Life: 2, What: history.Told, Text: "x"}), "and there was none"},
		"an end that does not come":      {insert(right(), end, history.Line{Life: 2, What: history.Stuck, Text: "5 events wait"}), "5 events wait"},
		"an end that damage holds up":    {insert(right(), end, history.Line{Life: 2, What: history.Damaged}, history.Line{Life: 2, What: history.Stuck, Text: "5 events wait"}, history.Line{Life: 2, What: history.Told}), "5 events wait"},
		"again, long before the kill":    {late(insert(right(), end)), "no kill explains it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := history.Judge(tc.lines, rules)
			got := strings.Join(v.Faults, "\n")
			if tc.want == "" && got != "" || tc.want != "" && !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// slow has an hour pass before all lines from one on.
func slow(lines []history.Line, from int) []history.Line {
	out := slices.Clone(lines)
	for i := from + 1; i < len(out); i++ {
		out[i].At = out[i].At.Add(time.Hour)
	}
	return insert(out, from, history.Line{Life: 2, What: history.Sent, Door: "source", Key: "a", N: 4})
}

func isKill(_ int, l *history.Line) bool { return l.What == history.Killed }

// late puts the kill a minute after what it would explain.
func late(lines []history.Line) []history.Line {
	out := slices.Clone(lines)
	for i := range out {
		if out[i].What == history.Killed {
			out[i].At = out[i].At.Add(time.Minute)
		}
	}
	return out
}

func TestVerdictCounts(t *testing.T) {
	t.Parallel()
	v := history.Judge(right(), rules)
	if v.Lives != 2 || v.Kills != 1 || v.Acked != 3 || v.Delivered != 3 || v.Again != 1 || v.Dead != 0 || v.Told {
		t.Errorf("%+v", v)
	}
}

func TestLinearFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	swap := func(n int, change func(*history.Line)) []history.Line {
		lines := right()
		change(&lines[n])
		return lines
	}
	for name, tc := range map[string]struct {
		lines []history.Line
		want  bool // wrong
	}{
		"nothing":                          {right(), false},
		"stored twice":                     {swap(17, func(l *history.Line) { l.Duplicate = false; l.Sequence = 12 }), false}, // the first may never have been stored
		"stored before itself":             {swap(5, func(l *history.Line) { l.Sequence = 9 }), true},
		"a duplicate of nothing":           {swap(1, func(l *history.Line) { l.Duplicate = true }), true},
		"a read that misses one":           {swap(7, func(l *history.Line) { l.Found = l.Found[:1] }), true},
		"a read out of order":              {swap(7, func(l *history.Line) { slices.Reverse(l.Found) }), true},
		"a read of what nobody has stored": {swap(7, func(l *history.Line) { l.Found = append(l.Found, "source.a.7") }), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong, decided, ops := history.Linear(tc.lines, time.Minute)
			if (len(wrong) > 0) != tc.want || decided != 1 || ops != 5 {
				t.Errorf("wrong %v, decided %d, %d operations", wrong, decided, ops)
			}
		})
	}
}

func TestWriterOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "history")
	if lines, err := history.Read(name); len(lines) > 0 || err != nil {
		t.Fatal(lines, err)
	}
	w, err := history.Append(name, 3)
	if err != nil {
		t.Fatal(err)
	}
	died := 0
	w.DieAfter(3, func() { died++ })
	for n := range 3 {
		w.Write(history.Line{What: history.Sent, Door: "d", Key: "k", N: n + 1})
	}
	if err := w.Close(); err != nil || died != 1 {
		t.Fatal(err, died)
	}
	lines, err := history.Read(name)
	if err != nil || len(lines) != 3 || lines[2].ID() != "d.k.3" || lines[2].Life != 3 || lines[2].At.IsZero() {
		t.Fatal(fmt.Sprintf("%+v", lines), err)
	}
}
