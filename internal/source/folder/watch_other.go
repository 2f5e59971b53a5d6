//go:build !linux

package folder

import (
	"context"
	"errors"

	"github.com/casemate-dev/casemate/internal/source"
)

// Run fails: only Linux can keep a watch inside its folder.
func (k *Kind) Run(context.Context, source.Binding) error {
	return errors.New("watching a folder: it is done on Linux alone")
}
