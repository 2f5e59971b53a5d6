//go:build !linux

package wasm

import "time"

// threadCPU is not known here. Time on the clock is the nearest upper bound.
func threadCPU() time.Duration { return time.Duration(time.Now().UnixNano()) } //nolint:forbidigo // a difference is all that counts
