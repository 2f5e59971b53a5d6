package schedule

import (
	"math/bits"
	"time"

	"github.com/netresearch/go-cron"
)

// The parser's bits for a field of which nothing is left out, and for one that is "*".
const (
	everyHour = 1<<24 - 1
	star      = 1 << 63
)

// nextCron walks through days, hours and minutes itself: the library's own walk fires
// twice in the hour that is there twice, and loses what falls into a gap of half an
// hour (Lord Howe Island).
func (p *Spec) nextCron(t time.Time) time.Time {
	t = t.In(p.zone)
	elapsed := p.cron.Hour&everyHour == everyHour
	year, month, day := t.Date()
	// A day too early, because midnight itself may be there twice.
	for i := -1; i < maxDays; i++ {
		date := time.Date(year, month, day+i, 0, 0, 0, 0, time.UTC) // as the wall has it
		if !dayMatches(p.cron, date) {
			continue
		}
		var tick time.Time
		if elapsed {
			tick = p.inDay(t, date)
		} else {
			tick = p.onWall(t, date)
		}
		if !tick.IsZero() {
			return tick.UTC()
		}
	}
	return time.Time{}
}

// dayMatches is the rule of crontab(5): with both fields given, either will do.
func dayMatches(s *cron.SpecSchedule, date time.Time) bool {
	if s.Month&(1<<uint(date.Month())) == 0 {
		return false
	}
	ofMonth := s.Dom&(1<<uint(date.Day())) != 0
	ofWeek := s.Dow&(1<<uint(date.Weekday())) != 0
	if s.Dom&star != 0 || s.Dow&star != 0 {
		return ofMonth && ofWeek
	}
	return ofMonth || ofWeek
}

// onWall gives the first moment after t at which a wall clock first shows, or has gone
// past, one of the day's times.
func (p *Spec) onWall(t, date time.Time) time.Time {
	for hours := p.cron.Hour & everyHour; hours != 0; hours &= hours - 1 {
		hour := time.Duration(bits.TrailingZeros64(hours)) * time.Hour
		// The hour's last moment tells whether it has to be looked at.
		if !instant(p.zone, date.Add(hour+59*time.Minute)).After(t) {
			continue
		}
		for minutes := p.cron.Minute & (1<<60 - 1); minutes != 0; minutes &= minutes - 1 {
			minute := time.Duration(bits.TrailingZeros64(minutes)) * time.Minute
			if tick := instant(p.zone, date.Add(hour+minute)); tick.After(t) {
				return tick
			}
		}
	}
	return time.Time{}
}

// inDay gives the first minute after t in a day, both of its doubled hours included,
// at which the wall clock shows one of the minutes.
func (p *Spec) inDay(t, date time.Time) time.Time {
	from, to := instant(p.zone, date), instant(p.zone, date.AddDate(0, 0, 1))
	m := from
	if t.After(from) || t.Equal(from) {
		m = t.Truncate(time.Minute).Add(time.Minute)
	}
	for ; m.Before(to); m = m.Add(time.Minute) {
		// A clock put back at midnight shows the day before once more.
		if wall := m.In(p.zone); p.cron.Minute&(1<<uint(wall.Minute())) != 0 && dayMatches(p.cron, wall) {
			return m
		}
	}
	return time.Time{}
}

// instant gives the first moment at which a wall clock in that zone shows what wall says
// (in UTC), or, when it never does because it was put forward over it, the moment at
// which it was.
func instant(zone *time.Location, wall time.Time) time.Time {
	offset := func(at time.Time) time.Duration {
		_, seconds := at.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	// No zone is further than a day from UTC, and none is changed twice in two days.
	before, after := offset(wall.Add(-24*time.Hour)), offset(wall.Add(24*time.Hour))
	early, late := wall.Add(-before), wall.Add(-after)
	switch {
	case offset(early) == before:
		return early // the first one, also of two
	case offset(late) == after:
		return late
	default:
		start, _ := early.In(zone).ZoneBounds()
		return start.UTC()
	}
}
