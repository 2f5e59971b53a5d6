package bus

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The server does not survive some damaged files: it panics on the state of a consumer or
// the key of a stream that was cut short, drops a block whose key it cannot read, and where that block was
// empty fails each write for ever. So before it starts, whatever it would have to decrypt
// whole is decrypted here. What cannot be is set aside, for people to look at.
//
// This knows the server's files as of version 2.15: a *.key file holds a random key,
// sealed by AES-256-GCM under the HMAC of its place; that key seals the other files.

// quarantine is the folder in Config.Dir for what was set aside.
const quarantine = "quarantine"

// Files of a consumer.
const (
	fileConfig   = "meta.inf"
	fileChecksum = "meta.sum"
	fileKey      = "meta.key"
	fileState    = "o.dat"
)

// inspector looks at the files below Config.Dir while no server runs.
type inspector struct {
	bus   *Bus
	key   string // that of the server's configuration
	root  fs.FS
	aside string // folder for what is damaged, relative to Config.Dir
}

// inspect sets aside what the server could not read, and notes which consumers have lost
// their place.
func (b *Bus) inspect(key string) error {
	i := &inspector{
		bus: b, key: key, root: os.DirFS(b.cfg.Dir),
		aside: path.Join(quarantine, b.cfg.Clock().UTC().Format("20060102T150405.000000000Z")),
	}
	if err := i.streams(); err != nil {
		return fmt.Errorf("looking through the files of the bus: %v", err)
	}
	if err := i.blocks(); err != nil {
		return fmt.Errorf("looking through the files of the bus: %v", err)
	}
	if err := i.consumers(); err != nil {
		return fmt.Errorf("looking through the files of the bus: %v", err)
	}
	return nil
}

// streams looks at what is kept of each stream beside its messages. That is made anew when
// the stream is opened, and the messages stay.
func (i *inspector) streams() error {
	dirs, err := fs.Glob(i.root, "jetstream/*/streams/*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		p := strings.Split(dir, "/")
		account, stream := p[1], p[3]
		sealed, err := fs.ReadFile(i.root, path.Join(dir, fileKey))
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(stream, ".") { // just being made, or deleted
			continue
		}
		if err != nil {
			return err
		}
		bad := []string{fileConfig, fileChecksum}
		key := i.open(account, stream, sealed)
		if key == nil {
			bad = append(bad, fileKey)
		} else {
			config, err := fs.ReadFile(i.root, path.Join(dir, fileConfig))
			if errors.Is(err, fs.ErrNotExist) || err == nil && opens(key, config) {
				continue
			}
			if err != nil {
				return err
			}
		}
		for _, f := range bad {
			if err := i.setAside(path.Join(dir, f)); err != nil {
				return err
			}
		}
		_ = i.bus.damage("the configuration of "+stream, fmt.Sprintf("%s: its configuration or the key to it is damaged; it is set aside in %s and made anew", stream, i.aside))
	}
	return nil
}

// blocks looks at the keys of blocks of messages.
func (i *inspector) blocks() error {
	keys, err := fs.Glob(i.root, "jetstream/*/streams/*/msgs/*.key")
	if err != nil {
		return err
	}
	for _, file := range keys {
		p := strings.Split(file, "/")
		account, stream, name := p[1], p[3], strings.TrimSuffix(p[5], ".key")
		index, err := strconv.ParseUint(name, 10, 32)
		if err != nil || strings.HasPrefix(stream, ".") { // no block, or one that is being deleted
			continue
		}
		sealed, err := fs.ReadFile(i.root, file)
		if err != nil {
			return err
		}
		if i.open(account, fmt.Sprintf("%s:%d", stream, index), sealed) != nil {
			continue
		}
		for _, f := range []string{file, path.Join(path.Dir(file), name+".blk")} {
			if err := i.setAside(f); err != nil {
				return err
			}
		}
		_ = i.bus.damage(fmt.Sprintf("the key of block %d of %s", index, stream),
			fmt.Sprintf("%s: the key of block %d is damaged; what was stored in that block is lost, and set aside in %s", stream, index, i.aside))
	}
	return nil
}

// consumers looks at what is kept of each consumer of Events. No other stream has any
// that outlive the process.
func (i *inspector) consumers() error {
	dirs, err := fs.Glob(i.root, "jetstream/*/streams/EVENTS_*/obs/*")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, dir := range dirs {
		p := strings.Split(dir, "/")
		account, stream, name := p[1], p[3], p[5]
		noted, known := i.bus.marks[stream].Consumers[name]
		there[stream+"/"+name] = true
		bad, begun, err := i.consumer(account, stream, name, dir, noted.Filed)
		switch {
		case err != nil:
			return err
		case bad == "":
			continue
		case !begun && !known:
			// The node was killed while it made or dropped this one.
			if err := i.setAside(dir); err != nil {
				return err
			}
			i.bus.log.Info("what is left of a consumer was set aside", "stream", stream, "consumer", name, "folder", i.aside)
			continue
		}
		if err := i.setAside(dir); err != nil {
			return err
		}
		i.bus.lose(stream, name, bad+"; its files are set aside in "+i.aside, noted, known)
	}
	for stream, m := range i.bus.marks {
		for name, noted := range m.Consumers {
			if !there[stream+"/"+name] {
				i.bus.lose(stream, name, "its files are gone", noted, true)
			}
		}
	}
	return nil
}

// consumer says what is wrong with the files of one, if anything is. begun means that it
// was in use; else it may be one that was just being made or dropped.
func (i *inspector) consumer(account, stream, name, dir string, filed bool) (bad string, begun bool, err error) {
	files := map[string][]byte{}
	for _, f := range []string{fileConfig, fileChecksum, fileKey, fileState} {
		b, err := fs.ReadFile(i.root, path.Join(dir, f))
		if err == nil {
			files[f] = b
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", false, err
		}
	}
	has := func(f string) bool { _, ok := files[f]; return ok }
	if !has(fileKey) || !has(fileConfig) || !has(fileChecksum) {
		return "some of its files are missing", false, nil
	}
	key := i.open(account, stream+"."+name, files[fileKey])
	switch {
	case key == nil:
		return "its key is damaged", true, nil
	case !opens(key, files[fileConfig]):
		return "its configuration is damaged", true, nil
	case has(fileState) && !opens(key, files[fileState]):
		return "the file of what it has settled is damaged", true, nil
	case !has(fileState) && filed:
		return "the file of what it has settled is gone", true, nil
	}
	return "", true, nil
}

// open reads a sealed key, or returns nil.
func (i *inspector) open(account, place string, sealed []byte) cipher.AEAD {
	h := hmac.New(sha256.New, []byte(i.key))
	h.Write([]byte(account))
	h.Write([]byte(place))
	outer := gcm(h.Sum(nil))
	if outer == nil || len(sealed) < outer.NonceSize() {
		return nil
	}
	key, err := outer.Open(nil, sealed[:outer.NonceSize()], sealed[outer.NonceSize():], nil)
	if err != nil {
		return nil
	}
	return gcm(key)
}

// gcm is nil for a key of a wrong length.
func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil
	}
	c, err := cipher.NewGCMWithNonceSize(block, aes.BlockSize)
	if err != nil {
		return nil
	}
	return c
}

func opens(key cipher.AEAD, sealed []byte) bool {
	n := key.NonceSize()
	if len(sealed) < n {
		return false
	}
	_, err := key.Open(nil, sealed[:n], sealed[n:], nil)
	return err == nil
}

// setAside moves a file or folder into the quarantine, under its own path.
func (i *inspector) setAside(file string) error {
	from, to := filepath.Join(i.bus.cfg.Dir, filepath.FromSlash(file)), filepath.Join(i.bus.cfg.Dir, filepath.FromSlash(path.Join(i.aside, file)))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
