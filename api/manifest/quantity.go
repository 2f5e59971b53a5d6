package manifest

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The forms, which the schema repeats as patterns.
const (
	sizeForm     = `^[0-9]{1,12}(Ki|Mi|Gi)?$`
	durationForm = `^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$`
)

var (
	sizePattern     = regexp.MustCompile(sizeForm)
	durationPattern = regexp.MustCompile(durationForm)
)

// Errors of the two parsers; what to write instead depends on the place.
var (
	errSize     = errors.New("not a size")
	errDuration = errors.New("not a duration")
)

// ParseSize reads a size in bytes. A number too large to hold gives the largest
// one, so that bounds can be told from bad form.
func ParseSize(s string) (int64, error) {
	if !sizePattern.MatchString(s) {
		return 0, errSize
	}
	shift := 0
	switch {
	case strings.HasSuffix(s, "Ki"):
		shift = 10
	case strings.HasSuffix(s, "Mi"):
		shift = 20
	case strings.HasSuffix(s, "Gi"):
		shift = 30
	}
	n, err := strconv.ParseInt(strings.TrimRight(s, "KMGi"), 10, 64)
	if err != nil {
		return 0, errSize
	}
	if n > math.MaxInt64>>shift {
		return math.MaxInt64, nil
	}
	return n << shift, nil
}

// FormatSize writes n in the largest unit that needs no fraction.
func FormatSize(n int64) string {
	switch {
	case n == 0:
		return "0"
	case n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + "Gi"
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "Mi"
	case n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "Ki"
	default:
		return strconv.FormatInt(n, 10)
	}
}

// ParseDuration reads a duration of whole milliseconds. One too long to hold
// gives the longest.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" || !durationPattern.MatchString(s) {
		return 0, errDuration
	}
	var total time.Duration
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		n, err := strconv.ParseInt(s[:i], 10, 64)
		if err != nil {
			return 0, errDuration
		}
		var unit time.Duration
		switch s = s[i:]; {
		case strings.HasPrefix(s, "ms"):
			unit, s = time.Millisecond, s[2:]
		case s[0] == 'h':
			unit, s = time.Hour, s[1:]
		case s[0] == 'm':
			unit, s = time.Minute, s[1:]
		default:
			unit, s = time.Second, s[1:]
		}
		if time.Duration(n) > (math.MaxInt64-total)/unit {
			return math.MaxInt64, nil
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}

// FormatDuration writes d, cut to milliseconds, as ParseDuration reads it.
func FormatDuration(d time.Duration) string {
	d = d.Truncate(time.Millisecond)
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.d; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			d -= n * u.d
		}
	}
	return b.String()
}

// sizeRemedy guesses what was meant by a size in a wrong form: 128MB, 1.5G, 128 mb.
func sizeRemedy(text, example string) string {
	t := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), " ", ""))
	digits := strings.TrimRight(t, "kmgib")
	unit := strings.TrimPrefix(t, digits)
	if _, err := strconv.ParseUint(digits, 10, 32); err == nil && unit != "" {
		if i := strings.IndexByte("kmg", unit[0]); i >= 0 {
			return "write " + digits + []string{"Ki", "Mi", "Gi"}[i] + " (units are Ki, Mi and Gi)"
		}
	}
	return "write a whole number and Ki, Mi or Gi, as in " + example
}

// durationRemedy guesses what was meant by a duration in a wrong form: 10, 10 sec, 1.5s.
func durationRemedy(text, example string) string {
	t := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), " ", ""))
	if d, err := time.ParseDuration(t); err == nil && d >= time.Millisecond && d == d.Truncate(time.Millisecond) {
		return "write " + FormatDuration(d)
	}
	digits := strings.TrimRight(t, "abcdefghijklmnopqrstuvwxyz")
	if _, err := strconv.ParseUint(digits, 10, 32); err == nil {
		for _, u := range []struct{ prefix, unit string }{{"ms", "ms"}, {"mil", "ms"}, {"h", "h"}, {"m", "m"}, {"s", "s"}, {"", "s"}} {
			if unit := strings.TrimPrefix(t, digits); strings.HasPrefix(unit, u.prefix) && (u.prefix != "" || unit == "") {
				return "write " + digits + u.unit
			}
		}
	}
	return "write whole numbers with h, m, s or ms, as in " + example
}
