package s3api

import (
	"bytes"
	"encoding/base64"
	"hash/crc32"
	"hash/crc64"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/objects"
)

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-9", "bytes=-5", "bytes=5-", "bytes=0-1,3-4", "bytes=9-1", "bytes=18446744073709551615-", "x"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 0 {
			return
		}
		offset, length, partial, ok := parseRange(field, size)
		if ok && (offset < 0 || length < 0 || offset > size || length > size-offset || partial && length == 0) {
			t.Fatalf("%q of %d gives %d+%d", field, size, offset, length)
		}
		if ok && !partial && (offset != 0 || length != size) {
			t.Fatalf("%q of %d is no range and gives %d+%d", field, size, offset, length)
		}
	})
}

func FuzzXML(f *testing.F) {
	f.Add([]byte(`<Delete><Object><Key>k</Key></Object></Delete>`))
	f.Add([]byte(`<!DOCTYPE x [<!ENTITY a "b">]><Delete>&a;</Delete>`))
	f.Add([]byte(`<!DOCTYPE x><VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>`))
	f.Add([]byte(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part></CompleteMultipartUpload>`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, into := range []any{&deleteDocument{}, &completeDocument{}, &taggingDocument{}, &versioningDocument{}, &createDocument{}} {
			if parseXML(raw, into) == nil && bytes.Contains(raw, []byte("<!")) {
				t.Fatal("a declaration was taken")
			}
		}
	})
}

func FuzzTarget(f *testing.F) {
	f.Add("/b/k", "h:1")
	f.Add("/%2e%2e/%2e%2e", "ns.bucket.s3.test")
	f.Add("//", "")
	f.Fuzz(func(t *testing.T, path, host string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		name, key, err := splitTarget(path, host, []string{"s3.test"})
		if err != nil || name == "" {
			return
		}
		ns, bucket, err := splitBucket(name)
		if err != nil || key != "" && objects.CheckKey(key) != nil {
			return
		}
		if joinBucket(ns, bucket) != name || strings.ContainsAny(ns+bucket, "./\x00") || strings.Contains("/"+key+"/", "/../") || strings.HasPrefix(key, "/") {
			t.Fatalf("%q of %q gives %q %q %q", path, host, ns, bucket, key)
		}
	})
}

func TestTargets(t *testing.T) {
	t.Parallel()
	domains := []string{"example.com", "s3.example.com", "localhost"}
	for target, want := range map[[2]string][2]string{
		{"/b-1/k/l", "127.0.0.1:8445"}:                {"b-1", "k/l"},
		{"/b-1/k/l", "localhost:8445"}:                {"b-1", "k/l"},
		{"/b-1/k/l", "S3.Example.COM.:8445"}:          {"b-1", "k/l"}, // is a name of the node, not a bucket below another
		{"/k/l", "photos.s3.example.com"}:             {"photos", "k/l"},
		{"/k/l", "shop.photos.localhost:8445"}:        {"shop.photos", "k/l"},
		{"/", "photos.localhost"}:                     {"photos", ""},
		{"/b-1/k", "notlocalhost"}:                    {"b-1", "k"},
		{"/b-1/k%2F%2e", "photos.localhost.evil.com"}: {"b-1", "k/."},
	} {
		bucket, key, err := splitTarget(target[0], target[1], domains)
		if err != nil || bucket != want[0] || key != want[1] {
			t.Errorf("%v: got %q, %q, %v; want %v", target, bucket, key, err, want)
		}
	}
}

func TestCRCsCombine(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		a, b := make([]byte, rng.IntN(3000)), make([]byte, rng.IntN(3000))
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		both := append(bytes.Clone(a), b...)
		for algorithm, sum := range map[string]func([]byte) uint64{
			"crc32":     func(p []byte) uint64 { return uint64(crc32.ChecksumIEEE(p)) },
			"crc32c":    func(p []byte) uint64 { return uint64(crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))) },
			"crc64nvme": func(p []byte) uint64 { return crc64.Checksum(p, crc64.MakeTable(polyNVME)) },
		} {
			if got := combine(algorithm, sum(a), sum(b), int64(len(b))); got != sum(both) {
				t.Fatalf("%s of %d and %d bytes: %x, want %x", algorithm, len(a), len(b), got, sum(both))
			}
		}
	}
	// The check value of CRC-64/NVME (NVM Command Set specification) is that of 123456789.
	h := newChecksum("crc64nvme")
	h.Write([]byte("123456789"))
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != "rosUhgoR+YY=" && h.Sum(nil)[0] != 0xae {
		t.Errorf("check value: %x", h.Sum(nil))
	}
}
