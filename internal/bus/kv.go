package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/state"
)

// KV keeps small values under keys, with compare-and-set on every change.
type KV struct {
	bus    *Bus
	bucket string
	kv     jetstream.KeyValue
	stream jetstream.Stream // under kv
}

var keyForm = regexp.MustCompile(`^[a-zA-Z0-9_/=-]+(\.[a-zA-Z0-9_/=-]+)*$`)

const maxKey = 512

// operationHeader marks a message that is no value but a deletion (NATS ADR-8).
const operationHeader = "KV-Operation"

// KV opens a bucket, and makes it when it is absent.
func (b *Bus) KV(ctx context.Context, bucket string) (*KV, error) {
	if err := checkName("opening bucket", bucket); err != nil {
		return nil, err
	}
	b.opening.Lock()
	defer b.opening.Unlock()
	if k := b.kvs[bucket]; k != nil {
		return k, nil
	}
	// The stream is made here and not by CreateKeyValue, which would let any
	// replica answer reads: AllowDirect stays off, for read-your-writes.
	st, err := b.stream(ctx, jetstream.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"},
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true,
		MaxMsgSize: maxPayload,
	}, "$KV."+bucket+".>")
	if err != nil {
		return nil, err
	}
	kv, err := b.js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, b.failure("opening bucket "+bucket, err)
	}
	k := &KV{bus: b, bucket: bucket, kv: kv, stream: st}
	b.kvs[bucket] = k
	return k, nil
}

func (k *KV) place(key string) string { return "kv/" + k.bucket + "/" + key }

func checkKey(key string) error {
	if len(key) > maxKey || !keyForm.MatchString(key) {
		return fmt.Errorf("key %.80q: want letters, digits, _ / = - in segments joined by dots, at most %d characters", key, maxKey)
	}
	return nil
}

// Get returns the entry of a key, or state.ErrNotFound.
func (k *KV) Get(ctx context.Context, key string) (state.Entry, error) {
	if err := checkKey(key); err != nil {
		return state.Entry{}, err
	}
	msg, err := k.raw(ctx, "reading", key)
	if err != nil {
		return state.Entry{}, err
	}
	return k.entry(key, msg.Data, msg.Sequence)
}

// raw returns the stored message of a key that has a value.
func (k *KV) raw(ctx context.Context, doing, key string) (*jetstream.RawStreamMsg, error) {
	subject := "$KV." + k.bucket + "." + key
	for again := false; ; again = true {
		msg, err := k.stream.GetLastMsgForSubject(ctx, subject)
		switch {
		case err == nil && msg.Header.Get(operationHeader) != "": // a deletion
			return nil, fmt.Errorf("%s key %s: %w", doing, key, state.ErrNotFound)
		case err == nil:
			return msg, nil
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, k.bus.failure(doing+" key "+key, err)
		}
		// To the server a damaged message is none. The index knows better, and a
		// second look excludes that the key was made in between.
		known, err := exists(ctx, k.stream, subject)
		switch {
		case err != nil:
			return nil, k.bus.failure(doing+" key "+key, err)
		case !known:
			return nil, fmt.Errorf("%s key %s: %w", doing, key, state.ErrNotFound)
		case again:
			return nil, k.bus.corruption("key " + key + " of bucket " + k.bucket)
		}
	}
}

func (k *KV) entry(key string, framed []byte, rev uint64) (state.Entry, error) {
	value, ok := k.bus.seal.open(k.place(key), framed)
	if !ok {
		return state.Entry{}, k.bus.corruption("key " + key + " of bucket " + k.bucket)
	}
	return state.Entry{Key: key, Value: value, Revision: rev}, nil
}

// Create stores the value of a new key and returns its revision, or fails with
// state.ErrConflict when the key has a value.
func (k *KV) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	framed, err := k.ready("creating", key, value)
	if err != nil {
		return 0, err
	}
	// To the server a damaged value is none, and Create would replace it.
	if _, err := k.raw(ctx, "creating", key); err == nil {
		return 0, fmt.Errorf("creating key %s: %w", key, state.ErrConflict)
	} else if !errors.Is(err, state.ErrNotFound) {
		return 0, err
	}
	rev, err := k.kv.Create(ctx, key, framed)
	return rev, k.changed(ctx, "creating", key, err)
}

// Update replaces the value that has the revision and returns the new one's, or
// fails with state.ErrConflict.
func (k *KV) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	framed, err := k.ready("updating", key, value)
	if err != nil {
		return 0, err
	}
	if rev == 0 { // to the server, 0 would mean that no value exists
		return 0, fmt.Errorf("updating key %s: %w", key, state.ErrConflict)
	}
	// A deletion has a revision too, but nobody was ever handed it.
	rev, err = k.kv.Update(ctx, key, framed, rev)
	return rev, k.changed(ctx, "updating", key, err)
}

// Delete removes the value that has the revision. It fails with state.ErrNotFound
// when there is none and with state.ErrConflict when it has moved on.
func (k *KV) Delete(ctx context.Context, key string, rev uint64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	e, err := k.raw(ctx, "deleting", key)
	if err != nil {
		return err
	}
	if rev == 0 || e.Sequence != rev { // to the server, 0 would mean any
		return fmt.Errorf("deleting key %s: %w", key, state.ErrConflict)
	}
	return k.changed(ctx, "deleting", key, k.kv.Delete(ctx, key, jetstream.LastRevision(rev)))
}

func (k *KV) ready(doing, key string, value []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if len(value) > MaxValue {
		return nil, fmt.Errorf("%s key %s: the value has %d bytes, more than %d", doing, key, len(value), MaxValue)
	}
	if err := k.bus.room(doing + " key " + key); err != nil {
		return nil, err
	}
	return k.bus.seal.frame(k.place(key), value), nil
}

func (k *KV) changed(ctx context.Context, doing, key string, err error) error {
	if err == nil {
		k.bus.written(ctx)
		return nil
	}
	var api jetstream.JetStreamError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.APIError() != nil &&
		(api.APIError().ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
			api.APIError().ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return fmt.Errorf("%s key %s: %w", doing, key, state.ErrConflict)
	}
	return k.bus.failure(doing+" key "+key, err)
}

// List returns the entries whose key begins with prefix, in key order. It is not
// a snapshot: a change under way may or may not show. One corrupt value fails the
// whole list with state.ErrCorrupt.
func (k *KV) List(ctx context.Context, prefix string) ([]state.Entry, error) {
	filter := ">"
	if i := strings.LastIndexByte(prefix, '.'); i >= 0 {
		if err := checkKey(prefix[:i]); err != nil {
			return nil, err
		}
		filter = prefix[:i+1] + ">"
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	// The index names the keys and each is read by itself: a scan would leave out
	// damaged messages in silence, and then wait for them.
	subjects := "$KV." + k.bucket + "."
	info, err := k.stream.Info(ctx, jetstream.WithSubjectFilter(subjects+filter))
	if err != nil {
		return nil, k.bus.failure("listing bucket "+k.bucket, err)
	}
	var out []state.Entry
	for subject := range info.State.Subjects {
		key := strings.TrimPrefix(subject, subjects)
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		e, err := k.Get(ctx, key)
		if errors.Is(err, state.ErrNotFound) { // deleted
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing bucket %s: %w", k.bucket, err)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b state.Entry) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}
