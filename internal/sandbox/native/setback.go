package native

import "time"

// How starts of a version are put off whose instances keep dying.
const (
	// diesYoung is the age below which a death counts. Who lives longer costs little in
	// starts, however it ends.
	diesYoung = 2 * time.Second
	// mayDie is how many may die in a row before anything is put off: a bad input or two
	// should not keep the next caller waiting.
	mayDie = 3
	// firstRest is what comes then, twice as much for each further death, to mostRest.
	firstRest = 25 * time.Millisecond
	mostRest  = 400 * time.Millisecond
)

// setback counts the deaths in a row of a version's instances. Each start takes the
// processors for some milliseconds, in system calls that give way to nobody, so a
// function that dies at each call would take more from its neighbours than one that
// computes for ever.
type setback struct {
	deaths int
	until  time.Time // before then nothing starts
}

// died takes note of an instance that ended as it should not have, or never began.
func (s *setback) died(now time.Time, age time.Duration) {
	if age >= diesYoung {
		return
	}
	if s.deaths++; s.deaths > mayDie {
		s.until = now.Add(min(firstRest<<min(s.deaths-mayDie-1, 8), mostRest))
	}
}

// answered ends the row.
func (s *setback) answered() { *s = setback{} }

// rest gives how long a start has to wait still.
func (s *setback) rest(now time.Time) time.Duration { return max(s.until.Sub(now), 0) }
