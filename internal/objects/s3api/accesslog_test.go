package s3api_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/s3api"
)

// lines is a log in memory.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// all gives the lines with that message.
func (l *lines) all(t testing.TB, message string) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if m["msg"] == message {
			out = append(out, m)
		}
	}
	return out
}

// find gives the one line that has these.
func find(t testing.TB, all []map[string]any, want map[string]any) map[string]any {
	t.Helper()
	for _, m := range all {
		fits := true
		for k, v := range want {
			fits = fits && m[k] == v
		}
		if fits {
			return m
		}
	}
	t.Errorf("no line has %v: %v", want, all)
	return nil
}

func TestEveryRequestIsLoggedAndWhatMattersIsOnRecord(t *testing.T) {
	t.Parallel()
	log := &lines{}
	w := newWorld(t, func(_ *objects.Config, d *s3api.Config) { d.Log = slog.New(slog.NewJSONHandler(log, nil)) })
	ctx := t.Context()
	mine := w.minio(t, accessKey, secretKey)
	mine.MakeBucket(ctx, "photos", minio.MakeBucketOptions{})
	if _, err := mine.PutObject(ctx, "photos", "a/b", strings.NewReader("hello"), 5, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := mine.GetObject(ctx, "photos", "a/b", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	readAll(t, o)
	reader := w.minio(t, readKey, readPass)
	if _, err := reader.PutObject(ctx, "photos", "denied", strings.NewReader("x"), 1, minio.PutObjectOptions{}); code(err) != "AccessDenied" {
		t.Fatal(err)
	}
	if err := w.minio(t, otherKey, otherPass).RemoveBucket(ctx, "photos"); code(err) != "AccessDenied" {
		t.Fatal(err)
	}
	// A stranger, with a signature that is not to be seen, and a name that is not to deceive.
	if status := w.send(t, "GET", w.URL+"/photos/x%0Amsg=audit/cm_0123456789_secret?X-Amz-Signature=feedface", nil, http.Header{"X-Amz-Date": {"planted"}}); status < 400 {
		t.Fatal(status)
	}
	if status := w.send(t, "GET", w.URL+"/photos", nil, nil); status != http.StatusForbidden {
		t.Fatal(status)
	}
	mine.RemoveObject(ctx, "photos", "a/b", minio.RemoveObjectOptions{})
	if err := mine.RemoveBucket(ctx, "photos"); err != nil {
		t.Fatal(err)
	}
	w.Close() // a line comes after its answer

	requests := log.all(t, "request")
	put := find(t, requests, map[string]any{"operation": "PutObject", "status": 200., "path": "/photos/a/b", "principal": "key:" + accessKey, "method": "PUT"})
	if put["bytesIn"] == nil || put["bytesIn"].(float64) < 5 || put["remote"] != "127.0.0.1" || put["id"] == "" {
		t.Errorf("the line of an upload: %v", put)
	}
	if get := find(t, requests, map[string]any{"operation": "GetObject", "status": 200.}); get["bytesOut"] != 5. {
		t.Errorf("the line of a download: %v", get)
	}
	find(t, requests, map[string]any{"operation": "PutObject", "status": 403., "code": "AccessDenied", "principal": "key:" + readKey})
	find(t, requests, map[string]any{"path": "/photos", "status": 403., "principal": "anonymous"})

	audit := log.all(t, "audit")
	for _, want := range []map[string]any{
		{"action": "objects.CreateBucket", "object": "default/photos", "outcome": "ok", "principal": "key:" + accessKey},
		{"action": "objects.DeleteBucket", "object": "default/photos", "outcome": "ok", "principal": "key:" + accessKey},
		{"action": "objects.PutObject", "object": "default/photos/denied", "outcome": "AccessDenied", "principal": "key:" + readKey},
		{"action": "objects.DeleteBucket", "object": "default/photos", "outcome": "AccessDenied", "principal": "key:" + otherKey},
		{"action": "objects.request", "object": "objects", "outcome": "AccessDenied", "principal": "anonymous"},
	} {
		find(t, audit, want)
	}
	for _, m := range audit {
		if m["outcome"] == "ok" && m["action"] != "objects.CreateBucket" && m["action"] != "objects.DeleteBucket" {
			t.Errorf("what is no matter of the record is on it: %v", m)
		}
	}
	if text := log.b.String(); strings.Contains(text, "feedface") || strings.Contains(text, "planted") || strings.Contains(text, "_secret") || strings.Contains(text, secretKey) {
		t.Error("the log shows what it must not")
	}
}
