package bus

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/state"
)

const (
	chunkSize   = 512 << 10
	chunkAhead  = 4 // chunks on their way to the disk at once
	maxBlobName = 256
	cleanupTime = 10 * time.Second
)

// Blobs keeps large values by name. They are stored in chunks under an id that
// is drawn for each Put, and a head that names the id is written after the last
// chunk is on disk: that one write makes the blob visible. Chunks that no head
// names are what an interrupted Put left, and are removed when the bucket is next
// opened.
//
// This is done here, not by the client library's object store, because that
// sends the head before it knows that the chunks were stored.
type Blobs struct {
	bus    *Bus
	bucket string
	stream jetstream.Stream
	space  sync.Pool // of *[]byte, each for one chunk: most blobs are smaller than that
}

// head is the stored description of a blob. Chunks < 0 marks a deleted one.
type head struct {
	ID     string `json:"id"`
	Size   int64  `json:"size"`
	Chunks int    `json:"chunks"`
}

const deleted = -1

// Blobs opens a bucket, and makes it when it is absent. The first time after the
// start it removes what interrupted Puts left.
func (b *Bus) Blobs(ctx context.Context, bucket string) (*Blobs, error) {
	if err := checkName("opening blobs", bucket); err != nil {
		return nil, err
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	if o := b.blobs[bucket]; o != nil {
		return o, nil
	}
	// Any replica may answer reads (AllowDirect): chunks never change, and one
	// that has not arrived yet is an error, not an old value.
	st, err := b.stream(ctx, jetstream.StreamConfig{
		Name: "BLOB_" + bucket, Subjects: []string{"blob." + bucket + ".>"},
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowDirect: true, MaxMsgSize: maxPayload,
	}, "blob."+bucket+".head.*")
	if err != nil {
		return nil, err
	}
	o := &Blobs{bus: b, bucket: bucket, stream: st}
	o.space.New = func() any {
		b := make([]byte, chunkSize)
		return &b
	}
	if err := o.sweep(ctx); err != nil {
		return nil, err
	}
	b.blobs[bucket] = o
	return o, nil
}

func (o *Blobs) chunkSubject(id, n string) string {
	return "blob." + o.bucket + ".chunk." + id + "." + n
}

// headSubject encodes the name, which may hold any character.
func (o *Blobs) headSubject(name string) string {
	return "blob." + o.bucket + ".head." + base64.RawURLEncoding.EncodeToString([]byte(name))
}

func (o *Blobs) headPlace(name string) string { return "blob/" + o.bucket + "/head/" + name }

// chunkPlace binds a chunk to its blob and its position in it.
func (o *Blobs) chunkPlace(name, id string, n int) string {
	return "blob/" + o.bucket + "/chunk/" + id + "/" + strconv.Itoa(n) + "/" + name
}

func checkBlobName(name string) error {
	if name == "" || len(name) > maxBlobName {
		return fmt.Errorf("blob name %.80q: want 1 to %d bytes", name, maxBlobName)
	}
	return nil
}

// Put stores everything that r yields under the name, in place of what was there.
// Readers see the old content until it returns, and all of the new one after.
// When r fails, nothing changes and the error wraps that of r.
func (o *Blobs) Put(ctx context.Context, name string, r io.Reader) error {
	if err := checkBlobName(name); err != nil {
		return err
	}
	doing := "storing blob " + name
	if err := o.bus.room(doing); err != nil {
		return err
	}
	old, err := o.head(ctx, name)
	if err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	h := head{ID: rand.Text()}
	if err := o.putChunks(ctx, name, &h, r); err != nil {
		o.purge(ctx, h.ID)
		return err
	}
	if err := o.putHead(ctx, name, h); err != nil {
		// The head may have been stored although its acknowledgement was lost; then
		// the chunks must stay. What nobody names is swept at the next start.
		now, again := o.head(context.WithoutCancel(ctx), name)
		if again == nil && now.ID == h.ID {
			return nil
		}
		if again == nil || errors.Is(again, state.ErrNotFound) {
			o.purge(ctx, h.ID)
		}
		return err
	}
	if old.ID != "" {
		o.purge(ctx, old.ID)
	}
	return nil
}

// putChunks returns when every chunk is on disk. When it fails, no chunk is on
// its way any more, so that a purge that follows finds them all.
func (o *Blobs) putChunks(ctx context.Context, name string, h *head, r io.Reader) (err error) {
	doing := "storing blob " + name
	var ahead []jetstream.PubAckFuture
	defer func() {
		if err != nil {
			landed(context.WithoutCancel(ctx), ahead)
		}
	}()
	settle := func(keep int) error {
		for ; len(ahead) > keep; ahead = ahead[1:] {
			select {
			case <-ahead[0].Ok():
			case err := <-ahead[0].Err():
				ahead = ahead[1:] // it says so only once
				return o.bus.failure(doing, err)
			case <-ctx.Done():
				return o.bus.failure(doing, ctx.Err())
			}
		}
		return nil
	}
	space := o.space.Get().(*[]byte)
	defer o.space.Put(space) // each chunk is copied when it is framed
	buf := *space
	for {
		n, err := fill(r, buf)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return fmt.Errorf("%s: reading its content: %w", doing, err)
		}
		if n > 0 {
			msg := nats.NewMsg(o.chunkSubject(h.ID, strconv.Itoa(h.Chunks)))
			msg.Data = o.bus.seal.frame(o.chunkPlace(name, h.ID, h.Chunks), buf[:n])
			ack, err := o.bus.js.PublishMsgAsync(msg)
			if err != nil {
				return o.bus.failure(doing, err)
			}
			ahead = append(ahead, ack)
			h.Size += int64(n)
			h.Chunks++
		}
		if last {
			return settle(0)
		}
		if err := settle(chunkAhead); err != nil {
			return err
		}
		if err := o.bus.room(doing); err != nil {
			return err
		}
	}
}

// landed waits, for a bounded time, until each was stored or refused.
func landed(ctx context.Context, acks []jetstream.PubAckFuture) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			_ = err // refused, so it is not on its way any more
		case <-ctx.Done():
			return // what still comes is swept at the next start
		}
	}
}

// fill reads until buf is full or r ends. Unlike io.ReadFull it tells the end of
// r from an io.ErrUnexpectedEOF of r's own, as of a request body cut short.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

func (o *Blobs) putHead(ctx context.Context, name string, h head) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("storing blob %s: %v", name, err)
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	_, err = o.bus.js.Publish(ctx, o.headSubject(name), o.bus.seal.frame(o.headPlace(name), b))
	if err != nil {
		return o.bus.failure("storing blob "+name, err)
	}
	o.bus.written(ctx)
	return nil
}

func (o *Blobs) head(ctx context.Context, name string) (head, error) {
	if err := checkBlobName(name); err != nil {
		return head{}, err
	}
	msg, err := o.stream.GetLastMsgForSubject(ctx, o.headSubject(name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		// As in KV: the server calls a damaged message none, the index tells.
		known, unknown := exists(ctx, o.stream, o.headSubject(name))
		if unknown != nil {
			return head{}, o.bus.failure("reading blob "+name, unknown)
		}
		if !known {
			return head{}, fmt.Errorf("reading blob %s: %w", name, state.ErrNotFound)
		}
		if msg, err = o.stream.GetLastMsgForSubject(ctx, o.headSubject(name)); errors.Is(err, jetstream.ErrMsgNotFound) {
			return head{}, o.bus.corruption("the head of blob " + name)
		}
	}
	if err != nil {
		return head{}, o.bus.failure("reading blob "+name, err)
	}
	h, err := o.openHead(name, msg.Data)
	if err == nil && h.Chunks == deleted {
		err = fmt.Errorf("reading blob %s: %w", name, state.ErrNotFound)
	}
	return h, err
}

func (o *Blobs) openHead(name string, framed []byte) (h head, err error) {
	b, ok := o.bus.seal.open(o.headPlace(name), framed)
	if !ok || json.Unmarshal(b, &h) != nil {
		return head{}, o.bus.corruption("the head of blob " + name)
	}
	return h, nil
}

// Get returns the content of a blob, state.ErrNotFound, or state.ErrCorrupt when
// any part of it is missing or changed.
func (o *Blobs) Get(ctx context.Context, name string) ([]byte, error) {
	h, err := o.head(ctx, name)
	for err == nil {
		var b []byte
		b, err = o.content(ctx, name, h)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, errMissing) {
			return nil, err
		}
		// A Put or Delete may have replaced the blob under our hands.
		var now head
		if now, err = o.head(ctx, name); err == nil && now.ID == h.ID {
			return nil, o.bus.corruption("blob " + name + ", of which a part is missing")
		}
		h = now
	}
	return nil, err
}

var errMissing = errors.New("a chunk is missing")

func (o *Blobs) content(ctx context.Context, name string, h head) ([]byte, error) {
	out := make([]byte, 0, h.Size)
	for n := range h.Chunks {
		msg, err := o.stream.GetLastMsgForSubject(ctx, o.chunkSubject(h.ID, strconv.Itoa(n)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, errMissing
		}
		if err != nil {
			return nil, o.bus.failure("reading blob "+name, err)
		}
		b, ok := o.bus.seal.open(o.chunkPlace(name, h.ID, n), msg.Data)
		if !ok {
			return nil, o.bus.corruption("blob " + name)
		}
		out = append(out, b...)
	}
	if int64(len(out)) != h.Size {
		return nil, o.bus.corruption("blob " + name)
	}
	return out, nil
}

// Has reports whether a blob is there, without reading its content.
func (o *Blobs) Has(ctx context.Context, name string) (bool, error) {
	_, err := o.head(ctx, name)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes a blob, or fails with state.ErrNotFound. It needs no free space.
func (o *Blobs) Delete(ctx context.Context, name string) error {
	h, err := o.head(ctx, name)
	if err != nil {
		return err
	}
	// The head goes first, by a write that is durable; purging is not.
	if err := o.putHead(ctx, name, head{ID: h.ID, Chunks: deleted}); err != nil {
		return err
	}
	o.purge(ctx, h.ID)
	return nil
}

// purge removes chunks that no head names any more. It goes on when the caller
// has given up; what it cannot remove is swept at the next start.
func (o *Blobs) purge(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := o.stream.Purge(ctx, jetstream.WithPurgeSubject(o.chunkSubject(id, "*"))); err != nil {
		o.bus.log.Warn("removing chunks of a blob", "bucket", o.bucket, "error", err)
	}
}

// sweep removes chunks that no head names. A head that cannot be read fails it
// not: then nothing is removed, since the chunks may be that head's.
func (o *Blobs) sweep(ctx context.Context) error {
	doing := "sweeping blobs of " + o.bucket
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter("blob."+o.bucket+".>"))
	if err != nil {
		return o.bus.failure(doing, err)
	}
	headPrefix, chunkPrefix := o.headSubject(""), o.chunkSubject("", "")
	chunkPrefix = strings.TrimSuffix(chunkPrefix, ".") // "blob.bucket.chunk."
	named, orphans := map[string]bool{}, map[string]bool{}
	for subject := range info.State.Subjects {
		enc, ok := strings.CutPrefix(subject, headPrefix)
		if !ok {
			continue
		}
		name, err := base64.RawURLEncoding.DecodeString(enc)
		if err != nil {
			continue
		}
		h, err := o.head(ctx, string(name))
		switch {
		case err == nil:
			named[h.ID] = true
		case errors.Is(err, ErrCorrupt):
			return nil
		case !errors.Is(err, state.ErrNotFound):
			return err
		}
	}
	for subject := range info.State.Subjects {
		if rest, ok := strings.CutPrefix(subject, chunkPrefix); ok {
			if id, _, _ := strings.Cut(rest, "."); !named[id] {
				orphans[id] = true
			}
		}
	}
	for id := range orphans {
		o.purge(ctx, id)
	}
	if len(orphans) > 0 {
		o.bus.log.Info("removed what interrupted uploads left", "bucket", o.bucket, "uploads", len(orphans))
	}
	return nil
}
