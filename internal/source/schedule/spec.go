package schedule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	_ "time/tzdata" // zones also where the system has none, and the same ones everywhere

	"github.com/netresearch/go-cron"

	"github.com/casemate-dev/casemate/internal/source"
)

// Bounds and defaults.
const (
	MinEvery  = time.Second
	MaxEvery  = 366 * 24 * time.Hour
	Grace     = time.Minute    // a tick that is later was missed
	MaxMissed = 100            // missed ticks that fire afterwards
	MaxBack   = 24 * time.Hour // by which a clock may be put back without an alert
	maxDays   = 9 * 366        // how far ahead a tick is looked for: 29 February may be 8 years away
	maxCron   = 256            // bytes
)

// Missed says what becomes of missed ticks.
type Missed string

// The policies.
const (
	Skip Missed = "skip"
	Once Missed = "once"
	All  Missed = "all"
)

// settings as a manifest has them. One of cron, every and at is given.
type settings struct {
	Cron   string `json:"cron,omitempty"`
	Every  string `json:"every,omitempty"` // 30s, 15m, 1h30m
	At     string `json:"at,omitempty"`    // 2026-03-01T12:00:00Z, or without the Z and in Zone
	Zone   string `json:"zone,omitempty"`  // Europe/Berlin; UTC when not given
	Missed Missed `json:"missed,omitempty"`
}

// Spec is a schedule that was understood.
type Spec struct {
	zone   *time.Location
	missed Missed
	cron   *cron.SpecSchedule // or
	source string             // of cron
	every  time.Duration      // or
	at     time.Time
	text   string // the settings in one form, by which a change is noticed
}

var zoneForm = regexp.MustCompile(`^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$`)

// Parse reads a trigger's settings. It fails with a *source.FieldError.
func Parse(raw json.RawMessage) (*Spec, error) {
	var s settings
	if err := source.Settings(raw, &s); err != nil {
		return nil, err
	}
	given := 0
	for _, v := range []string{s.Cron, s.Every, s.At} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return nil, &source.FieldError{Field: "settings", Reason: "must have one of cron, every and at"}
	}
	p := &Spec{zone: time.UTC, missed: s.Missed}
	if err := p.readZone(s); err != nil {
		return nil, err
	}
	switch s.Missed {
	case Skip, Once, All:
	case "":
		p.missed = Skip
		if s.At != "" {
			p.missed = Once
		}
	default:
		return nil, &source.FieldError{Field: "missed", Reason: "must be skip, once or all"}
	}
	var err error
	switch {
	case s.Cron != "":
		err = p.readCron(s.Cron)
	case s.Every != "":
		p.every, err = time.ParseDuration(s.Every)
		if err != nil || p.every < MinEvery || p.every > MaxEvery || p.every%time.Second != 0 {
			return nil, &source.FieldError{Field: "every", Reason: fmt.Sprintf("must be whole seconds from %s to %s, such as 30s or 1h30m", MinEvery, MaxEvery)}
		}
	default:
		err = p.readAt(s.At)
	}
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, &source.FieldError{Field: "settings", Reason: "cannot be written down"}
	}
	p.text = string(text)
	return p, nil
}

func (p *Spec) readZone(s settings) error {
	if s.Zone == "" {
		return nil
	}
	if s.Every != "" {
		return &source.FieldError{Field: "zone", Reason: "has no meaning for an interval: leave it out"}
	}
	// Local would be another zone on each node. The form keeps file names out.
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || s.Zone == "Local" || !zoneForm.MatchString(s.Zone) {
		return &source.FieldError{Field: "zone", Reason: fmt.Sprintf("%.60q is not a time zone: use a name such as Europe/Berlin", s.Zone)}
	}
	p.zone = zone
	return nil
}

func (p *Spec) readCron(text string) error {
	refuse := func(reason string) error { return &source.FieldError{Field: "cron", Reason: reason} }
	switch {
	case len(text) > maxCron:
		return refuse(fmt.Sprintf("has %d bytes, more than %d", len(text), maxCron))
	case strings.HasPrefix(text, "@every"):
		return refuse("does not take @every: use the setting every")
	case strings.Contains(text, "TZ="):
		return refuse("does not take a time zone: use the setting zone")
	}
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return refuse("cannot be read: " + err.Error())
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return refuse(fmt.Sprintf("is not five fields of crontab or @hourly, @daily, @weekly, @monthly, @yearly: %.160s", err))
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return refuse("is of a kind that is not known here")
	}
	// A field such as "," has no value at all.
	if spec.Minute == 0 || spec.Hour == 0 || spec.Dom == 0 || spec.Month == 0 || spec.Dow == 0 {
		return refuse("has an empty field")
	}
	p.cron, p.source = spec, text
	// From a day after which come all days there are, 29 February too.
	if p.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return refuse("never comes: no month that it names has such a day")
	}
	return nil
}

func (p *Spec) readAt(text string) error {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		wall, wallErr := time.Parse("2006-01-02T15:04:05", text)
		if wallErr != nil {
			return &source.FieldError{Field: "at", Reason: "must be a time such as 2026-03-01T12:00:00Z, or without the Z and then in zone"}
		}
		at = instant(p.zone, wall)
	}
	if at.Nanosecond() != 0 || at.Year() < 1970 || at.Year() > 9998 {
		return &source.FieldError{Field: "at", Reason: "must be a whole second, from 1970 on"}
	}
	p.at = at.UTC()
	return nil
}

// Next gives the first tick after t, or the zero time when there is none.
func (p *Spec) Next(t time.Time) time.Time {
	switch {
	case p.every > 0:
		step := int64(p.every / time.Second)
		n := t.Unix()
		return time.Unix(n-mod(n, step)+step, 0).UTC()
	case p.cron != nil:
		return p.nextCron(t)
	case p.at.After(t):
		return p.at
	default:
		return time.Time{}
	}
}

// mod is the remainder that is never negative.
func mod(n, step int64) int64 { return ((n % step) + step) % step }

// latest gives the last ticks in (after, until], oldest first, at most n of them.
func (p *Spec) latest(after, until time.Time, n int) []time.Time {
	// Backwards by windows that double, so that years of absence cost little.
	for window := time.Duration(n) * time.Minute; ; window *= 2 {
		from := until.Add(-window)
		all := !from.After(after) || window > MaxEvery*16
		if all {
			from = after
		}
		var ticks []time.Time
		for t := p.Next(from); !t.IsZero() && !t.After(until); t = p.Next(t) {
			ticks = append(ticks, t)
			if len(ticks) > 2*n {
				ticks = append(ticks[:0], ticks[n:]...)
			}
		}
		if len(ticks) > n {
			ticks = ticks[len(ticks)-n:]
		}
		if all || len(ticks) == n {
			return ticks
		}
	}
}
