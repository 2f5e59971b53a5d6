//go:build !linux

package bundle

import "os"

// Unpack fails with ErrUnsupported.
func Unpack(archive []byte, _ *os.File, l Limits) (Summary, error) {
	if _, err := Open(archive, l); err != nil {
		return Summary{}, err
	}
	return Summary{}, ErrUnsupported
}

// Unpack fails with ErrUnsupported.
func (a *Archive) Unpack(*os.File) error { return ErrUnsupported }
