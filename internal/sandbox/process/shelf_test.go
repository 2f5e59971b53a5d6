package process

import (
	"sync"

	"github.com/casemate-dev/casemate/internal/function"
)

// shelf keeps compiled code in memory, and counts what is put there: that is how often
// something was compiled.
type shelf struct {
	mu   sync.Mutex
	held map[function.Digest][]byte
	puts int
}

func (s *shelf) Get(key function.Digest) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.held[key]
	return b, ok
}

func (s *shelf) Put(key function.Digest, code []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[function.Digest][]byte{}
	}
	s.held[key] = code
	s.puts++
	return nil
}

func (s *shelf) Delete(key function.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, key)
}

func (s *shelf) compiled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts
}
