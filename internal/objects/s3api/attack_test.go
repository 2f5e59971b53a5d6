package s3api_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/s3api"
	"github.com/casemate-dev/casemate/internal/objects/sigv4"
)

// send sends a request and gives the status.
func (w *world) send(t testing.TB, method, url string, body []byte, header http.Header) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := w.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestOneNamespaceDoesNotSeeAnother tries everything with a key that may nothing here.
func TestOneNamespaceDoesNotSeeAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	mine := w.minio(t, accessKey, secretKey)
	mine.MakeBucket(ctx, "photos", minio.MakeBucketOptions{})
	mine.PutObject(ctx, "photos", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{})
	for name, c := range map[string]*minio.Client{"other": w.minio(t, otherKey, otherPass), "reader": w.minio(t, readKey, readPass)} {
		for what, err := range map[string]error{
			"put":           second(c.PutObject(ctx, "photos", "k", strings.NewReader("y"), 1, minio.PutObjectOptions{})),
			"delete":        c.RemoveObject(ctx, "photos", "k", minio.RemoveObjectOptions{}),
			"delete bucket": c.RemoveBucket(ctx, "photos"),
			"make bucket":   c.MakeBucket(ctx, "mine", minio.MakeBucketOptions{}),
			"versioning":    c.EnableVersioning(ctx, "photos"),
			"upload":        second(minio.Core{Client: c}.NewMultipartUpload(ctx, "photos", "k", minio.PutObjectOptions{})),
			"elsewhere":     second(c.StatObject(ctx, "shop.photos", "k", minio.StatObjectOptions{})),
		} {
			if got := code(err); got != "AccessDenied" {
				t.Errorf("%s: %s: %s", name, what, got)
			}
		}
		list, err := c.ListBuckets(ctx)
		if want := map[string]int{"other": 0, "reader": 1}[name]; err != nil || len(list) != want {
			t.Errorf("%s lists %v, %v", name, list, err)
		}
	}
	other := w.minio(t, otherKey, otherPass)
	for _, b := range []string{"photos", "missing"} { // the same answer, there or not
		if _, err := other.StatObject(ctx, b, "k", minio.StatObjectOptions{}); code(err) != "AccessDenied" {
			t.Errorf("%s: %v", b, err)
		}
	}
	other.MakeBucket(ctx, "other.own", minio.MakeBucketOptions{})
	_, err := other.CopyObject(ctx, minio.CopyDestOptions{Bucket: "other.own", Object: "k"}, minio.CopySrcOptions{Bucket: "photos", Object: "k"})
	if code(err) != "AccessDenied" {
		t.Errorf("copying out of another namespace: %v", err)
	}
	for _, c := range []*minio.Client{w.minio(t, accessKey, otherPass), w.minio(t, "CASE9999999999999999", secretKey)} {
		if _, err := c.ListBuckets(ctx); code(err) != "SignatureDoesNotMatch" {
			t.Errorf("a wrong secret, or an unknown key: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSignedURLsEnd(t *testing.T) {
	t.Parallel()
	var late atomic.Int64
	w := newWorld(t, func(_ *objects.Config, d *s3api.Config) {
		d.Clock = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	})
	c := w.minio(t, accessKey, secretKey)
	c.MakeBucket(t.Context(), "photos", minio.MakeBucketOptions{})
	u, err := c.PresignedPutObject(t.Context(), "photos", "k", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if st := w.send(t, "PUT", u.String(), []byte("x"), nil); st != 200 {
		t.Errorf("in time: %d", st)
	}
	if st := w.send(t, "PUT", u.String(), []byte("x"), http.Header{"X-Amz-Meta-A": {"b"}}); st != 403 {
		t.Errorf("with a header added: %d", st)
	}
	if st := w.send(t, "PUT", u.String()+"&acl=", []byte("x"), nil); st != 403 {
		t.Errorf("with a parameter added: %d", st)
	}
	if st := w.send(t, "PUT", strings.Replace(u.String(), "/k?", "/l?", 1), []byte("x"), nil); st != 403 {
		t.Errorf("for another key: %d", st)
	}
	late.Store(int64(time.Hour + time.Second))
	if st := w.send(t, "PUT", u.String(), []byte("x"), nil); st != 403 {
		t.Errorf("too late: %d", st)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.minio(t, accessKey, secretKey)
	c.MakeBucket(t.Context(), "photos", minio.MakeBucketOptions{})
	bomb := `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>`
	deep := strings.Repeat("<a>", 200_000)
	for name, tc := range map[string]struct {
		method, path string
		body         string
		header       http.Header
		status       int
	}{
		"bomb":              {"POST", "/photos?delete=", bomb, nil, 400},
		"deep":              {"POST", "/photos?delete=", "<Delete>" + deep, nil, 400},
		"too long":          {"POST", "/photos?delete=", "<Delete><Object><Key>k</Key></Object></Delete>" + strings.Repeat(" ", 1<<20), nil, 400},
		"two documents":     {"PUT", "/photos?versioning=", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration><x/>", nil, 400},
		"other document":    {"PUT", "/photos?versioning=", "<x/>", nil, 400},
		"dots":              {"PUT", "/photos/a/../../etc/passwd", "x", nil, 400},
		"encoded dots":      {"PUT", "/photos/%2e%2e%2f%2e%2e%2fetc", "x", nil, 400},
		"NUL":               {"PUT", "/photos/a%00b", "x", nil, 400},
		"absolute":          {"PUT", "/photos//etc/passwd", "x", nil, 400},
		"not UTF-8":         {"PUT", "/photos/%ff", "x", nil, 400},
		"bucket of dots":    {"PUT", "/../x", "x", nil, 400},
		"default by name":   {"GET", "/default.photos", "", nil, 400},
		"ACL":               {"PUT", "/photos/k?acl=", "", nil, 501},
		"unknown parameter": {"GET", "/photos/k?torrent=", "", nil, 501},
		"public":            {"PUT", "/photos/k", "x", http.Header{"X-Amz-Acl": {"public-read"}}, 400},
		"own key":           {"PUT", "/photos/k", "x", http.Header{"X-Amz-Server-Side-Encryption-Customer-Algorithm": {"AES256"}}, 501},
		"long header":       {"PUT", "/photos/k", "x", http.Header{"X-Amz-Meta-A": {strings.Repeat("x", 40_000)}}, 431},
		"much metadata":     {"PUT", "/photos/k", "x", http.Header{"X-Amz-Meta-A": {strings.Repeat("x", 2048)}}, 400},
		"range too far":     {"GET", "/photos/missing", "", http.Header{"Range": {"bytes=9-"}}, 404},
		"wrong MD5":         {"PUT", "/photos/k", "x", http.Header{"Content-Md5": {"AAAAAAAAAAAAAAAAAAAAAA=="}}, 400},
		"wrong checksum":    {"PUT", "/photos/k", "x", http.Header{"X-Amz-Checksum-Crc32": {"AAAAAA=="}}, 400},
		"two checksums":     {"PUT", "/photos/k", "x", http.Header{"X-Amz-Checksum-Crc32": {"AAAAAA=="}, "X-Amz-Checksum-Sha1": {"x"}}, 400},
		"options":           {"OPTIONS", "/photos/k", "", nil, 501},
		"part 0":            {"PUT", "/photos/k?partNumber=0&uploadId=x", "x", nil, 400},
		"no such upload":    {"PUT", "/photos/k?partNumber=1&uploadId=..%2F..", "x", nil, 404},
		"token":             {"GET", "/photos?list-type=2&continuation-token=AAAA", "", nil, 400},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tc.method, w.URL+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tc.header {
			r.Header[k] = v
		}
		signRequest(r, []byte(tc.body))
		resp, err := w.Client().Do(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		raw, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s: got %d, want %d\n%s", name, resp.StatusCode, tc.status, raw)
		}
	}
	if b, err := w.store.Bucket("default", "photos"); err != nil || b.Objects != 0 || b.Versioning != "" {
		t.Errorf("something was done all the same: %+v %v", b, err)
	}
	for _, r := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /photos HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 x\r\n\r\n"} {
		conn, err := tls.Dial("tcp", w.host(), w.Client().Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, r)
		line := make([]byte, 12)
		io.ReadFull(conn, line)
		if !bytes.HasPrefix(line, []byte("HTTP/1.1 40")) {
			t.Errorf("without a signature: %s", line)
		}
		conn.Close()
	}
}

// signRequest signs as a client does, all headers, with the path as it is.
// revoked knows the secrets of keys that are good no more.
type revoked struct{ keyring }

func (k revoked) SigningKey(id, day, region, service string) ([]byte, s3api.Holder) {
	key, _ := k.keyring.SigningKey(id, day, region, service)
	return key, nil
}

// A good signature is no admission: the key must have a holder.
func TestAttackKeyThatWasRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(_ *objects.Config, d *s3api.Config) { d.Keys = revoked{keys()} })
	c := w.minio(t, accessKey, secretKey)
	if _, err := c.ListBuckets(t.Context()); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("listing: %v", err)
	}
	if err := c.MakeBucket(t.Context(), "photos", minio.MakeBucketOptions{}); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("making a bucket: %v", err)
	}
}

func signRequest(r *http.Request, body []byte) {
	sum := sha256.Sum256(body)
	at := time.Now().UTC()
	r.Header.Set("X-Amz-Date", at.Format("20060102T150405Z"))
	r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	names := []string{"host"}
	for k := range r.Header {
		names = append(names, strings.ToLower(k))
	}
	slices.Sort(names)
	path, _ := url.PathUnescape(r.URL.EscapedPath())
	query := []string{}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if pair != "" {
			query = append(query, pair)
		}
	}
	slices.Sort(query)
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	for i := range len(path) {
		if c := path[i]; strings.IndexByte("/-_.~", c) >= 0 || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteString("\n" + strings.Join(query, "&") + "\n")
	for _, n := range names {
		v := r.Header.Get(n)
		if n == "host" {
			v = r.URL.Host
		}
		b.WriteString(n + ":" + v + "\n")
	}
	list := strings.Join(names, ";")
	b.WriteString("\n" + list + "\n" + hex.EncodeToString(sum[:]))
	canonical := sha256.Sum256([]byte(b.String()))
	scope := at.Format("20060102") + "/us-east-1/s3/aws4_request"
	h := hmac.New(sha256.New, sigv4.SigningKey(secretKey, at.Format("20060102"), "us-east-1", "s3"))
	io.WriteString(h, "AWS4-HMAC-SHA256\n"+at.Format("20060102T150405Z")+"\n"+scope+"\n"+hex.EncodeToString(canonical[:]))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+accessKey+"/"+scope+",SignedHeaders="+list+",Signature="+hex.EncodeToString(h.Sum(nil)))
}

func TestVirtualHostStyle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.minio(t, accessKey, secretKey)
	c.MakeBucket(t.Context(), "photos", minio.MakeBucketOptions{})
	r, _ := http.NewRequestWithContext(t.Context(), "PUT", "https://photos.s3.test/a/b", strings.NewReader("x"))
	signRequest(r, []byte("x"))
	transport := w.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "example.com"
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, w.host())
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	if _, err := c.StatObject(t.Context(), "photos", "a/b", minio.StatObjectOptions{}); err != nil {
		t.Error(err)
	}
}

func TestNoEventNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.minio(t, accessKey, secretKey)
	c.MakeBucket(t.Context(), "photos", minio.MakeBucketOptions{})
	w.told.mu.Lock()
	w.told.err = errors.New("the bus is full")
	w.told.mu.Unlock()
	r, _ := http.NewRequestWithContext(t.Context(), "PUT", w.URL+"/photos/k", strings.NewReader("x"))
	signRequest(r, []byte("x"))
	resp, err := w.Client().Do(r)
	if err != nil || resp.StatusCode != 503 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
}
