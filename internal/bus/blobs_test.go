package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/state"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// chunks counts the stored chunks of the bucket.
func chunks(t testing.TB, o *Blobs) int {
	t.Helper()
	info, err := o.stream.Info(context.Background(), jetstream.WithSubjectFilter("blob."+o.bucket+".chunk.>"))
	ok(t, err)
	return len(info.State.Subjects)
}

func TestBlobsKeepWhatTheyAreGiven(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := openBlobs(t, start(t, t.TempDir()))
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 17} {
		name := fmt.Sprintf("sha256:%d/ä.> *", size)
		ok(t, o.Put(ctx, name, iotest.HalfReader(bytes.NewReader(pattern(size)))))
		got, err := o.Get(ctx, name)
		ok(t, err)
		if !bytes.Equal(got, pattern(size)) {
			t.Fatalf("size %d: content differs", size)
		}
		if has, err := o.Has(ctx, name); err != nil || !has {
			t.Fatal(has, err)
		}
	}
	_, err := o.Get(ctx, "absent")
	wantErr(t, err, state.ErrNotFound)
	wantErr(t, o.Delete(ctx, "absent"), state.ErrNotFound)
	if has, err := o.Has(ctx, "absent"); err != nil || has {
		t.Fatal(has, err)
	}
	if err := o.Put(ctx, "", strings.NewReader("x")); err == nil {
		t.Fatal("a blob without a name was taken")
	}
}

func TestBlobReplacedOrDeletedLeavesNoChunks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := openBlobs(t, start(t, t.TempDir()))
	for i := range 3 {
		ok(t, o.Put(ctx, "a", bytes.NewReader(pattern(2*chunkSize+i))))
	}
	if n := chunks(t, o); n != 3 {
		t.Fatalf("%d chunks, want 3", n)
	}
	ok(t, o.Delete(ctx, "a"))
	if n := chunks(t, o); n != 0 {
		t.Fatalf("%d chunks after Delete", n)
	}
	_, err := o.Get(ctx, "a")
	wantErr(t, err, state.ErrNotFound)
	ok(t, o.Put(ctx, "a", strings.NewReader("again")))
	if b, err := o.Get(ctx, "a"); err != nil || string(b) != "again" {
		t.Fatalf("%q, %v", b, err)
	}
}

// The upload breaks off in the middle: the old content stays, nothing new shows.
func TestBlobUploadBrokenOffChangesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := openBlobs(t, start(t, t.TempDir()))
	cause := errors.New("connection reset")
	broken := func() io.Reader {
		return io.MultiReader(bytes.NewReader(pattern(2*chunkSize+5)), iotest.ErrReader(cause))
	}
	wantErr(t, o.Put(ctx, "new", broken()), cause)
	_, err := o.Get(ctx, "new")
	wantErr(t, err, state.ErrNotFound)
	ok(t, o.Put(ctx, "old", strings.NewReader("before")))
	wantErr(t, o.Put(ctx, "old", broken()), cause)
	if b, err := o.Get(ctx, "old"); err != nil || string(b) != "before" {
		t.Fatalf("%q, %v", b, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := o.Put(canceled, "old", bytes.NewReader(pattern(9*chunkSize))); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := chunks(t, o); n != 1 {
		t.Fatalf("%d chunks, want the one of the old content", n)
	}
}

// io.ErrUnexpectedEOF from the reader is a broken upload, not its end.
func TestBlobUploadCutShortIsNotItsEnd(t *testing.T) {
	t.Parallel()
	o := openBlobs(t, start(t, t.TempDir()))
	r := io.MultiReader(bytes.NewReader(pattern(1000)), iotest.ErrReader(io.ErrUnexpectedEOF))
	wantErr(t, o.Put(t.Context(), "a", r), io.ErrUnexpectedEOF)
	_, err := o.Get(t.Context(), "a")
	wantErr(t, err, state.ErrNotFound)
}

// putUntilKilled is the other process of the test below: it stores one blob and
// then half of a second one.
func putUntilKilled(dir string) {
	ctx := context.Background()
	b, err := Start(ctx, Config{Dir: dir, Key: testKey(), Name: "test", Clock: time.Now})
	if err != nil {
		panic(err)
	}
	o, err := b.Blobs(ctx, "artifacts")
	if err != nil {
		panic(err)
	}
	if err := o.Put(ctx, "whole", bytes.NewReader(pattern(chunkSize+1))); err != nil {
		panic(err)
	}
	hang := readerFunc(func([]byte) (int, error) {
		for chunkCount(o) < 5 { // 2 of the whole one and 3 of this one
		}
		_, _ = os.Stdout.WriteString("half\n")
		select {}
	})
	panic(o.Put(ctx, "half", io.MultiReader(bytes.NewReader(pattern(3*chunkSize)), hang)))
}

func chunkCount(o *Blobs) int {
	info, err := o.stream.Info(context.Background(), jetstream.WithSubjectFilter("blob."+o.bucket+".chunk.>"))
	if err != nil {
		return 0
	}
	return len(info.State.Subjects)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBlobUploadKilledLeavesNothingVisibleAndIsSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "CASEMATE_BUS_TEST_PUT="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	line := make([]byte, 5)
	_, err = io.ReadFull(out, line)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || string(line) != "half\n" {
		t.Fatalf("%q, %v", line, err)
	}
	o := openBlobs(t, start(t, dir))
	_, err = o.Get(t.Context(), "half")
	wantErr(t, err, state.ErrNotFound)
	if b, err := o.Get(t.Context(), "whole"); err != nil || !bytes.Equal(b, pattern(chunkSize+1)) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if n := chunks(t, o); n != 2 {
		t.Fatalf("%d chunks, want the 2 of the whole blob", n)
	}
}

// The attacks: a chunk is exchanged for another of the same length, two chunks
// of one blob change places, one is missing, a head is taken from another name.
func TestBlobExchangedPartsAreCorrupt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := start(t, t.TempDir())
	o := openBlobs(t, b)
	raw := func(subject string) []byte {
		m, err := o.stream.GetLastMsgForSubject(ctx, subject)
		ok(t, err)
		return m.Data
	}
	put := func(subject string, data []byte) {
		_, err := b.js.Publish(ctx, subject, data)
		ok(t, err)
	}
	for attack, do := range map[string]func(good, evil head){
		"foreign chunk": func(good, evil head) { put(o.chunkSubject(good.ID, "0"), raw(o.chunkSubject(evil.ID, "0"))) },
		"chunks swapped": func(good, _ head) {
			first, second := raw(o.chunkSubject(good.ID, "0")), raw(o.chunkSubject(good.ID, "1"))
			put(o.chunkSubject(good.ID, "0"), second)
			put(o.chunkSubject(good.ID, "1"), first)
		},
		"chunk missing": func(good, _ head) {
			ok(t, o.stream.Purge(ctx, jetstream.WithPurgeSubject(o.chunkSubject(good.ID, "1"))))
		},
		"foreign head": func(_, _ head) { put(o.headSubject("good"), raw(o.headSubject("evil"))) },
	} {
		ok(t, o.Put(ctx, "good", bytes.NewReader(bytes.Repeat([]byte("good"), chunkSize/2))))
		ok(t, o.Put(ctx, "evil", bytes.NewReader(bytes.Repeat([]byte("evil"), chunkSize/2))))
		good, err := o.head(ctx, "good")
		ok(t, err)
		evil, err := o.head(ctx, "evil")
		ok(t, err)
		do(good, evil)
		if _, err := o.Get(ctx, "good"); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v", attack, err)
		}
	}
}

// Readers meet one whole content or the other while writers replace it.
func TestBlobReadersNeverSeeAMixture(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	o := openBlobs(t, start(t, t.TempDir()))
	content := func(c byte) []byte { return bytes.Repeat([]byte{c}, chunkSize+9) }
	ok(t, o.Put(ctx, "a", bytes.NewReader(content('0'))))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for w := range 2 {
		writers.Go(func() {
			for i := range 10 {
				if err := o.Put(ctx, "a", bytes.NewReader(content(byte('a'+w*10+i)))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			b, err := o.Get(ctx, "a")
			if err != nil || !bytes.Equal(b, content(b[0])) {
				t.Errorf("%d bytes, %v", len(b), err)
				return
			}
		}
	})
	writers.Wait()
	close(done)
	readers.Wait()
}
