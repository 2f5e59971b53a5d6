package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseSpan reads a positive duration as time.ParseDuration does, and days: 90d.
func parseSpan(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	const most = 100 * 365 * day
	var d time.Duration
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.Atoi(n)
		if err != nil || days > int(most/day) {
			return 0, fmt.Errorf("%.40q is not a duration", s)
		}
		d = time.Duration(days) * day
	} else {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			return 0, fmt.Errorf("%.40q is not a duration", s)
		}
	}
	if d <= 0 || d > most {
		return 0, fmt.Errorf("%.40q is out of range", s)
	}
	return d, nil
}

// parseSince reads a time (RFC 3339) or how long before now.
func parseSince(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	d, err := parseSpan(s)
	if err != nil {
		return time.Time{}, err
	}
	return now.Add(-d), nil
}
