package gateway

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

// valuesPath begins the paths of key-value buckets, in each namespace; the bucket follows,
// and then the key.
const valuesPath = reservedPrefix + "/kv/"

// Bounds of the requests.
const (
	maxValue      = 1 << 20 // bytes
	defaultListed = 100
	maxListed     = 1000
	maxTags       = 32 // entity tags in one header
)

// headerExpires says until when a value stays.
const headerExpires = "Casemate-Expires"

// Values are the platform's key-value buckets. They check names and keys, and fail with a
// *ValueRefusal, state.ErrFull or state.ErrCorrupt.
type Values interface {
	Get(ctx context.Context, namespace, bucket, key string) (*StoredValue, error)
	// Put and Delete return when the change is on disk.
	Put(ctx context.Context, v *NewValue) (*StoredValue, error)
	Delete(ctx context.Context, v *NewValue) (revision uint64, err error)
	// List gives keys behind after, and whether there are more.
	List(namespace, bucket, prefix, after string, limit int) (keys []ListedValue, more bool, err error)
	// Buckets gives those that there are, by name.
	Buckets(namespace string) []ListedBucket
}

// NewValue is a value to be stored, or the key of one that is to go.
type NewValue struct {
	Namespace, Bucket, Key string
	Data                   []byte
	ContentType            string
	TTL                    time.Duration // 0: it stays

	// What must hold of the key before.
	Absent  bool
	Present bool
	OneOf   []uint64 // if not nil, the revisions it may have

	By string // who does it
}

// StoredValue is a value as it is stored.
type StoredValue struct {
	Data        []byte // not after Put
	ContentType string
	Revision    uint64
	Modified    time.Time
	Expires     time.Time // zero: never
	Created     bool      // after Put: there was none before
}

// ListedValue is what a list says of a value.
type ListedValue struct {
	Key      string    `json:"key"`
	Revision uint64    `json:"revision"`
	Size     int       `json:"size"`
	Expires  time.Time `json:"expires,omitzero"`
}

// ListedBucket is what a list says of a bucket.
type ListedBucket struct {
	Bucket string `json:"bucket"`
	Keys   int    `json:"keys"`
}

// ValueFault is a kind of refusal.
type ValueFault int

// The faults.
const (
	ValueMissing   ValueFault = iota + 1 // there is no such key
	ValueCondition                       // a condition does not hold
	ValueInvalid                         // the key, or what is stored with it, breaks a rule
	ValueTooLarge
	ValueTooMany   // keys or buckets
	ValueBusy      // too much is changed at once
	ValueUndecided // the change may have been made
)

// ValueRefusal is why a value was not read or changed. Its reader may see Detail.
type ValueRefusal struct {
	Fault  ValueFault
	Detail string
}

func (e *ValueRefusal) Error() string { return "value refused: " + e.Detail }

// routeValue finds the bucket, and the key if one is meant. Whether there is one is asked
// when it is known who asks.
func (g *Gateway) routeValue(x *exchange, namespace, rest string) error {
	bucket, key, one := strings.Cut(rest, "/")
	if g.values == nil || rest != "" && !function.ValidName(bucket) || one && key == "" {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	allow, pattern := "GET, HEAD", valuesPath+"{bucket}"
	if rest == "" {
		pattern = valuesPath
	}
	if one {
		allow, pattern = "GET, HEAD, PUT, DELETE", valuesPath+"{bucket}/{key...}"
	}
	e := &endpoint{kind: toValue, ref: function.Ref{Namespace: namespace, Name: bucket}, key: key}
	switch method := x.r.Method; {
	case method == http.MethodGet, method == http.MethodHead, one && method == http.MethodDelete:
	case one && method == http.MethodPut:
		e.bodyLimit = maxValue
	default:
		x.setHeader("Allow", allow)
		return problem.New(problem.MethodNotAllowed, "this path is served for other methods").At("method")
	}
	e.route = x.r.Method + " " + pattern
	x.namespace, x.target = namespace, e
	return nil
}

// mayValue refuses who may not, in the same words whether or not there is something.
func (x *exchange) mayValue(p identity.Principal) error {
	action := identity.FetchData
	if x.r.Method == http.MethodPut || x.r.Method == http.MethodDelete {
		action = identity.StoreData
	}
	if x.target.ref.Name == "" || p.May(action, x.target.ref) { // a list of buckets has those that the key may read
		return nil
	}
	return problem.New(problem.Forbidden, "the credential does not allow this in this bucket").Fix("Use a key with the scope %s:%s.", action, x.target.ref)
}

// serveValue reads, lists and changes.
func (g *Gateway) serveValue(x *exchange) error {
	switch {
	case x.target.ref.Name == "":
		return g.listBuckets(x)
	case x.target.key == "":
		return g.listValues(x)
	case x.r.Method == http.MethodPut:
		return g.putValue(x)
	case x.r.Method == http.MethodDelete:
		return g.deleteValue(x)
	default:
		return g.getValue(x)
	}
}

func (g *Gateway) getValue(x *exchange) error {
	if _, err := x.parameters(); err != nil {
		return err
	}
	match, err := x.tags("If-Match")
	if err != nil {
		return err
	}
	none, err := x.tags("If-None-Match")
	if err != nil {
		return err
	}
	v, err := g.values.Get(x.r.Context(), x.target.ref.Namespace, x.target.ref.Name, x.target.key)
	if err != nil {
		return valueProblem(err)
	}
	if match.given && !match.has(v.Revision) {
		return valueProblem(&ValueRefusal{Fault: ValueCondition})
	}
	g.describeValue(x, v)
	if none.given && none.has(v.Revision) {
		g.sendOwn(x, http.StatusNotModified, "", nil)
		return nil
	}
	// What is stored is anybody's, and shares its origin with functions and their pages.
	x.setHeader("Content-Security-Policy", "default-src 'none'; sandbox")
	contentType := v.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	g.sendOwn(x, http.StatusOK, contentType, v.Data)
	return nil
}

func (g *Gateway) describeValue(x *exchange, v *StoredValue) {
	x.setHeader("Etag", tag(v.Revision))
	if !v.Modified.IsZero() {
		x.setHeader("Last-Modified", v.Modified.UTC().Format(http.TimeFormat))
	}
	if !v.Expires.IsZero() {
		x.setHeader(headerExpires, v.Expires.UTC().Format(time.RFC3339Nano))
	}
}

// valueChanged is the answer to a change.
type valueChanged struct {
	Bucket   string    `json:"bucket"`
	Key      string    `json:"key"`
	Revision uint64    `json:"revision"`
	Expires  time.Time `json:"expires,omitzero"`
}

func (g *Gateway) putValue(x *exchange) error {
	v, err := x.newValue("ttl")
	if err != nil {
		return err
	}
	v.Data = x.body
	if types := x.r.Header["Content-Type"]; len(types) > 0 {
		// Only what is well formed is given back to others.
		if _, _, err := mime.ParseMediaType(types[0]); err != nil || len(types) > 1 {
			return problem.New(problem.InvalidHeader, "the content type is malformed").At("Content-Type")
		}
		v.ContentType = types[0]
	}
	stored, err := g.values.Put(x.r.Context(), v)
	if err != nil {
		return valueProblem(err)
	}
	status := http.StatusOK
	if stored.Created {
		status = http.StatusCreated
	}
	g.describeValue(x, stored)
	return g.sendOwnJSON(x, status, valueChanged{v.Bucket, v.Key, stored.Revision, stored.Expires})
}

func (g *Gateway) deleteValue(x *exchange) error {
	v, err := x.newValue()
	if err != nil {
		return err
	}
	rev, err := g.values.Delete(x.r.Context(), v)
	if err != nil {
		return valueProblem(err)
	}
	return g.sendOwnJSON(x, http.StatusOK, valueChanged{Bucket: v.Bucket, Key: v.Key, Revision: rev})
}

// newValue reads what a change says beside the value.
func (x *exchange) newValue(known ...string) (*NewValue, error) {
	parameters, err := x.parameters(known...)
	if err != nil {
		return nil, err
	}
	match, err := x.tags("If-Match")
	if err != nil {
		return nil, err
	}
	none, err := x.tags("If-None-Match")
	if err != nil {
		return nil, err
	}
	if none.given && !none.any {
		return nil, problem.New(problem.InvalidHeader, "for a change it can only be *").At("If-None-Match")
	}
	v := &NewValue{
		Namespace: x.target.ref.Namespace, Bucket: x.target.ref.Name, Key: x.target.key,
		Absent: none.any, Present: match.any, OneOf: match.revisions, By: x.principal.String(),
	}
	if match.given && !match.any && v.OneOf == nil {
		v.OneOf = []uint64{} // none of ours: it never holds
	}
	if ttl, given := parameters["ttl"]; given {
		seconds, err := strconv.ParseUint(ttl, 10, 31)
		if err != nil || seconds == 0 {
			return nil, problem.New(problem.BadRequest, "the time to live must be a number of seconds").At("ttl")
		}
		v.TTL = time.Duration(seconds) * time.Second //nolint:gosec // 31 bits
	}
	return v, nil
}

func (g *Gateway) listValues(x *exchange) error {
	p, err := x.parameters("prefix", "after", "limit")
	if err != nil {
		return err
	}
	limit := uint64(defaultListed)
	if text, given := p["limit"]; given {
		if limit, err = strconv.ParseUint(text, 10, 31); err != nil || limit == 0 || limit > maxListed {
			return problem.New(problem.BadRequest, "it must be 1 to %d", maxListed).At("limit")
		}
	}
	keys, more, err := g.values.List(x.target.ref.Namespace, x.target.ref.Name, p["prefix"], p["after"], int(limit)) //nolint:gosec // at most maxListed
	if err != nil {
		return valueProblem(err)
	}
	out := struct {
		Keys []ListedValue `json:"keys"`
		Next string        `json:"next,omitempty"` // to be sent as after
	}{Keys: keys}
	if keys == nil {
		out.Keys = []ListedValue{}
	}
	if more && len(keys) > 0 {
		out.Next = keys[len(keys)-1].Key
	}
	return g.sendOwnJSON(x, http.StatusOK, out)
}

// listBuckets shows the buckets that the key may read; of others nobody learns that they
// are there.
func (g *Gateway) listBuckets(x *exchange) error {
	if _, err := x.parameters(); err != nil {
		return err
	}
	namespace := x.target.ref.Namespace
	out := struct {
		Buckets []ListedBucket `json:"buckets"`
	}{[]ListedBucket{}}
	for _, b := range g.values.Buckets(namespace) {
		if x.principal.May(identity.FetchData, function.Ref{Namespace: namespace, Name: b.Bucket}) {
			out.Buckets = append(out.Buckets, b)
		}
	}
	return g.sendOwnJSON(x, http.StatusOK, out)
}

// parameters reads the query. Each must be known and given once: a misspelt condition
// that is passed over would be worse than an error.
func (x *exchange) parameters(known ...string) (map[string]string, error) {
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return nil, problem.New(problem.BadRequest, "the query is malformed").At("query")
	}
	out := make(map[string]string, len(known))
	for _, name := range known {
		if v := q[name]; len(v) == 1 {
			out[name] = v[0]
		} else if len(v) > 1 {
			return nil, problem.New(problem.BadRequest, "it is given more than once").At(name)
		}
		delete(q, name)
	}
	for name := range q {
		return nil, problem.New(problem.BadRequest, "the query has a parameter that means nothing here").At(clipped(name))
	}
	return out, nil
}

// tags is a list of entity tags (RFC 9110, section 8.8.3).
type tags struct {
	given     bool
	any       bool // *
	revisions []uint64
}

func (t *tags) has(rev uint64) bool {
	for _, r := range t.revisions {
		if r == rev {
			return true
		}
	}
	return t.any
}

func tag(rev uint64) string { return `"` + strconv.FormatUint(rev, 10) + `"` }

// tags reads a condition. Tags that are none of ours, weak ones among them, are left out:
// they fit nothing.
func (x *exchange) tags(header string) (t tags, err error) {
	malformed := problem.New(problem.InvalidHeader, `it must be * or a list of entity tags such as "12"`).At(header)
	for _, line := range x.r.Header[header] {
		for text := range strings.SplitSeq(line, ",") {
			text = strings.Trim(text, " \t")
			switch {
			case text == "" || t.any || len(t.revisions) >= maxTags:
				return tags{}, malformed
			case text == "*" && !t.given:
				t.any = true
			case len(strings.TrimPrefix(text, "W/")) < 2 || text[len(text)-1] != '"' || strings.TrimPrefix(text, "W/")[0] != '"':
				return tags{}, malformed
			default:
				rev, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 64)
				if err == nil && text == tag(rev) {
					t.revisions = append(t.revisions, rev)
				}
			}
			t.given = true
		}
	}
	return t, nil
}

// valueProblem gives what the store fails with a public face.
func valueProblem(err error) error {
	var refused *ValueRefusal
	switch {
	case errors.Is(err, state.ErrFull):
		return problem.New(problem.StorageFull, "no more values are taken in for now").Because(err)
	case errors.Is(err, state.ErrCorrupt):
		return problem.New(problem.Internal, "the value cannot be read").Because(err)
	case !errors.As(err, &refused):
		return problem.From(err)
	}
	detail := clipped(refused.Detail)
	switch refused.Fault {
	case ValueMissing:
		return problem.New(problem.NotFound, "there is no such key")
	case ValueCondition:
		return problem.New(problem.Precondition, "the condition does not hold").Fix("Read the key again and send its ETag.")
	case ValueInvalid:
		return problem.New(problem.BadRequest, "%s", detail).At("key")
	case ValueTooLarge:
		return problem.New(problem.BodyTooLarge, "%s", detail).At("body").Fix("Send less.")
	case ValueTooMany:
		return problem.New(problem.StorageFull, "%s", detail).Fix("Delete keys that nobody needs.")
	case ValueBusy:
		return problem.New(problem.TooManyRequests, "%s", detail).Fix("Wait for the time in Retry-After, then try again.").After(time.Second)
	case ValueUndecided:
		return problem.New(problem.Internal, "the change may have been made, or will be").Fix("Read the key, or send the change again.").Because(err)
	default:
		return problem.From(err)
	}
}
