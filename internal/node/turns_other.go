//go:build !linux

package node

import "time"

// takeShortTurns does nothing where there is no such thing.
func takeShortTurns(time.Duration) error { return nil }
