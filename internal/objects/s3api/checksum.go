package s3api

import (
	"crypto/md5"  //nolint:gosec // Content-MD5 is what some clients send; nothing relies on it
	"crypto/sha1" //nolint:gosec // one of S3's checksums; nothing relies on it
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math/bits"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/objects"
)

const (
	checksumHeader = "X-Amz-Checksum-"
	fullObject     = "FULL_OBJECT"
	composite      = "COMPOSITE"
)

// Polynomials, reversed. That of CRC-64/NVME is of the NVM Express base specification.
const (
	polyIEEE       = crc32.IEEE
	polyCastagnoli = crc32.Castagnoli
	polyNVME       = 0x9a6c9329ac4bc9b5
)

// newChecksum makes the hash of one of S3's algorithms, or nil.
func newChecksum(algorithm string) hash.Hash {
	switch algorithm {
	case "crc32":
		return crc32.NewIEEE()
	case "crc32c":
		return crc32.New(crc32.MakeTable(polyCastagnoli))
	case "crc64nvme":
		return crc64.New(crc64.MakeTable(polyNVME))
	case "sha1":
		return sha1.New() //nolint:gosec // as above
	case "sha256":
		return sha256.New()
	default:
		return nil
	}
}

// checked reads a body and checks it against what its sender says of it.
type checked struct {
	from      io.Reader
	sums      map[string]hash.Hash // by algorithm
	want      map[string]string    // base64
	trailer   func() map[string]string
	trailing  string // algorithm of the trailer
	md5       hash.Hash
	wantMD5   string
	err       error
	checksums map[string]string // that were right
}

// newChecked reads the headers that announce checksums. names are the trailers.
func newChecked(from io.Reader, header map[string][]string, names []string, trailer func() map[string]string) (*checked, error) {
	c := &checked{from: from, sums: map[string]hash.Hash{}, want: map[string]string{}, trailer: trailer}
	for name, values := range header {
		algorithm, ok := strings.CutPrefix(name, checksumHeader)
		if !ok || algorithm == "Algorithm" || algorithm == "Type" || algorithm == "Mode" {
			continue
		}
		algorithm = strings.ToLower(algorithm)
		h := newChecksum(algorithm)
		if h == nil || len(values) != 1 {
			return nil, invalid("InvalidRequest", "the checksum's algorithm is not served: "+algorithm)
		}
		c.sums[algorithm], c.want[algorithm] = h, values[0]
	}
	for _, name := range names {
		algorithm, ok := strings.CutPrefix(name, strings.ToLower(checksumHeader))
		h := newChecksum(algorithm)
		if !ok || h == nil || c.trailing != "" {
			return nil, invalid("InvalidRequest", "the trailer must be one checksum")
		}
		c.sums[algorithm], c.trailing = h, algorithm
	}
	if len(c.sums) > 1 {
		return nil, invalid("InvalidRequest", "more than one checksum is given")
	}
	if v := header["Content-Md5"]; len(v) > 0 {
		if raw, err := base64.StdEncoding.DecodeString(v[0]); err != nil || len(raw) != md5.Size || len(v) > 1 {
			return nil, invalid("InvalidDigest", "Content-MD5 is not a digest in base64")
		}
		c.md5, c.wantMD5 = md5.New(), v[0] //nolint:gosec // as above
	}
	return c, nil
}

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.from.Read(p)
	for _, h := range c.sums {
		h.Write(p[:n])
	}
	if c.md5 != nil {
		c.md5.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		err = c.check()
	}
	c.err = err
	return n, err
}

func (c *checked) check() error {
	if c.trailing != "" {
		c.want[c.trailing] = c.trailer()[strings.ToLower(checksumHeader)+c.trailing]
	}
	if c.md5 != nil && base64.StdEncoding.EncodeToString(c.md5.Sum(nil)) != c.wantMD5 {
		return invalid("BadDigest", "the body is not the one that Content-MD5 is of")
	}
	for algorithm, h := range c.sums {
		if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != c.want[algorithm] {
			return invalid("BadDigest", "the body is not the one that the checksum "+algorithm+" is of")
		}
	}
	c.checksums = c.want
	return io.EOF
}

// body is the content of the request's body, with all checks.
func (x *exchange) body() (*checked, error) {
	var names []string
	if v := x.r.Header["X-Amz-Trailer"]; len(v) > 0 {
		for name := range strings.SplitSeq(v[0], ",") {
			names = append(names, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	b := x.signature.Body(&progress{x: x}, names)
	return newChecked(b, x.r.Header, names, b.Trailer)
}

// whole computes the checksum of an object from those of its parts: for the kind
// COMPOSITE that of the checksums, for FULL_OBJECT that of the bytes.
func whole(u objects.Upload, parts []objects.Part) (map[string]string, string, error) {
	h := newChecksum(u.Algorithm)
	if h == nil {
		return nil, "", nil
	}
	var crc uint64
	for _, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksums[u.Algorithm])
		if err != nil || len(raw) != h.Size() {
			return nil, "", nil // a part without checksum; then the whole has none
		}
		if u.ChecksumType == composite {
			h.Write(raw)
			continue
		}
		var next uint64
		for _, b := range raw {
			next = next<<8 | uint64(b)
		}
		crc = combine(u.Algorithm, crc, next, p.Size)
	}
	if u.ChecksumType == composite {
		return map[string]string{u.Algorithm: base64.StdEncoding.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(parts))}, composite, nil
	}
	raw := make([]byte, h.Size())
	for i := range raw {
		raw[i] = byte(crc >> (8 * (len(raw) - 1 - i)))
	}
	return map[string]string{u.Algorithm: base64.StdEncoding.EncodeToString(raw)}, fullObject, nil
}

// combine gives the CRC of two texts, one behind the other, from theirs and the length
// of the second. A CRC is linear: appending a zero byte is a linear map of its register,
// and many of them a power of that map. (As crc32_combine of zlib does it.)
func combine(algorithm string, first, second uint64, length int64) uint64 {
	poly := map[string]uint64{"crc32": polyIEEE, "crc32c": polyCastagnoli, "crc64nvme": polyNVME}[algorithm]
	// The map of one zero bit, column by column.
	var m [64]uint64
	m[0] = poly
	for i := 1; i < 64; i++ {
		m[i] = 1 << (i - 1)
	}
	for range 3 { // one zero byte
		m = square(&m)
	}
	for n := uint64(length); n > 0; n >>= 1 {
		if n&1 == 1 {
			first = times(&m, first)
		}
		m = square(&m)
	}
	return first ^ second
}

func times(m *[64]uint64, v uint64) (sum uint64) {
	for v != 0 {
		i := bits.TrailingZeros64(v)
		sum ^= m[i]
		v &= v - 1
	}
	return sum
}

func square(m *[64]uint64) (out [64]uint64) {
	for i := range m {
		out[i] = times(m, m[i])
	}
	return out
}

// fullObjectAlgorithm reports whether an algorithm can give FULL_OBJECT of parts.
func fullObjectAlgorithm(a string) bool { return strings.HasPrefix(a, "crc") }
