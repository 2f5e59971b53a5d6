// Package durable writes small files so that they are there whole or not at all,
// whenever the machine stops.
//
// It is a leaf: it imports the standard library alone and anybody may import it.
// Two writers of one file must not run at the same time.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile puts content in the file's place with mode 0600. It returns when file
// and folder are on disk. A temporary file that an earlier attempt left behind is
// replaced, never followed.
func WriteFile(file string, content []byte) error {
	dir := filepath.Dir(file)
	tmp := filepath.Join(dir, "."+filepath.Base(file)+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
