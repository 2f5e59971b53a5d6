package bucket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/objectstest"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// own adapts the store as the node does.
type own struct{ *objects.Store }

func plain(c objects.Change) bucket.Object {
	return bucket.Object{
		Bucket: c.Bucket, Key: c.Key, Size: c.Size, ETag: c.ETag, VersionID: c.VersionID, ContentType: c.ContentType,
		Time: c.Time, Operation: c.Operation, ID: c.ID, By: c.By,
	}
}

func (o *own) Changes(ctx context.Context, ns, b string, after uint64, fn func(bucket.Object) error) error {
	return o.Store.Changes(ctx, ns, b, after, func(c objects.Change) error { return fn(plain(c)) })
}

type notifier struct{ kind *bucket.Kind }

func (n *notifier) Changed(ctx context.Context, c objects.Change) error {
	return n.kind.Changed(ctx, c.Namespace, plain(c))
}

type world struct {
	t     *testing.T
	store *objects.Store
	kind  *bucket.Kind
	sink  *servertest.Sink
	keep  *servertest.Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	n := &notifier{}
	s, err := objects.Open(t.Context(), objects.Config{
		Dir: t.TempDir(), KV: objectstest.NewKV(), Key: make([]byte, 32), Notifier: n, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.kind = bucket.New(&own{s})
	for _, ns := range []string{"default", "other"} {
		if err := s.CreateBucket(t.Context(), ns, "pics", "me"); err != nil {
			t.Fatal(err)
		}
	}
	return &world{t, s, n.kind, &servertest.Sink{}, &servertest.Store{}}
}

// run listens, and returns when it does. stop gives what Run ended with.
func (w *world) run(settings string, connection *source.Connection) (stop func() error) {
	w.t.Helper()
	t := function.Trigger{Name: "t", Kind: "bucket", Settings: json.RawMessage(settings)}
	if connection != nil {
		t.Connection = connection.Name
	}
	if err := w.kind.Check(&t); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	health := &servertest.Health{}
	done := make(chan error, 1)
	go func() {
		done <- w.kind.Run(ctx, source.Binding{
			Ref: function.Ref{Namespace: "default", Name: "f"}, Trigger: t, Connection: connection, Sink: w.sink, Store: w.keep,
			Log: slog.New(slog.DiscardHandler), Clock: time.Now, Report: health.Report,
		})
	}()
	health.Wait(w.t, 0, source.Running)
	return func() error {
		cancel()
		return <-done
	}
}

func (w *world) put(ns, key, contentType, body string) error {
	_, err := w.store.Put(w.t.Context(), &objects.Put{
		Namespace: ns, Bucket: "pics", Key: key, Body: strings.NewReader(body), Size: int64(len(body)), Operation: objects.OpPut,
		Attributes: objects.Attributes{ContentType: contentType}, By: "key:me",
	})
	return err
}

func (w *world) remove(key string) {
	w.t.Helper()
	if _, err := w.store.Delete(w.t.Context(), "default", "pics", key, "", objects.Condition{}, "me"); err != nil {
		w.t.Fatal(err)
	}
}

func got(list []event.Message) string {
	var out []string
	for _, m := range list {
		out = append(out, strings.TrimPrefix(m.Type, "casemate.object.")+" "+m.Subject)
	}
	return strings.Join(out, ", ")
}

func TestOwnBucketTellsBeforeItAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.put("default", "in/before.png", "image/png", "x"); err != nil {
		t.Fatal(err)
	}
	stop := w.run(`{"bucket":"pics","prefix":"in/","suffix":".png","minSize":2,"maxSize":4,"types":["image/*"],"removed":true}`, nil)
	for _, o := range [][4]string{
		{"default", "in/a.png", "image/png", "abc"},
		{"default", "out/a.png", "image/png", "abc"},
		{"default", "in/a.txt", "image/png", "abc"},
		{"default", "in/small.png", "image/png", "a"},
		{"default", "in/large.png", "image/png", "abcde"},
		{"default", "in/text.png", "text/plain", "abc"},
		{"other", "in/b.png", "image/png", "abc"},
	} {
		if err := w.put(o[0], o[1], o[2], o[3]); err != nil {
			t.Fatal(err)
		}
	}
	w.remove("in/a.png")
	// All of this is there at once: it was accepted before Put and Delete returned.
	list := w.sink.Events()
	if got(list) != "created pics/in/a.png, removed pics/in/a.png" {
		t.Fatalf("got %s", got(list))
	}
	var o bucket.Object
	if err := json.Unmarshal(list[0].Data, &o); err != nil || o.Key != "in/a.png" || o.Size != 3 || o.Operation != objects.OpPut || o.ContentType != "image/png" {
		t.Errorf("data %s, %v", list[0].Data, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestForgottenTriggerBeginsAnew: what came while there was no trigger is nobody's.
func TestForgottenTriggerBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const settings = `{"bucket":"pics"}`
	if err := w.run(settings, nil)(); err != nil {
		t.Fatal(err)
	}
	if err := w.kind.Forget(t.Context(), source.Binding{Store: w.keep}); err != nil {
		t.Fatal(err)
	}
	if err := w.put("default", "between", "", "1"); err != nil {
		t.Fatal(err)
	}
	stop := w.run(settings, nil)
	if err := w.put("default", "after", "", "1"); err != nil {
		t.Fatal(err)
	}
	if s := got(w.sink.Events()); s != "created pics/after" {
		t.Errorf("got %s", s)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestOwnBucketTellsWhatWasMissed stops listening, or refuses, and looks whether all
// comes afterwards, under the ids that it had.
func TestOwnBucketTellsWhatWasMissed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const settings = `{"bucket":"pics","removed":true}`
	stop := w.run(settings, nil)
	w.put("default", "a", "", "1")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.put("default", "b", "", "1")
	w.put("default", "c", "", "1")
	w.remove("c")
	w.remove("a")
	stop = w.run(settings, nil)
	if s := got(w.sink.Events()); s != "created pics/a, removed pics/a, created pics/b, removed pics/c" {
		t.Fatalf("got %s", s)
	}
	w.sink.SetBefore(func(context.Context, []event.Message) error { return errors.New("the disk is full") })
	var notify *objects.NotifyError
	if err := w.put("default", "d", "", "1"); !errors.As(err, &notify) {
		t.Fatalf("an event that was not taken: %v", err)
	}
	if err := stop(); err != nil && !strings.Contains(err.Error(), "not taken") {
		t.Fatal(err)
	}
	w.sink.SetBefore(nil)
	stop = w.run(settings, nil)
	if s := got(w.sink.Events()); !strings.HasSuffix(s, "created pics/d") || strings.Count(s, "pics/d") != 1 {
		t.Errorf("got %s", s)
	}
	stop()
}

func TestLongAndOddKeysMakeValidEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stop := w.run(`{"bucket":"pics"}`, nil)
	defer stop()
	for _, key := range []string{strings.Repeat("x", 1024), "漢字 \u0085 x", "a\u009fb"} {
		if err := w.put("default", key, "", "1"); err != nil {
			t.Fatal(err)
		}
		list := w.sink.Events() // which panics when an event is not valid
		var o bucket.Object
		if json.Unmarshal(list[len(list)-1].Data, &o); o.Key != key {
			t.Errorf("key %.20q came as %.20q", key, o.Key)
		}
	}
}

func TestPollingABucketOfAnotherServer(t *testing.T) {
	t.Parallel()
	moto := "http://" + servertest.Local(servertest.StartMoto(t).Port)
	c, err := minio.New(strings.TrimPrefix(moto, "http://"), &minio.Options{Creds: credentials.NewStaticV4("id", "secret", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := servertest.Eventually(ctx, func(ctx context.Context) error {
		return c.MakeBucket(ctx, "far", minio.MakeBucketOptions{})
	}); err != nil {
		t.Fatal(err)
	}
	put := func(key, contentType, body string) {
		t.Helper()
		if _, err := c.PutObject(ctx, "far", key, bytes.NewReader([]byte(body)), int64(len(body)), minio.PutObjectOptions{ContentType: contentType}); err != nil {
			t.Fatal(err)
		}
	}
	put("in/old.csv", "text/csv", "old")
	w := newWorld(t)
	settings, _ := json.Marshal(bucket.ConnectionSettings{Endpoint: moto, PathStyle: true, Plain: true})
	far := &source.Connection{Namespace: "default", Name: "far", Kind: "s3", Settings: settings, Secret: func(name string) ([]byte, error) {
		if name == "ca" {
			return nil, errors.New("there is none")
		}
		return []byte("x\n"), nil
	}}
	const trigger = `{"bucket":"far","prefix":"in/","types":["text/*"],"intervalNanos":1000000000}`
	stop := w.run(trigger, far)
	put("in/a b+ü.csv", "text/csv; charset=utf-8", "one")
	put("in/b.bin", "application/x", "no")
	put("out/c.csv", "text/csv", "no")
	w.sink.Different(t, 1)
	put("in/a b+ü.csv", "text/csv", "two")
	w.sink.Different(t, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		put(fmt.Sprintf("in/more-%d", i), "text/x", "3")
	}
	stop = w.run(trigger, far) // its first round is over when it returns
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	const want = "created far/in/a b+ü.csv, created far/in/a b+ü.csv, created far/in/more-0, created far/in/more-1, created far/in/more-2, created far/in/more-3, created far/in/more-4"
	if s := got(w.sink.Events()); s != want {
		t.Errorf("got %s", s)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct{ connection, settings, field string }{
		{"", `{}`, "bucket"},
		{"", `{"bucket":"other.pics"}`, "bucket"}, // of another namespace
		{"", `{"bucket":"../pics"}`, "bucket"},
		{"", `{"bucket":"pics","intervalNanos":1000000000}`, "intervalNanos"},
		{"c", `{"bucket":"pics","intervalNanos":1}`, "intervalNanos"},
		{"c", `{"bucket":"pics","removed":true}`, "removed"},
		{"c", `{"bucket":"pics","types":["["]}`, "types"},
		{"c", `{"bucket":"pics","minSize":3,"maxSize":2}`, "maxSize"},
		{"c", `{"bucket":"pics","namespace":"other"}`, "namespace"},
	} {
		var fe *source.FieldError
		err := w.kind.Check(&function.Trigger{Connection: tc.connection, Settings: json.RawMessage(tc.settings)})
		if !errors.As(err, &fe) || fe.Field != tc.field {
			t.Errorf("%s: got %v, want an error of %s", tc.settings, err, tc.field)
		}
	}
	if err := bucket.New(nil).Check(&function.Trigger{Settings: json.RawMessage(`{"bucket":"pics"}`)}); err == nil {
		t.Error("a node without a store took a bucket of it")
	}
	both := []string{"accessKey", "secretKey"}
	for settings, field := range map[string]string{
		`{"endpoint":"http://s3.test"}`:                    "endpoint",
		`{"endpoint":"https://user:pass@s3.test"}`:         "endpoint",
		`{"endpoint":"https://s3.test/path"}`:              "endpoint",
		`{"endpoint":"file:///etc/passwd","plain":true}`:   "endpoint",
		`{"endpoint":"https://s3.test","secretKey":"abc"}`: "secretKey",
	} {
		var fe *source.FieldError
		if err := (bucket.ConnectionKind{}).CheckConnection(json.RawMessage(settings), both); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v, want an error of %s", settings, err, field)
		}
	}
	if err := (bucket.ConnectionKind{}).CheckConnection(json.RawMessage(`{"endpoint":"https://s3.test"}`), both); err != nil {
		t.Error(err)
	}
	if err := (bucket.ConnectionKind{}).CheckConnection(json.RawMessage(`{"endpoint":"https://s3.test"}`), both[:1]); err == nil {
		t.Error("a connection without secretKey was accepted")
	}
}
