package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/s3api"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/folder"
)

// This file puts the node's own object store together: the store, the triggers that hear
// of its changes, and its door, which speaks S3 on a listener of its own.

// Folder is a folder that triggers may watch.
type Folder = folder.Root

const (
	// objectsOpenTime bounds how long the names of all objects may take to read: a
	// million of them take less than a minute.
	objectsOpenTime = 10 * time.Minute
	// sweepEvery is how often memories of removals and unfinished uploads are looked
	// through.
	sweepEvery = time.Hour
)

// startObjects opens the store, unless the node has none, and makes the kind of trigger
// that hears of it.
func (n *node) startObjects(ctx context.Context) error {
	if n.opts.Objects == "" {
		n.buckets = bucket.New(nil)
		return nil
	}
	kv, err := n.bus.KV(ctx, "objects")
	if err != nil {
		return err
	}
	// Each needs the other: the store tells the kind of changes, and the kind asks the
	// store for those that were missed. Neither does before the start has gone on.
	own := &ownBuckets{}
	n.buckets = bucket.New(own)
	opening, cancel := context.WithTimeout(ctx, objectsOpenTime)
	defer cancel()
	n.objects, err = objects.Open(opening, objects.Config{
		Dir: filepath.Join(n.opts.DataDir, "objects"), KV: kv, Key: n.vault.Derive("objects"), Notifier: changes{n.buckets},
		Clock: n.clock, Log: n.log.With("from", "objects"),
	})
	if err != nil {
		return err
	}
	own.store = n.objects
	n.every(ctx, sweepEvery, "sweeping the object store", n.objects.Sweep)
	return nil
}

// buildStoreDoor makes the door of the store.
func (n *node) buildStoreDoor(context.Context) error {
	if n.objects == nil {
		return nil
	}
	door, err := s3api.New(s3api.Config{
		Store: n.objects, Keys: signers{n.keys}, Clock: n.clock, Log: n.log.With("door", "objects"), RequestID: n.ids.next,
		Domains: n.domains(),
	})
	if err != nil {
		return err
	}
	n.objectsServer = door.Server(n.authority.ServerConfig(n.tlsVersion(), identity.Domains(n.opts.Hosts)...))
	return nil
}

// domains are the names that a bucket may stand before, as BUCKET.NAME. All names of the
// node are among them that are no addresses: one may lie below another, and is then no
// bucket. The certificate vouches for buckets of fewer: those that the operator names.
func (n *node) domains() []string {
	var out []string
	for _, name := range n.names() {
		if _, err := netip.ParseAddr(name); err != nil && name != "localhost" {
			out = append(out, name)
		}
	}
	return out
}

// serveObjects opens the store's door, if there is one.
func (n *node) serveObjects(failed chan<- error) {
	if n.objectsServer == nil {
		return
	}
	ln := n.gateway.Listener(n.objectsListener) // bounded, like the others
	go func() {
		if err := n.objectsServer.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serving the object store: %v", err)
		}
	}()
}

// shutObjects closes the door and waits for requests under way until ctx ends, which then
// are cut off: what was not answered was not promised.
func (n *node) shutObjects(ctx context.Context) error {
	if n.objectsServer == nil {
		return nil
	}
	err := n.objectsServer.Shutdown(ctx)
	_ = n.objectsServer.Close() // nothing is left to close when all went well
	return err
}

// objectsURL is where the store is reached, or "" when there is none.
func (n *node) objectsURL() string {
	if n.objectsListener == nil {
		return ""
	}
	return n.url(n.objectsListener)
}

// objectsStatus is the store's part of the status, nil when there is none.
func (n *node) objectsStatus() *api.ObjectStore {
	if n.objects == nil {
		return nil
	}
	s := &api.ObjectStore{URL: n.objectsURL(), Bytes: n.objects.Used("")}
	for _, b := range n.objects.Buckets() {
		s.Buckets++
		s.Objects += int64(b.Objects)
	}
	return s
}

// changes tells triggers what changed in the store (objects.Notifier).
type changes struct{ kind *bucket.Kind }

func (c changes) Changed(ctx context.Context, ch objects.Change) error {
	return c.kind.Changed(ctx, ch.Namespace, object(&ch))
}

// ownBuckets shows the store to triggers (bucket.Own).
type ownBuckets struct{ store *objects.Store }

func (o *ownBuckets) Changes(ctx context.Context, namespace, name string, after uint64, fn func(bucket.Object) error) error {
	err := o.store.Changes(ctx, namespace, name, after, func(c objects.Change) error { return fn(object(&c)) })
	if errors.Is(err, objects.ErrNoBucket) {
		return nil // there is nothing to tell of before it is made
	}
	return err
}

func (o *ownBuckets) Settled() uint64 { return o.store.Settled() }

// object is a change as triggers know it.
func object(c *objects.Change) bucket.Object {
	return bucket.Object{
		Bucket: c.Bucket, Key: c.Key, Size: c.Size, ETag: c.ETag, VersionID: c.VersionID, ContentType: c.ContentType,
		Time: c.Time, Operation: c.Operation, ID: c.ID, By: c.By,
	}
}

// signers are the access keys, as the store's door knows them (s3api.Keys).
type signers struct{ keys *identity.Keys }

func (s signers) SigningKey(accessKey, day, region, service string) ([]byte, s3api.Holder) {
	key, who, ok := s.keys.SigningKey(accessKey, day, region, service)
	if !ok {
		return key, nil
	}
	return key, holder{who}
}

// holder is who holds an access key (s3api.Holder).
type holder struct{ identity.Principal }

// May asks the scopes fetch and store.
func (h holder) May(write bool, namespace, name string) bool {
	action := identity.FetchData
	if write {
		action = identity.StoreData
	}
	return h.Principal.May(action, function.Ref{Namespace: namespace, Name: name})
}
