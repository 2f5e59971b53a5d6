//go:build !linux

package node

import "time"

// allowTimerSlack does nothing where there is no such thing.
func allowTimerSlack(time.Duration) error { return nil }
