//go:build !linux

package wasm

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
