//go:build !linux

package wasm

import (
	"errors"
	"os"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/native"
)

// mapPlaced is for Linux.
func mapPlaced(*os.File, int64, int64) (placed, error) {
	return placed{}, errors.New("code was placed, and here it comes by the connection")
}

func (placed) unmap() {}

func (placed) placer([]byte) native.Place { return nil }
