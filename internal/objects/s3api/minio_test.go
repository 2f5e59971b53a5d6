package s3api_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/tags"

	"github.com/casemate-dev/casemate/internal/objects"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func code(err error) string {
	var e minio.ErrorResponse
	if errors.As(err, &e) {
		return e.Code
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMinioClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, ctx := w.minio(t, accessKey, secretKey), t.Context()
	if err := c.MakeBucket(ctx, "photos", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.MakeBucket(ctx, "shop.photos", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := code(c.MakeBucket(ctx, "photos", minio.MakeBucketOptions{})); got != "BucketAlreadyOwnedByYou" {
		t.Errorf("making a bucket twice: %s", got)
	}
	list, err := c.ListBuckets(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "photos" || list[1].Name != "shop.photos" {
		t.Errorf("buckets: %v, %v", list, err)
	}
	for _, size := range []int{0, 1, 70_000, 17 << 20} { // the last one in parts
		data := random(size)
		key := fmt.Sprintf("dir/ä +%%&size %d", size)
		info, err := c.PutObject(ctx, "photos", key, bytes.NewReader(data), int64(size), minio.PutObjectOptions{
			ContentType: "image/x-test", UserMetadata: map[string]string{"colour": "red"}, UserTags: map[string]string{"a": "b c"}, CacheControl: "no-store",
		})
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		o, err := c.GetObject(ctx, "photos", key, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, o); !bytes.Equal(got, data) {
			t.Fatalf("size %d: other bytes came back", size)
		}
		st, err := c.StatObject(ctx, "photos", key, minio.StatObjectOptions{})
		if err != nil || st.ETag != info.ETag || st.ContentType != "image/x-test" || st.UserMetadata["Colour"] != "red" ||
			st.Size != int64(size) || st.Metadata.Get("Cache-Control") != "no-store" || st.UserTagCount != 1 {
			t.Errorf("size %d: %+v, %v", size, st, err)
		}
		if size > 1000 {
			opts := minio.GetObjectOptions{}
			opts.SetRange(int64(size/2-10), int64(size/2+66_000))
			o, _ := c.GetObject(ctx, "photos", key, opts)
			if got, want := readAll(t, o), data[size/2-10:min(size, size/2+66_001)]; !bytes.Equal(got, want) {
				t.Errorf("size %d: the range has %d bytes, want %d", size, len(got), len(want))
			}
		}
		if err := c.RemoveObject(ctx, "photos", key, minio.RemoveObjectOptions{}); err != nil {
			t.Error(err)
		}
	}
	if n := w.store.Used(""); n != 0 {
		t.Errorf("%d bytes are counted after all was removed", n)
	}
	var ops []string
	for _, ch := range w.told.all() {
		ops = append(ops, ch.Operation)
	}
	want := fmt.Sprint([]string{objects.OpPut, objects.OpDelete, objects.OpPut, objects.OpDelete, objects.OpPut, objects.OpDelete, objects.OpComplete, objects.OpDelete})
	if fmt.Sprint(ops) != want {
		t.Errorf("told %v, want %s", ops, want)
	}
}

func TestMinioListsCopiesAndVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, ctx := w.minio(t, accessKey, secretKey), t.Context()
	c.MakeBucket(ctx, "b-1", minio.MakeBucketOptions{})
	put := func(key, body string) {
		t.Helper()
		if _, err := c.PutObject(ctx, "b-1", key, bytes.NewReader([]byte(body)), int64(len(body)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"a", "b/1", "b/2", "b/c/3", "c&<>", "d e+f", "z"} {
		put(k, k)
	}
	for _, v1 := range []bool{false, true} {
		for _, tc := range []struct {
			opts minio.ListObjectsOptions
			want string
		}{
			{minio.ListObjectsOptions{Recursive: true}, "[a b/1 b/2 b/c/3 c&<> d e+f z]"},
			{minio.ListObjectsOptions{}, "[a b/ c&<> d e+f z]"},
			{minio.ListObjectsOptions{MaxKeys: 2}, "[a b/ c&<> d e+f z]"},
			{minio.ListObjectsOptions{MaxKeys: 1, Recursive: true, Prefix: "b/"}, "[b/1 b/2 b/c/3]"},
			{minio.ListObjectsOptions{Prefix: "b/", MaxKeys: 1}, "[b/1 b/2 b/c/]"},
			{minio.ListObjectsOptions{StartAfter: "b/2", Recursive: true}, "[b/c/3 c&<> d e+f z]"},
			{minio.ListObjectsOptions{Prefix: "nothing"}, "[]"},
		} {
			tc.opts.UseV1 = v1
			got := []string{}
			for o := range c.ListObjects(ctx, "b-1", tc.opts) {
				if o.Err != nil {
					t.Fatal(o.Err)
				}
				got = append(got, o.Key)
			}
			slices.Sort(got) // the client gives groups after objects
			if fmt.Sprint(got) != tc.want {
				t.Errorf("%+v: got %v, want %s", tc.opts, got, tc.want)
			}
		}
	}
	if _, err := c.CopyObject(ctx, minio.CopyDestOptions{Bucket: "b-1", Object: "copy of d"}, minio.CopySrcOptions{Bucket: "b-1", Object: "d e+f"}); err != nil {
		t.Fatal(err)
	}
	o, _ := c.GetObject(ctx, "b-1", "copy of d", minio.GetObjectOptions{})
	if got := readAll(t, o); string(got) != "d e+f" {
		t.Errorf("copy: %q", got)
	}
	if err := c.EnableVersioning(ctx, "b-1"); err != nil {
		t.Fatal(err)
	}
	put("a", "second")
	if err := c.RemoveObject(ctx, "b-1", "a", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.StatObject(ctx, "b-1", "a", minio.StatObjectOptions{}); code(err) != "NoSuchKey" {
		t.Errorf("behind a delete marker: %v", err)
	}
	var seen []string
	var second string
	for o := range c.ListObjects(ctx, "b-1", minio.ListObjectsOptions{WithVersions: true, Prefix: "a", MaxKeys: 1}) {
		seen = append(seen, fmt.Sprint(o.IsDeleteMarker, o.IsLatest, o.VersionID == "null", o.Size))
		if o.Size == 6 {
			second = o.VersionID
		}
	}
	if fmt.Sprint(seen) != "[true true false 0 false false false 6 false false true 1]" {
		t.Errorf("versions: %v", seen)
	}
	o, _ = c.GetObject(ctx, "b-1", "a", minio.GetObjectOptions{VersionID: second})
	if got := readAll(t, o); string(got) != "second" {
		t.Errorf("by version: %q", got)
	}
	tagging, _ := tags.NewTags(map[string]string{"k": "v w"}, true)
	if err := c.PutObjectTagging(ctx, "b-1", "z", tagging, minio.PutObjectTaggingOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetObjectTagging(ctx, "b-1", "z", minio.GetObjectTaggingOptions{}); err != nil || got.ToMap()["k"] != "v w" {
		t.Errorf("tags: %v %v", got, err)
	}
	if got := code(c.RemoveBucket(ctx, "b-1")); got != "BucketNotEmpty" {
		t.Errorf("removing a bucket with objects: %s", got)
	}
	gone := make(chan minio.ObjectInfo)
	go func() {
		defer close(gone)
		for o := range c.ListObjects(ctx, "b-1", minio.ListObjectsOptions{WithVersions: true, Recursive: true}) {
			gone <- o
		}
	}()
	for e := range c.RemoveObjects(ctx, "b-1", gone, minio.RemoveObjectsOptions{}) {
		t.Errorf("removing %s: %v", e.ObjectName, e.Err)
	}
	if err := c.RemoveBucket(ctx, "b-1"); err != nil {
		t.Errorf("removing an empty bucket: %v", err)
	}
}

func TestMinioPresignsAndConditions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, ctx := w.minio(t, accessKey, secretKey), t.Context()
	c.MakeBucket(ctx, "b-1", minio.MakeBucketOptions{})
	body := []byte("hello")
	u, err := c.PresignedPutObject(ctx, "b-1", "x y", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	put := func(u *url.URL) int { return w.send(t, "PUT", u.String(), body, nil) }
	if st := put(u); st != 200 {
		t.Fatalf("presigned PUT: %d", st)
	}
	g, _ := c.PresignedGetObject(ctx, "b-1", "x y", time.Minute, url.Values{"response-content-type": {"text/x-y"}})
	resp, err := w.Client().Get(g.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != "hello" || resp.Header.Get("Content-Type") != "text/x-y" {
		t.Errorf("presigned GET: %d %q %v", resp.StatusCode, got, resp.Header)
	}
	if st := w.send(t, "DELETE", g.String(), nil, nil); st != 403 {
		t.Errorf("a URL signed for GET was taken for DELETE: %d", st)
	}
	opts := minio.PutObjectOptions{}
	opts.SetMatchETagExcept("*")
	if _, err := c.PutObject(ctx, "b-1", "x y", bytes.NewReader(body), 5, opts); code(err) != "PreconditionFailed" {
		t.Errorf("If-None-Match: *: %v", err)
	}
	if _, err := c.PutObject(ctx, "b-1", "new", bytes.NewReader(body), 5, opts); err != nil {
		t.Errorf("If-None-Match: * on a new key: %v", err)
	}
	opts = minio.PutObjectOptions{}
	opts.SetMatchETag("5d41402abc4b2a76b9719d911017c592")
	if _, err := c.PutObject(ctx, "b-1", "x y", bytes.NewReader([]byte("other")), 5, opts); err != nil {
		t.Errorf("If-Match: %v", err)
	}
	if _, err := c.PutObject(ctx, "b-1", "x y", bytes.NewReader(body), 5, opts); code(err) != "PreconditionFailed" {
		t.Errorf("If-Match of the one before: %v", err)
	}
}
