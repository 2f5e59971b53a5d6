package bus

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// sealer frames stored values: one byte of version, 32 bytes of HMAC-SHA256
// (RFC 2104) over the place and the value, the value.
type sealer struct {
	idle *sync.Pool // of *sealing: setting up a key costs as much as a short value
}

// sealing is one computation at a time.
type sealing struct {
	mac hash.Hash
	buf []byte
}

func newSealer(key []byte) sealer {
	return sealer{&sync.Pool{New: func() any { return &sealing{mac: hmac.New(sha256.New, key)} }}}
}

const (
	frameVersion = 1
	frameSize    = 1 + sha256.Size
)

func (s sealer) digest(place string, value []byte) []byte {
	c := s.idle.Get().(*sealing)
	defer s.idle.Put(c)
	c.mac.Reset()
	b := binary.BigEndian.AppendUint64(c.buf[:0], uint64(len(place))) // so that no byte can change sides between place and value
	c.buf = append(b, place...)
	c.mac.Write(c.buf)
	c.mac.Write(value)
	return c.mac.Sum(nil)
}

func (s sealer) frame(place string, value []byte) []byte {
	out := make([]byte, 1, frameSize+len(value))
	out[0] = frameVersion
	out = append(out, s.digest(place, value)...)
	return append(out, value...)
}

// open returns the value within framed, which it aliases, or false when it is
// not what frame made for this place.
func (s sealer) open(place string, framed []byte) ([]byte, bool) {
	if len(framed) < frameSize || framed[0] != frameVersion {
		return nil, false
	}
	value := framed[frameSize:]
	return value, hmac.Equal(framed[1:frameSize], s.digest(place, value))
}
