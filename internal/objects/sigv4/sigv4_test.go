package sigv4_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/objects/sigv4"
)

// The examples of Amazon's documentation of S3 are all under this key.
const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

var example = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

const (
	auth  = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
	empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func header(signed, signature, hash string, more ...string) http.Header {
	h := http.Header{"Authorization": {auth + signed + ",Signature=" + signature}, "X-Amz-Date": {"20130524T000000Z"}, "X-Amz-Content-Sha256": {hash}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

func verify(r *sigv4.Request, now time.Time) (*sigv4.Signature, error) {
	s, err := sigv4.Parse(r, now)
	if err != nil {
		return nil, err
	}
	return s, s.Verify(sigv4.SigningKey(secret, s.Day, s.Region, s.Service))
}

// TestExamplesOfTheDocumentation: "Examples: Signature Calculations", "Authenticating
// Requests: Using Query Parameters" and "Signature calculations ... multiple chunks",
// Amazon S3 API Reference.
func TestExamplesOfTheDocumentation(t *testing.T) {
	t.Parallel()
	const host = "examplebucket.s3.amazonaws.com"
	for name, r := range map[string]*sigv4.Request{
		"GET object": {Method: "GET", Path: "/test.txt", Host: host, Header: header("host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", empty, "Range", "bytes=0-9")},
		"PUT object": {Method: "PUT", Path: "/test%24file.text", Host: host, Header: header("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			"Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")},
		"GET lifecycle": {Method: "GET", Path: "/", Query: "lifecycle", Host: host, Header: header("host;x-amz-content-sha256;x-amz-date",
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", empty)},
		"list": {Method: "GET", Path: "/", Query: "max-keys=2&prefix=J", Host: host, Header: header("host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", empty)},
		"signed URL": {
			Method: "GET", Path: "/test.txt", Host: host, Header: http.Header{},
			Query: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
		},
	} {
		if _, err := verify(r, example); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.Method = "DELETE"
		var se *sigv4.Error
		if _, err := verify(r, example); !errors.As(err, &se) || se.Fault != sigv4.Mismatch {
			t.Errorf("%s as DELETE: %v", name, err)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	const signed = "host;x-amz-content-sha256;x-amz-date"
	sig := strings.Repeat("0", 64)
	get := func(h http.Header, query string) *sigv4.Request {
		return &sigv4.Request{Method: "GET", Path: "/k", Query: query, Host: "h", Header: h, TLS: true}
	}
	url := "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=" + sig
	for name, tc := range map[string]struct {
		r     *sigv4.Request
		now   time.Time
		fault sigv4.Fault
	}{
		"nothing":            {get(http.Header{}, ""), example, sigv4.Missing},
		"version 2":          {get(http.Header{}, "AWSAccessKeyId=CASE0000000000000001&Signature=AAAA&Expires=2000000000"), example, sigv4.Unserved},
		"old":                {get(header(signed, sig, empty), ""), example.Add(16 * time.Minute), sigv4.Skewed},
		"future":             {get(header(signed, sig, empty), ""), example.Add(-16 * time.Minute), sigv4.Skewed},
		"unsigned header":    {get(header(signed, sig, empty, "X-Amz-Copy-Source", "b/k"), ""), example, sigv4.Missing},
		"host not signed":    {get(header("x-amz-content-sha256;x-amz-date", sig, empty), ""), example, sigv4.Malformed},
		"two ways":           {get(header(signed, sig, empty), url+"&X-Amz-Expires=10"), example, sigv4.Unserved},
		"doubled parameter":  {get(header(signed, sig, empty), "prefix=a&prefix=b"), example, sigv4.Unserved},
		"semicolon":          {get(header(signed, sig, empty), "prefix=a;b"), example, sigv4.Unserved},
		"session token":      {get(header(signed+";x-amz-security-token", sig, empty, "X-Amz-Security-Token", "t"), ""), example, sigv4.Unserved},
		"unsigned, no TLS":   {&sigv4.Request{Method: "PUT", Path: "/k", Host: "h", Header: header(signed, sig, "UNSIGNED-PAYLOAD")}, example, sigv4.Unserved},
		"unknown payload":    {get(header(signed, sig, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), ""), example, sigv4.Unserved},
		"URL expired":        {get(http.Header{}, url+"&X-Amz-Expires=10"), example.Add(10 * time.Second), sigv4.Expired},
		"URL too early":      {get(http.Header{}, url+"&X-Amz-Expires=10"), example.Add(-time.Hour), sigv4.Expired},
		"URL for too long":   {get(http.Header{}, url+"&X-Amz-Expires=604801"), example, sigv4.BadQuery},
		"URL without end":    {get(http.Header{}, url), example, sigv4.BadQuery},
		"URL, header added":  {get(http.Header{"X-Amz-Meta-A": {"b"}}, url+"&X-Amz-Expires=10"), example, sigv4.Missing},
		"header of two days": {get(header(signed, sig, empty, "X-Amz-Date", "20130525T000000Z"), ""), example, sigv4.Malformed},
	} {
		var se *sigv4.Error
		if _, err := sigv4.Parse(tc.r, tc.now); !errors.As(err, &se) || se.Fault != tc.fault {
			t.Errorf("%s: got %v, want %s", name, err, tc.fault)
		}
	}
}

// chunked is the example of a body in chunks of the documentation.
func chunked(t testing.TB) (*sigv4.Signature, string, string) {
	t.Helper()
	h := header("content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
		"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
		"Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "66560", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	s, err := verify(&sigv4.Request{Method: "PUT", Path: "/examplebucket/chunkObject.txt", Host: "s3.amazonaws.com", Header: h, ContentLength: 66824}, example)
	if err != nil {
		t.Fatal(err)
	}
	first := "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + strings.Repeat("a", 65536) + "\r\n"
	rest := "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + strings.Repeat("a", 1024) + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
	return s, first, rest
}

func TestSignedChunks(t *testing.T) {
	t.Parallel()
	s, first, rest := chunked(t)
	if got, err := io.ReadAll(s.Body(strings.NewReader(first+rest), nil)); err != nil || len(got) != 66560 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for name, body := range map[string]string{
		"changed":        strings.Replace(first, "aaa", "aab", 1) + rest,
		"replayed":       first + first + rest,
		"left out":       rest,
		"exchanged":      rest[:strings.Index(rest, "0;chunk")] + first + rest[strings.Index(rest, "0;chunk"):],
		"cut":            first,
		"cut in a chunk": first[:1000],
		"end alone":      rest[strings.Index(rest, "0;chunk"):],
		"more behind":    first + rest + "x",
		"unsigned":       strings.Replace(first, ";chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", "", 1) + rest,
		"long line":      strings.Repeat("0", 1<<20),
		"huge":           "ffffffffffffffff;chunk-signature=" + empty + "\r\n",
		"negative":       "-1;chunk-signature=" + empty + "\r\n",
	} {
		if _, err := io.ReadAll(s.Body(strings.NewReader(body), nil)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// FuzzBody looks for panics, and for content that no signature is of.
func FuzzBody(f *testing.F) {
	_, first, rest := chunked(f)
	f.Add([]byte(first+rest), uint8(sigv4.Chunks))
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte("hello")))
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:"+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"), uint8(sigv4.UnsignedChunks))
	f.Add([]byte("hello"), uint8(sigv4.Whole))
	f.Fuzz(func(t *testing.T, body []byte, payload uint8) {
		s, _, _ := chunked(t)
		s.Payload = sigv4.Payload(payload % 5)
		s.Digest = empty
		got, err := io.ReadAll(s.Body(bytes.NewReader(body), []string{"x-amz-checksum-crc32"}))
		if err != nil {
			return
		}
		switch s.Payload {
		case sigv4.Whole:
			if len(got) > 0 {
				t.Fatal("a body with another digest was taken")
			}
		case sigv4.Chunks, sigv4.ChunksTrailer:
			if len(got) != 66560 {
				t.Fatalf("%d bytes were taken that nobody signed", len(got))
			}
		}
	})
}

// FuzzParse looks for panics, and for what is taken without a good signature.
func FuzzParse(f *testing.F) {
	f.Add("/test.txt", "", header("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", empty).Get("Authorization"))
	f.Add("/%zz", "a=b&c", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e")
	f.Fuzz(func(t *testing.T, path, query, field string) {
		h := http.Header{"Authorization": {field}, "X-Amz-Date": {"20130524T000000Z"}, "X-Amz-Content-Sha256": {empty}}
		s, err := sigv4.Parse(&sigv4.Request{Method: "GET", Path: path, Query: query, Host: "h", Header: h, TLS: true}, example)
		if err == nil && s.Verify([]byte("some key")) == nil {
			t.Fatal("a signature that nobody made was taken")
		}
	})
}
