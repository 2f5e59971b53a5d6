package audit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A journal is a run of segment files, numbered upward. A segment is a header
// and frames (integers big-endian):
//
//	header  8 magic · 8 number of the segment · 8 records in the segment before ·
//	        16 salt · 16 HMAC-SHA256 of these under the segment's key, cut
//	frame   4 length of the sealed part · 4 CRC-32C over position and length ·
//	        sealed part (AES-256-GCM): 1 kind · body
//
// The segment's key is HKDF-SHA256 over the journal's key and the salt, so a
// nonce that is no more than the frame's position never meets a key twice. The
// frame's number and position are authenticated with it. The CRC tells a changed
// length from a frame cut short.
const (
	segmentMagic = "CMJRNL1\n"
	headerSize   = 8 + 8 + 8 + 16 + 16
	saltSize     = 16
	frameHead    = 8
	tagSize      = 16
	maxBody      = 1 << 20 // far above a receipt; a length above it is damage
	segmentLabel = "casemate/1 journal segment"
	headerLabel  = "casemate/1 journal header"
)

// Kinds of frames.
const (
	kindReceipt = 'r' // body: the receipt as JSON
	kindAck     = 'a' // body: 8 segment, 8 frames of it: all before are in the stream
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CorruptError says where a journal is damaged.
type CorruptError struct {
	File   string
	Offset int64
	What   string
}

// Error names file, offset and damage.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal %s is damaged at byte %d: %s", e.File, e.Offset, e.What)
}

// position of a frame: its segment, and its index in it from 0.
type position struct{ segment, index uint64 }

func (p position) before(q position) bool {
	return p.segment < q.segment || p.segment == q.segment && p.index < q.index
}

// codec seals and opens the frames of one segment, for one goroutine at a time.
type codec struct {
	number uint64
	header [headerSize]byte
	aead   cipher.AEAD

	// Of the frame at hand; here, since on a stack they would be an allocation each.
	nonce [12]byte
	aad   [20]byte
}

func newCodec(key []byte, number, before uint64, salt []byte) (*codec, error) {
	c := &codec{number: number}
	h := append(c.header[:0], segmentMagic...)
	h = binary.BigEndian.AppendUint64(h, number)
	h = binary.BigEndian.AppendUint64(h, before)
	h = append(h, salt...)
	macKey, err := hkdf.Key(sha256.New, key, salt, headerLabel, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key of the journal: %v", err)
	}
	mac := hmac.New(sha256.New, macKey)
	mac.Write(h)
	copy(c.header[len(h):], mac.Sum(nil))
	sealKey, err := hkdf.Key(sha256.New, key, salt, segmentLabel, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key of the journal: %v", err)
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, fmt.Errorf("preparing the journal's cipher: %v", err)
	}
	if c.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("preparing the journal's cipher: %v", err)
	}
	return c, nil
}

var errHeader = errors.New("the header does not fit its digest, or the journal was written under another key")

// openCodec reads the header that file begins with.
func openCodec(key []byte, header []byte) (c *codec, before uint64, err error) {
	if len(header) < headerSize || string(header[:8]) != segmentMagic {
		return nil, 0, errHeader
	}
	number, before := binary.BigEndian.Uint64(header[8:]), binary.BigEndian.Uint64(header[16:])
	c, err = newCodec(key, number, before, header[24:24+saltSize])
	if err != nil {
		return nil, 0, err
	}
	if !hmac.Equal(c.header[:], header[:headerSize]) {
		return nil, 0, errHeader
	}
	return c, before, nil
}

// frame sets nonce and aad for the frame at index, and gives the checksum of its head.
func (c *codec) frame(index uint64, length uint32) uint32 {
	binary.BigEndian.PutUint64(c.nonce[4:], index)
	binary.BigEndian.PutUint64(c.aad[:], c.number)
	binary.BigEndian.PutUint64(c.aad[8:], index)
	binary.BigEndian.PutUint32(c.aad[16:], length)
	return crc32.Checksum(c.aad[:], castagnoli)
}

// appendFrame adds the frame at index to buf.
func (c *codec) appendFrame(buf []byte, index uint64, kind byte, body []byte) []byte {
	length := uint32(1 + len(body) + tagSize)
	buf = binary.BigEndian.AppendUint32(buf, length)
	buf = binary.BigEndian.AppendUint32(buf, c.frame(index, length))
	at := len(buf)
	buf = append(buf, kind)
	buf = append(buf, body...)
	return c.aead.Seal(buf[:at], c.nonce[:], buf[at:], c.aad[:])
}

// frame is one decoded frame.
type frame struct {
	index uint64
	kind  byte
	body  []byte
}

// scan decodes the frames after the header. It calls damage for each place that
// does not fit and goes on behind it when the next frame can be found. It returns
// the number of frames passed and the length of the part that is complete;
// beyond that lies a frame cut short, if anything.
func (c *codec) scan(data []byte, each func(frame), damage func(offset int, what string)) (frames uint64, whole int) {
	at := headerSize
	for index := uint64(0); ; index++ {
		rest := data[at:]
		if len(rest) < frameHead || allZero(rest) {
			return index, at // a crash of the machine can leave zeros where the last write would be
		}
		length := binary.BigEndian.Uint32(rest)
		if binary.BigEndian.Uint32(rest[4:]) != c.frame(index, length) || length < 1+tagSize || length > maxBody {
			damage(at, "the length of a record was changed, or a record is missing or out of place; what follows cannot be read")
			return index, at
		}
		if len(rest) < frameHead+int(length) {
			return index, at
		}
		plain, err := c.aead.Open(nil, c.nonce[:], rest[frameHead:frameHead+int(length)], c.aad[:])
		if err != nil {
			damage(at, "a record was changed and is lost")
		} else {
			each(frame{index, plain[0], plain[1:]})
		}
		at += frameHead + int(length)
	}
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
