package codestore

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/durable"
	"github.com/casemate-dev/casemate/internal/function"
)

// DefaultMaxBytes bounds what the files hold together, when nobody says.
const DefaultMaxBytes = 4 << 30

// KeySize is the length of the sealing key, in bytes.
const KeySize = 32

// Config says where and how. Dir, Key, Clock and Logger are required.
type Config struct {
	Dir      string // created with mode 0700 when absent
	Key      []byte // KeySize bytes that nobody but this node has
	MaxBytes int64  // DefaultMaxBytes when 0
	Clock    func() time.Time
	Logger   *slog.Logger
}

// Store is a directory of sealed code.
type Store struct {
	dir    string
	key    []byte
	max    int64
	clock  func() time.Time
	logger *slog.Logger

	writing sync.Mutex // taken before mu, around whatever changes files

	mu      sync.Mutex
	files   map[string]file // by name
	total   int64
	refused int64
}

// file is what is known of a file.
type file struct {
	size int64
	used time.Time
}

// Open takes the directory and clears away what a crash left behind in it.
func Open(c Config) (*Store, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	switch {
	case c.Dir == "":
		return nil, errors.New("opening the code store: Config.Dir is missing; give a directory")
	case len(c.Key) != KeySize:
		return nil, fmt.Errorf("opening the code store: Config.Key has %d bytes; give %d", len(c.Key), KeySize)
	case c.MaxBytes < 0:
		return nil, errors.New("opening the code store: Config.MaxBytes is negative; give 0 for the default")
	case c.Clock == nil || c.Logger == nil:
		return nil, errors.New("opening the code store: Config.Clock or Config.Logger is missing; give the node's")
	}
	s := &Store{
		dir: c.Dir, key: slices.Clone(c.Key), max: c.MaxBytes, clock: c.Clock, logger: c.Logger, files: map[string]file{},
	}
	if err := s.openDir(); err != nil {
		return nil, fmt.Errorf("opening the code store: %v", err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.makeRoom(0)
	return s, nil
}

func (s *Store) openDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(s.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory; remove it", s.dir)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("others than its owner can reach %s (mode %04o): run `chmod 700 %s`", s.dir, perm, s.dir)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".new") {
			// A write that a crash cut short.
			if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
				return err
			}
			continue
		}
		if !isName(name) {
			continue // not ours: it is neither read nor removed
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.files[name] = file{size: info.Size(), used: info.ModTime()}
		s.total += info.Size()
	}
	return nil
}

// nameOf gives the file's name for a key: its digits.
func nameOf(key function.Digest) (string, bool) {
	name, ok := strings.CutPrefix(string(key), "sha256:")
	return name, ok && isName(name)
}

func isName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == sha256.Size && name == strings.ToLower(name)
}

// Get gives the code that was put under the key, and whether there is any that may
// be executed. The slice is the caller's.
func (s *Store) Get(key function.Digest) (code []byte, ok bool) {
	ok, err := s.Fetch(key, func(size int64) (io.WriterAt, error) {
		code = make([]byte, size)
		return heap(code), nil
	})
	if !ok || err != nil {
		return nil, false
	}
	return code, true
}

// heap is memory to write to.
type heap []byte

// WriteAt implements io.WriterAt.
func (h heap) WriteAt(p []byte, at int64) (int, error) { return copy(h[at:], p), nil }

// Fetch writes the code that was put under the key to where room says, once room was
// told its size in bytes. What was written is that code, whole, when found is true and
// err nil; otherwise it may be anything and must not be used. Pieces are written from
// several goroutines at once, each of which has been checked. err is what room or the
// writing failed with.
func (s *Store) Fetch(key function.Digest, room func(size int64) (io.WriterAt, error)) (found bool, err error) {
	name, ok := nameOf(key)
	if !ok {
		return false, nil
	}
	path := filepath.Join(s.dir, name)
	var elsewhere *writeError
	err = s.open(path, name, room)
	switch {
	case err == nil:
		s.touch(path, name)
		return true, nil
	case errors.As(err, &elsewhere):
		return true, elsewhere.cause
	case errors.Is(err, os.ErrNotExist):
	case errors.Is(err, errSeal):
		s.refuse(path, name, err)
	default:
		s.logger.Warn("compiled code cannot be read; it is made anew", slog.String("file", path), slog.Any("error", err))
	}
	return false, nil
}

// errSeal means that a file is not what Put wrote.
var errSeal = errors.New("the seal does not hold")

// open reads a file piece by piece, and checks each in memory before it hands it on:
// nothing that changes on disk later can change it.
func (s *Store) open(path, name string, room func(int64) (io.WriterAt, error)) error {
	// Without O_NONBLOCK a pipe put in place of the file would hold us up for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("it is a symbolic link: %w", errSeal)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is not a regular file: %w", errSeal)
	}
	if info.Size() > s.max {
		return fmt.Errorf("it has %d bytes: %w", info.Size(), errSeal)
	}
	return s.unseal(f, info.Size(), name, room)
}

func (s *Store) touch(path, name string) {
	now := s.clock()
	s.mu.Lock()
	f, ok := s.files[name]
	if ok {
		f.used = now
		s.files[name] = f
	}
	s.mu.Unlock()
	// For the order after a restart. When it does not work, the order is another.
	_ = os.Chtimes(path, now, now)
}

// refuse removes a file that somebody else wrote, and says so.
func (s *Store) refuse(path, name string, why error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.open(path, name, nowhere); err == nil || errors.Is(err, os.ErrNotExist) {
		return // somebody was here before: it was removed, and perhaps made anew
	}
	s.mu.Lock()
	s.refused++
	s.mu.Unlock()
	err := s.remove(name)
	s.logger.Error("compiled code was changed on disk; it is not used and made anew",
		slog.String("file", path), slog.Any("reason", why), slog.Bool("removed", err == nil))
}

// remove takes a file away, whatever it is. The mutex writing is held.
func (s *Store) remove(name string) error {
	err := os.RemoveAll(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.total -= s.files[name].size
	delete(s.files, name)
	s.mu.Unlock()
	return nil
}

// Put keeps code under a key. It takes the place of what was there. An error means
// that nothing is kept, and nothing worse.
func (s *Store) Put(key function.Digest, code []byte) error {
	name, ok := nameOf(key)
	if !ok {
		return fmt.Errorf("keeping compiled code: %.80q is not a key", key)
	}
	size := sealedSize(int64(len(code)))
	if size > s.max {
		return fmt.Errorf("keeping compiled code: %d bytes exceed the %d that the store may have", size, s.max)
	}
	b, err := s.sealed(name, code)
	if err != nil {
		return fmt.Errorf("keeping compiled code: %v", err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	err = s.remove(name)
	if err == nil {
		s.makeRoom(size)
		err = durable.WriteFile(filepath.Join(s.dir, name), b)
	}
	if err != nil {
		return fmt.Errorf("keeping compiled code: %v", err)
	}
	s.mu.Lock()
	s.files[name] = file{size: size, used: s.clock()}
	s.total += size
	s.mu.Unlock()
	return nil
}

// makeRoom removes files until so many more bytes have room. The mutex writing is
// held.
func (s *Store) makeRoom(more int64) {
	s.mu.Lock()
	over := s.total + more - s.max
	type entry struct {
		name string
		file
	}
	var all []entry
	if over > 0 {
		for name, f := range s.files {
			all = append(all, entry{name, f})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name))
	})
	for _, e := range all {
		if over <= 0 {
			return
		}
		if err := s.remove(e.name); err != nil {
			s.logger.Warn("making room for compiled code", slog.String("file", e.name), slog.Any("error", err))
			continue
		}
		over -= e.size
	}
}

// Delete forgets the code under a key.
func (s *Store) Delete(key function.Digest) {
	name, ok := nameOf(key)
	if !ok {
		return
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.remove(name); err != nil {
		s.logger.Warn("removing compiled code", slog.String("file", name), slog.Any("error", err))
	}
}

// Warnings says, for an operator, what was wrong since the store was opened.
func (s *Store) Warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == 0 {
		return nil
	}
	return []string{fmt.Sprintf(
		"compiled code in %s had been changed by somebody else (files: %d) and was removed; find out who can write there",
		s.dir, s.refused)}
}
