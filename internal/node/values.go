package node

import (
	"context"
	"errors"
	"time"

	"github.com/casemate-dev/casemate/internal/bus"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/keyvalue"
	kvsource "github.com/casemate-dev/casemate/internal/source/keyvalue"
)

// How changes of key-value buckets are kept. Who listens and is further behind than the
// log reaches back is alerted.
const (
	changesMaxAge         = 7 * 24 * time.Hour
	changesMaxBytes int64 = 8 << 30
	changesKeep           = 10 * time.Minute // beyond changesMaxBytes, older ones make room
)

// kindKeyValue is the kind of triggers that listen to key-value buckets.
const kindKeyValue = "kv"

// openValues opens the key-value buckets.
func (n *node) openValues(ctx context.Context) error {
	records, err := n.bus.KV(ctx, "keyvalue")
	if err != nil {
		return err
	}
	changes, err := n.bus.Events(ctx, bus.EventsConfig{
		Name: "keyvalue", SubjectPrefix: "keyvalue", MaxAge: changesMaxAge, MaxBytes: changesMaxBytes, Dedup: dedupWindow, Keep: changesKeep,
	})
	if err != nil {
		return err
	}
	n.values, err = keyvalue.Open(ctx, keyvalue.Config{
		KV: records, Log: changeLog{changes}, Clock: n.clock, Logger: n.log.With("from", "keyvalue"),
	})
	return err
}

// changeLog is the bus's events as the key-value store sees them.
type changeLog struct{ on *bus.Events }

func (l changeLog) Publish(ctx context.Context, e keyvalue.Entry) (uint64, error) {
	stored, err := l.on.Publish(ctx, []bus.Entry{bus.Entry(e)})
	if err != nil {
		return 0, err
	}
	return stored[0].Sequence, nil
}

func (l changeLog) Read(ctx context.Context, namespace, channel string, after uint64, fn func(keyvalue.Record) bool) error {
	return l.on.Read(ctx, bus.EventFilter{Namespace: namespace, Channel: channel, After: after}, func(r bus.EventRecord) bool {
		return fn(keyvalue.Record{Namespace: r.Namespace, Channel: r.Channel, Sequence: r.Sequence, Time: r.Time, Data: r.Data})
	})
}

// changedValues is the key-value store as its source sees it.
type changedValues struct{ *keyvalue.Store }

func (v changedValues) Changes(ctx context.Context, namespace, bucket string, after uint64, fn func(kvsource.Change) error) (uint64, error) {
	return v.Store.Changes(ctx, namespace, bucket, after, func(c keyvalue.Change) error {
		return fn(kvsource.Change{
			Key: c.Key, Operation: c.Operation, Revision: c.Revision, Previous: c.Previous, Time: c.Time, By: c.By,
			Expired: c.Expired, Expires: c.Expires, New: (*kvsource.Value)(c.New), Old: (*kvsource.Value)(c.Old),
		})
	})
}

// values is the key-value store as the gateway sees it.
type values struct{ *keyvalue.Store }

func (v values) Get(ctx context.Context, namespace, bucket, key string) (*gateway.StoredValue, error) {
	got, err := v.Store.Get(ctx, namespace, bucket, key)
	if err != nil {
		return nil, refusedValue(err)
	}
	return &gateway.StoredValue{Data: got.Data, ContentType: got.ContentType, Revision: got.Revision, Modified: got.Modified, Expires: got.Expires}, nil
}

func (v values) Put(ctx context.Context, n *gateway.NewValue) (*gateway.StoredValue, error) {
	d, err := v.Store.Put(ctx, &keyvalue.Put{
		Namespace: n.Namespace, Bucket: n.Bucket, Key: n.Key, Data: n.Data, ContentType: n.ContentType, TTL: n.TTL,
		Condition: keyvalue.Condition{Absent: n.Absent, Present: n.Present, OneOf: n.OneOf}, By: n.By,
	})
	if err != nil {
		return nil, refusedValue(err)
	}
	return &gateway.StoredValue{Revision: d.Revision, Expires: d.Expires, Created: d.Created}, nil
}

func (v values) Delete(ctx context.Context, n *gateway.NewValue) (uint64, error) {
	d, err := v.Store.Delete(ctx, n.Namespace, n.Bucket, n.Key, keyvalue.Condition{Absent: n.Absent, Present: n.Present, OneOf: n.OneOf}, n.By)
	if err != nil {
		return 0, refusedValue(err)
	}
	return d.Revision, nil
}

func (v values) Buckets(namespace string) []gateway.ListedBucket {
	all := v.Store.Buckets(namespace)
	out := make([]gateway.ListedBucket, len(all))
	for i, b := range all {
		out[i] = gateway.ListedBucket{Bucket: b.Name, Keys: b.Keys}
	}
	return out
}

func (v values) List(namespace, bucket, prefix, after string, limit int) ([]gateway.ListedValue, bool, error) {
	p, err := v.Store.List(namespace, bucket, prefix, after, limit)
	if err != nil {
		return nil, false, refusedValue(err)
	}
	out := make([]gateway.ListedValue, len(p.Keys))
	for i, k := range p.Keys {
		out[i] = gateway.ListedValue(k)
	}
	return out, p.More, nil
}

// refusedValue gives errors of the store in the gateway's words.
func refusedValue(err error) error {
	for _, f := range []struct {
		is    error
		fault gateway.ValueFault
	}{
		{keyvalue.ErrNoKey, gateway.ValueMissing},
		{keyvalue.ErrCondition, gateway.ValueCondition},
		{keyvalue.ErrBucket, gateway.ValueInvalid},
		{keyvalue.ErrKey, gateway.ValueInvalid},
		{keyvalue.ErrValue, gateway.ValueInvalid},
		{keyvalue.ErrTooLarge, gateway.ValueTooLarge},
		{keyvalue.ErrTooMany, gateway.ValueTooMany},
		{keyvalue.ErrBusy, gateway.ValueBusy},
		{keyvalue.ErrUndecided, gateway.ValueUndecided},
	} {
		if errors.Is(err, f.is) {
			return &gateway.ValueRefusal{Fault: f.fault, Detail: err.Error()}
		}
	}
	return err
}
