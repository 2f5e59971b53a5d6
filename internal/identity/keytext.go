package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/crc32"
	"strings"
)

// The text form of a key is
//
//	cm_<id>_<secret><checksum>
//
// with an id of 16 characters of lower-case base32 (80 bits), a secret of 43
// characters of unpadded base64url (256 bits), and 8 hex digits of the CRC-32 of
// all that stands before them. The checksum is no defence: it lets scanners tell
// a leaked key from chance, and a slip of copying be refused without a lookup.
// A key has exactly one text form.
const (
	keyPrefix     = "cm_"
	idLength      = 16
	secretBytes   = 32
	secretLength  = 43
	checksumBytes = 4
	secretStart   = len(keyPrefix) + idLength + 1
	checksumStart = secretStart + secretLength
	keyLength     = checksumStart + 2*checksumBytes
	idAlphabet    = "abcdefghijklmnopqrstuvwxyz234567"

	// fingerprintOf stands before what is digested, so that the digest is of no
	// use for anything else. With it all fits one block of SHA-256.
	fingerprintOf = "cm/key1"
)

// keyEncoding refuses stray bits in the last character: one secret, one text.
var keyEncoding = base64.RawURLEncoding.Strict()

var errForm = errors.New("not in the form of a key")

// parseKey reads the text form and digests the secret. The id is part of what is
// digested, so a secret stands for the key it was made with and no other one.
func parseKey(text string) (id string, f fingerprint, err error) {
	if len(text) != keyLength || text[:len(keyPrefix)] != keyPrefix || text[secretStart-1] != '_' {
		return "", f, errForm
	}
	if sum := checksum(text[:checksumStart]); string(sum[:]) != text[checksumStart:] {
		return "", f, errForm
	}
	id = text[len(keyPrefix) : secretStart-1]
	if !validID(id) {
		return "", f, errForm
	}
	var buf [len(fingerprintOf) + idLength + secretBytes]byte
	n := copy(buf[:], fingerprintOf)
	n += copy(buf[n:], id)
	var secret [secretLength]byte // on the stack: no copy of it outlives the call
	copy(secret[:], text[secretStart:])
	// The decoder skips line breaks, so that fewer bytes than wanted can come out.
	if got, err := keyEncoding.Decode(buf[n:], secret[:]); err != nil || got != secretBytes {
		return "", f, errForm
	}
	return id, sha256.Sum256(buf[:]), nil
}

// formatKey writes the text form.
func formatKey(id string, secret [secretBytes]byte) string {
	text := keyPrefix + id + "_" + keyEncoding.EncodeToString(secret[:])
	sum := checksum(text)
	return text + string(sum[:])
}

// checksumDigits are a CRC-32 in lower-case hex.
type checksumDigits [2 * checksumBytes]byte

// checksum is written out, since handing text to crc32 as bytes would copy the
// secret to the heap.
func checksum(text string) checksumDigits {
	table := crc32.IEEETable
	c := ^uint32(0)
	for i := range len(text) {
		c = table[byte(c)^text[i]] ^ c>>8
	}
	c = ^c
	var d checksumDigits
	for i := range d {
		d[i] = "0123456789abcdef"[c>>28]
		c <<= 4
	}
	return d
}

func validID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for i := range len(id) {
		if strings.IndexByte(idAlphabet, id[i]) < 0 {
			return false
		}
	}
	return true
}
