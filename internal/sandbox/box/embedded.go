package box

import (
	"embed"
	"errors"
	"io/fs"
)

// Besides the small program, which cmd/casemate-box/build writes, the folder holds a
// README, so that everything compiles without it.
//
//go:embed all:dist
var dist embed.FS

// embedded gives the small program, or nil when this binary was built without it.
func embedded() ([]byte, error) {
	code, err := fs.ReadFile(dist, "dist/casemate-box")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return code, err
}
