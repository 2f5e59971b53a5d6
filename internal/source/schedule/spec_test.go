package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

func parse(t testing.TB, raw string) *Spec {
	t.Helper()
	p, err := Parse(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return p
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What fires in the hours around a change of the clock, written with the offset that the
// wall clock has at that moment.
func TestDaylightSaving(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zone, cron, from string
		want             []string
	}{
		// Berlin, 2026-03-29: 02:00 +01:00 becomes 03:00 +02:00.
		{"Europe/Berlin", "30 2 * * *", "2026-03-28T00:00:00+01:00", []string{"2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"Europe/Berlin", "*/20 2 * * *", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00", "2026-03-30T02:20:00+02:00"}},
		{"Europe/Berlin", "0 2,3 * * *", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00", "2026-03-30T03:00:00+02:00"}},
		{"Europe/Berlin", "30 * * * *", "2026-03-29T00:00:00+01:00", []string{"2026-03-29T00:30:00+01:00", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-29T04:30:00+02:00"}},
		{"Europe/Berlin", "@daily", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		// Berlin, 2026-10-25: 03:00 +02:00 becomes 02:00 +01:00.
		{"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"Europe/Berlin", "30 2 * * *", "2026-10-25T02:45:00+02:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"Europe/Berlin", "30 2 * * *", "2026-10-25T02:15:00+01:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"Europe/Berlin", "0 3 * * *", "2026-10-25T02:30:00+02:00", []string{"2026-10-25T03:00:00+01:00"}},
		{"Europe/Berlin", "30 * * * *", "2026-10-25T01:00:00+02:00", []string{"2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"}},
		// New York, 2026-03-08: 02:00 -05:00 becomes 03:00 -04:00; 2026-11-01: 02:00 -04:00 becomes 01:00 -05:00.
		{"America/New_York", "15,45 2 * * *", "2026-03-07T12:00:00-05:00", []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:15:00-04:00", "2026-03-09T02:45:00-04:00"}},
		{"America/New_York", "0 9 * * 1-5", "2026-03-06T12:00:00-05:00", []string{"2026-03-09T09:00:00-04:00"}},
		{"America/New_York", "30 1 * * *", "2026-10-31T12:00:00-04:00", []string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"America/New_York", "*/30 * * * *", "2026-11-01T00:45:00-04:00", []string{"2026-11-01T01:00:00-04:00", "2026-11-01T01:30:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:30:00-05:00", "2026-11-01T02:00:00-05:00"}},
		// Lord Howe, 2026-10-04: 02:00 +10:30 becomes 02:30 +11:00; 2026-04-05: 02:00 +11:00 becomes 01:30 +10:30.
		{"Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"Australia/Lord_Howe", "45 2 * * *", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T02:45:00+11:00", "2026-10-05T02:45:00+11:00"}},
		{"Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00+11:00", []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		{"Australia/Lord_Howe", "15 1 * * *", "2026-04-04T12:00:00+11:00", []string{"2026-04-05T01:15:00+11:00", "2026-04-06T01:15:00+10:30"}},
		{"Australia/Lord_Howe", "*/15 * * * *", "2026-04-05T01:30:00+11:00", []string{"2026-04-05T01:45:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T01:45:00+10:30", "2026-04-05T02:00:00+10:30"}},
		// Midnight that is left out (Beirut, 2026-03-29) and one that is there twice (Havana, 2026-11-01).
		{"Asia/Beirut", "@daily", "2026-03-28T12:00:00+02:00", []string{"2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"}},
		{"America/Havana", "0 0 * * *", "2026-10-31T12:00:00-04:00", []string{"2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"}},
		// A whole day that is left out (Apia, 2011-12-30).
		{"Pacific/Apia", "0 12 * * *", "2011-12-28T13:00:00-10:00", []string{"2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
	} {
		p := parse(t, fmt.Sprintf(`{"cron":%q,"zone":%q}`, c.cron, c.zone))
		tick := at(t, c.from)
		for i, want := range c.want {
			if tick = p.Next(tick); !tick.Equal(at(t, want)) {
				t.Errorf("%s %q from %s, tick %d: got %s, want %s", c.zone, c.cron, c.from, i, tick.In(p.zone).Format(time.RFC3339), want)
				break
			}
		}
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ settings, from, want string }{
		{`{"cron":"0 0 29 2 *"}`, "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"}, // 2100 has none
		{`{"cron":"0 0 13 * 5"}`, "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z"}, // either day field
		{`{"cron":"0 0 * * 7"}`, "2026-03-02T00:00:00Z", "2026-03-08T00:00:00Z"},
		{`{"cron":"0 22-2/2 * * *"}`, "2026-03-01T23:00:00Z", "2026-03-02T00:00:00Z"},
		{`{"cron":"@yearly"}`, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{`{"cron":"@hourly"}`, "2026-01-01T00:00:00.5Z", "2026-01-01T01:00:00Z"},
		{`{"every":"7m"}`, "2026-03-01T00:00:00Z", "2026-03-01T00:06:00Z"},
		{`{"every":"1s"}`, "1969-12-31T23:59:57.5Z", "1969-12-31T23:59:58Z"},
		{`{"at":"2026-03-01T00:00:00Z"}`, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{`{"at":"2026-03-01T00:00:00Z"}`, "2026-03-01T00:00:00Z", ""},
		{`{"at":"2026-03-29T02:30:00","zone":"Europe/Berlin"}`, "2026-02-01T00:00:00Z", "2026-03-29T01:00:00Z"},
		{`{"at":"2026-10-25T02:30:00","zone":"Europe/Berlin"}`, "2026-02-01T00:00:00Z", "2026-10-25T00:30:00Z"},
	} {
		got := parse(t, c.settings).Next(at(t, c.from))
		if c.want == "" && got.IsZero() {
			continue
		}
		if c.want == "" || !got.Equal(at(t, c.want)) {
			t.Errorf("%s after %s: got %s, want %s", c.settings, c.from, got, c.want)
		}
	}
}

func TestCheckNamesTheField(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{
		``:                                                  "settings must have one",
		`{}`:                                                "settings must have one",
		`{"cron":"* * * * *","every":"1m"}`:                 "settings must have one",
		`{"cron":"* * * * *","tz":"UTC"}`:                   "tz is not a setting",
		`{"cron":7}`:                                        "cron must be a string",
		`{"cron":"* * * *"}`:                                "cron is not five fields",
		`{"cron":"0 * * * * *"}`:                            "cron is not five fields",
		`{"cron":"60 * * * *"}`:                             "cron is not five fields",
		`{"cron":"* * 0 * *"}`:                              "cron is not five fields",
		`{"cron":"*/0 * * * *"}`:                            "cron is not five fields",
		`{"cron":"H * * * *"}`:                              "cron is not five fields",
		`{"cron":"* * L * *"}`:                              "cron is not five fields",
		`{"cron":", * * * *"}`:                              "cron",
		`{"cron":"@reboot"}`:                                "cron is not five fields",
		`{"cron":"@every 5m"}`:                              "cron does not take @every",
		`{"cron":"TZ=UTC * * * * *"}`:                       "cron does not take a time zone",
		`{"cron":"0 0 30 2 *"}`:                             "cron never comes",
		`{"cron":"0 0 31 4,6,9,11 *"}`:                      "cron never comes",
		`{"cron":"` + strings.Repeat("*", 257) + `"}`:       "cron has 257 bytes",
		`{"cron":"* * * * *","zone":"Berlin"}`:              "zone",
		`{"cron":"* * * * *","zone":"Local"}`:               "zone",
		`{"cron":"* * * * *","zone":"../../etc/localtime"}`: "zone",
		`{"cron":"* * * * *","zone":"/etc/localtime"}`:      "zone",
		`{"every":"1m","zone":"Europe/Berlin"}`:             "zone has no meaning",
		`{"every":"500ms"}`:                                 "every must be whole seconds",
		`{"every":"1500ms"}`:                                "every must be whole seconds",
		`{"every":"9000h"}`:                                 "every must be whole seconds",
		`{"every":"-5m"}`:                                   "every must be whole seconds",
		`{"at":"tomorrow"}`:                                 "at must be a time",
		`{"at":"2026-03-01T00:00:00.5Z"}`:                   "at must be a whole second",
		`{"at":"1960-03-01T00:00:00Z"}`:                     "at must be a whole second, from 1970",
		`{"every":"1m","missed":"some"}`:                    "missed must be",
	} {
		err := Kind{}.Check(&function.Trigger{Name: "x", Settings: json.RawMessage(settings)})
		var field *source.FieldError
		if !errors.As(err, &field) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", settings, err, want)
		}
	}
	if err := (Kind{}).Check(&function.Trigger{Connection: "c", Settings: json.RawMessage(`{"every":"1m"}`)}); err == nil {
		t.Error("a connection was taken")
	}
}

func TestLatest(t *testing.T) {
	t.Parallel()
	from, until := at(t, "2016-01-01T00:00:00Z"), at(t, "2026-01-01T00:00:30Z")
	for settings, want := range map[string]struct {
		n           int
		first, last string
	}{
		`{"every":"1s"}`:                {100, "2025-12-31T23:58:51Z", "2026-01-01T00:00:30Z"},
		`{"cron":"* * * * *"}`:          {100, "2025-12-31T22:21:00Z", "2026-01-01T00:00:00Z"},
		`{"cron":"0 0 1 1 *"}`:          {10, "2017-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
		`{"cron":"0 0 29 2 *"}`:         {3, "2016-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		`{"cron":"* 0 1 1 *"}`:          {100, "2024-01-01T00:21:00Z", "2026-01-01T00:00:00Z"},
		`{"at":"2020-01-01T00:00:00Z"}`: {1, "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"},
	} {
		got := parse(t, settings).latest(from, until, MaxMissed)
		if len(got) != want.n || !got[0].Equal(at(t, want.first)) || !got[len(got)-1].Equal(at(t, want.last)) {
			t.Errorf("%s: got %d from %v to %v", settings, len(got), got[0], got[len(got)-1])
		}
	}
	if got := parse(t, `{"every":"1h"}`).latest(until, until.Add(time.Minute), MaxMissed); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func FuzzCron(f *testing.F) {
	for _, s := range []string{"*/5 * * * *", "0 0 29 2 *", "@weekly", "15,45 1-3/2 * JAN-MAR MON", "0 22-2 31 * 7", ", * * * *", "? ? ? ? ?"} {
		f.Add(s, int64(1774749600), uint8(0))
		f.Add(s, int64(1792886400), uint8(2))
	}
	zones := []string{"UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "Asia/Beirut", "Asia/Kathmandu"}
	f.Fuzz(func(t *testing.T, expression string, unix int64, zone uint8) {
		raw, err := json.Marshal(settings{Cron: expression, Zone: zones[int(zone)%len(zones)]})
		if err != nil {
			return
		}
		p, err := Parse(raw)
		var field *source.FieldError
		if err != nil {
			if !errors.As(err, &field) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		from := time.Unix(mod(unix, 4e9), 0)
		previous := from
		for range 3 {
			tick := p.Next(previous)
			if !tick.After(previous) {
				t.Fatalf("%q after %s: %s", expression, previous, tick)
			}
			wall := tick.In(p.zone)
			start, _ := wall.ZoneBounds()
			if shown := p.cron.Minute&(1<<uint(wall.Minute())) != 0; !shown && !start.Equal(tick) {
				t.Fatalf("%q: %s is no minute of it", expression, wall)
			}
			if shown := p.cron.Hour&(1<<uint(wall.Hour())) != 0; !shown && !start.Equal(tick) {
				t.Fatalf("%q: %s is no hour of it", expression, wall)
			}
			// Nothing between: asked from just before, it says the same.
			if again := p.Next(tick.Add(-time.Second)); !again.Equal(tick) {
				t.Fatalf("%q: %s, and from just before it %s", expression, tick, again)
			}
			previous = tick
		}
	})
}

func BenchmarkNext(b *testing.B) {
	p := parse(b, `{"cron":"30 2 * * 1","zone":"Europe/Berlin"}`)
	from := at(b, "2026-03-01T00:00:00Z")
	for b.Loop() {
		p.Next(from)
	}
}
