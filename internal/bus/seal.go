package bus

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// sealer frames stored values: one byte of version, 32 bytes of HMAC-SHA256
// (RFC 2104) over the place and the value, the value.
type sealer struct{ key []byte }

const (
	frameVersion = 1
	frameSize    = 1 + sha256.Size
)

func (s sealer) digest(place string, value []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(place)))
	h.Write(n[:]) // so that no byte can change sides between place and value
	h.Write([]byte(place))
	h.Write(value)
	return h.Sum(nil)
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
