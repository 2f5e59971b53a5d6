package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/keyvalue/keyvaluetest"
	"github.com/casemate-dev/casemate/internal/state"
)

// valuesOf adapts the store as node does.
type valuesOf struct{ *keyvalue.Store }

func (v valuesOf) Get(ctx context.Context, ns, bucket, key string) (*StoredValue, error) {
	got, err := v.Store.Get(ctx, ns, bucket, key)
	if err != nil {
		return nil, refusedValue(err)
	}
	return &StoredValue{Data: got.Data, ContentType: got.ContentType, Revision: got.Revision, Modified: got.Modified, Expires: got.Expires}, nil
}

func (v valuesOf) Put(ctx context.Context, n *NewValue) (*StoredValue, error) {
	d, err := v.Store.Put(ctx, &keyvalue.Put{
		Namespace: n.Namespace, Bucket: n.Bucket, Key: n.Key, Data: n.Data, ContentType: n.ContentType, TTL: n.TTL,
		Condition: keyvalue.Condition{Absent: n.Absent, Present: n.Present, OneOf: n.OneOf}, By: n.By,
	})
	if err != nil {
		return nil, refusedValue(err)
	}
	return &StoredValue{Revision: d.Revision, Expires: d.Expires, Created: d.Created}, nil
}

func (v valuesOf) Delete(ctx context.Context, n *NewValue) (uint64, error) {
	d, err := v.Store.Delete(ctx, n.Namespace, n.Bucket, n.Key, keyvalue.Condition{Absent: n.Absent, Present: n.Present, OneOf: n.OneOf}, n.By)
	if err != nil {
		return 0, refusedValue(err)
	}
	return d.Revision, nil
}

func (v valuesOf) Buckets(namespace string) []ListedBucket {
	all := v.Store.Buckets(namespace)
	out := make([]ListedBucket, len(all))
	for i, b := range all {
		out[i] = ListedBucket{Bucket: b.Name, Keys: b.Keys}
	}
	return out
}

func (v valuesOf) List(ns, bucket, prefix, after string, limit int) ([]ListedValue, bool, error) {
	p, err := v.Store.List(ns, bucket, prefix, after, limit)
	if err != nil {
		return nil, false, refusedValue(err)
	}
	out := make([]ListedValue, len(p.Keys))
	for i, k := range p.Keys {
		out[i] = ListedValue(k)
	}
	return out, p.More, nil
}

func refusedValue(err error) error {
	for _, f := range []struct {
		is    error
		fault ValueFault
	}{
		{keyvalue.ErrNoKey, ValueMissing},
		{keyvalue.ErrCondition, ValueCondition},
		{keyvalue.ErrBucket, ValueInvalid},
		{keyvalue.ErrKey, ValueInvalid},
		{keyvalue.ErrValue, ValueInvalid},
		{keyvalue.ErrTooLarge, ValueTooLarge},
		{keyvalue.ErrTooMany, ValueTooMany},
		{keyvalue.ErrBusy, ValueBusy},
		{keyvalue.ErrUndecided, ValueUndecided},
	} {
		if errors.Is(err, f.is) {
			return &ValueRefusal{f.fault, err.Error()}
		}
	}
	return err
}

// Keys of buckets.
const (
	fetchKey = "cm_fetch00000000000_secretsecretsecretsecretsecretsecretsecr" // fetches from default/b
	storeKey = "cm_store00000000000_secretsecretsecretsecretsecretsecretsecr" // stores in default/b
	shopKey  = "cm_shop000000000000_secretsecretsecretsecretsecretsecretsecr" // stores in shop/*
)

type valueKeys struct{ Keys }

func (k valueKeys) Verify(presented string) (identity.Principal, error) {
	may := func(id string, a identity.Action, ns, bucket string) (identity.Principal, error) {
		return identity.Principal{Kind: "key", ID: id, Scopes: []identity.Scope{{Action: a, Namespace: ns, Function: bucket}}}, nil
	}
	switch presented {
	case fetchKey:
		return may("fetch", identity.FetchData, "default", "b")
	case storeKey:
		return may("store", identity.StoreData, "default", "b")
	case shopKey:
		return may("shop", identity.StoreData, "shop", "*")
	}
	return k.Keys.Verify(presented)
}

type valueWorld struct {
	*world
	disk *keyvaluetest.Disk
}

func newValueWorld(t testing.TB) *valueWorld {
	t.Helper()
	w := &valueWorld{newWorld(t, Limits{}), keyvaluetest.NewDisk()}
	s, err := keyvalue.Open(t.Context(), keyvalue.Config{
		KV: keyvaluetest.KV{Disk: w.disk}, Log: keyvaluetest.Log{Disk: w.disk}, Clock: time.Now, Logger: slog.New(slog.DiscardHandler), NamespaceKeys: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.values = valuesOf{s}
	w.Gateway.keys = valueKeys{w.Gateway.keys}
	w.serve(t)
	return w
}

const bucketPath = "/.casemate/kv/b"

func (w *valueWorld) ask(t testing.TB, method, path, body string, fields ...string) answer {
	t.Helper()
	var sent io.Reader
	if method == "PUT" || body != "" {
		sent = strings.NewReader(body)
	}
	return w.do(t, method, path, sent, append(fields, bearer(storeKey))...)
}

func TestValuesOverHTTP(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	expect := func(what string, a answer, status int, etag, body string) {
		t.Helper()
		if a.status != status || a.header.Get("ETag") != etag || !strings.Contains(a.body, body) || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d\n%s", what, a.status, a.text)
		}
	}
	const key = bucketPath + "/dir/a%20k%C3%BC;x"
	expect("new", w.ask(t, "PUT", key, "one", "Content-Type: text/html; charset=utf-8", "If-None-Match: *"), 201, `"1"`, `{"bucket":"b","key":"dir/a kü;x","revision":1}`)
	expect("replaced", w.ask(t, "PUT", key+"?ttl=3600", "two", `If-Match: W/"1", "zzz", "1"`), 200, `"2"`, `"expires":"`)
	a := w.ask(t, "GET", key, "")
	expect("read", a, 200, `"2"`, "two")
	if a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Casemate-Expires") == "" || a.header.Get("Last-Modified") == "" {
		t.Error(a.text)
	}
	w.ask(t, "PUT", key, "<script>", "Content-Type: text/html; charset=utf-8")
	a = w.do(t, "GET", key, nil, bearer(fetchKey))
	if a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Content-Security-Policy") != "default-src 'none'; sandbox" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a page of somebody's could run: %s", a.text)
	}
	expect("unchanged", w.ask(t, "GET", key, "", `If-None-Match: "3"`), 304, `"3"`, "")
	expect("changed", w.ask(t, "GET", key, "", `If-None-Match: "2"`), 200, `"3"`, "<script>")
	a = w.ask(t, "HEAD", key, "")
	expect("head", a, 200, `"3"`, "")
	if a.body != "" || a.header.Get("Content-Length") != "8" {
		t.Error(a.text)
	}
	expect("deleted", w.ask(t, "DELETE", key, "", `If-Match: "3"`), 200, "", `"revision":4`)
	w.ask(t, "GET", key, "").want(t, problem.NotFound)
	w.ask(t, "DELETE", key, "").want(t, problem.NotFound)
	expect("empty", w.ask(t, "PUT", bucketPath+"/empty", ""), 201, `"5"`, "")
	expect("empty", w.ask(t, "GET", bucketPath+"/empty", ""), 200, `"5"`, "")
	if w.invoker.count.Load() != 0 {
		t.Error("a function was called")
	}
}

func TestConditionsOverHTTP(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	k := bucketPath + "/k"
	w.ask(t, "PUT", k, "x", "If-Match: *").want(t, problem.Precondition)
	w.ask(t, "PUT", k, "x")
	for _, c := range []struct {
		method string
		field  string
		want   problem.Code
	}{
		{"PUT", "If-None-Match: *", problem.Precondition},
		{"PUT", `If-Match: "2"`, problem.Precondition},
		{"PUT", `If-Match: "01"`, problem.Precondition},
		{"PUT", `If-Match: W/"1"`, problem.Precondition}, // compared strongly
		{"PUT", `If-Match: "d41d8cd98f00b204"`, problem.Precondition},
		{"DELETE", `If-Match: "2"`, problem.Precondition},
		{"GET", `If-Match: "2"`, problem.Precondition},
		{"PUT", `If-None-Match: "1"`, problem.InvalidHeader},
		{"PUT", "If-Match: 1", problem.InvalidHeader},
		{"PUT", `If-Match: *, "1"`, problem.InvalidHeader},
		{"PUT", `If-Match: "1",`, problem.InvalidHeader},
		{"DELETE", `If-Match: "`, problem.InvalidHeader},
		{"PUT", "If-Match: " + strings.Repeat(`"1",`, 40) + `"1"`, problem.InvalidHeader},
		{"PUT", "Content-Type: no type", problem.InvalidHeader},
	} {
		body := ""
		if c.method == "PUT" {
			body = "y"
		}
		w.ask(t, c.method, k, body, c.field).want(t, c.want)
	}
	if a := w.ask(t, "GET", k, ""); a.body != "x" || a.header.Get("ETag") != `"1"` {
		t.Errorf("a refused change was made: %s", a.text)
	}
}

func TestListsOverHTTP(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	for _, k := range []string{"a", "p/1", "p/2", "p/%26+3", "q"} {
		if a := w.ask(t, "PUT", bucketPath+"/"+k, "v"); a.status != 201 {
			t.Fatal(a.text)
		}
	}
	var got []string
	for next, pages := "", 0; ; pages++ {
		a := w.do(t, "GET", bucketPath+"?prefix=p%2F&limit=2&after="+url.QueryEscape(next), nil, bearer(fetchKey))
		var page struct {
			Keys []ListedValue
			Next string
		}
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != 200 || pages > 1 {
			t.Fatal(err, a.text)
		}
		for _, k := range page.Keys {
			got = append(got, fmt.Sprint(k.Key, "@", k.Revision, " ", k.Size))
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if s := strings.Join(got, ", "); s != "p/&+3@4 1, p/1@2 1, p/2@3 1" {
		t.Error(s)
	}
	if a := w.do(t, "GET", "/~shop"+bucketPath, nil, bearer(shopKey)); a.body != `{"keys":[]}`+"\n" {
		t.Error(a.text)
	}
	for _, q := range []string{"limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "unknown=1", "prefix=%00", "prefix=%ff", "after=../x", "after=a%00", "%zz", "a;b"} {
		w.do(t, "GET", bucketPath+"?"+q, nil, bearer(fetchKey)).want(t, problem.BadRequest)
	}
	w.ask(t, "PUT", bucketPath+"/k?if-match=1", "x").want(t, problem.BadRequest)
	w.ask(t, "PUT", bucketPath+"/k?ttl=0", "x").want(t, problem.BadRequest)
	w.ask(t, "PUT", bucketPath+"/k?ttl=-1", "x").want(t, problem.BadRequest)
	w.ask(t, "PUT", bucketPath+"/k?ttl=2000000000", "x").want(t, problem.BadRequest)
}

// TestAttackBucketsOfOthers: no key reads or changes what its scopes do not name, and none
// learns whether it is there.
// TestBucketsAreListedForThoseWhoMayReadThem has keys see no more than what is theirs.
func TestBucketsAreListedForThoseWhoMayReadThem(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	for _, path := range []string{"/.casemate/kv/b/x", "/.casemate/kv/b/y"} {
		if a := w.ask(t, "PUT", path, "v"); a.status != 201 {
			t.Fatal(a.text)
		}
	}
	if a := w.do(t, "PUT", "/~shop/.casemate/kv/a/x", strings.NewReader("v"), bearer(shopKey)); a.status != 201 {
		t.Fatal(a.text)
	}
	for _, c := range []struct{ path, key, want string }{
		{"/.casemate/kv/", fetchKey, `{"buckets":[{"bucket":"b","keys":2}]}`},
		{"/.casemate/kv/", shopKey, `{"buckets":[]}`},
		{"/~shop/.casemate/kv/", fetchKey, `{"buckets":[]}`},
		{"/~empty/.casemate/kv/", fetchKey, `{"buckets":[]}`},
	} {
		if a := w.do(t, "GET", c.path, nil, bearer(c.key)); a.status != 200 || strings.TrimSpace(a.body) != c.want {
			t.Errorf("%s: got %s", c.path, a.text)
		}
	}
	w.do(t, "GET", "/.casemate/kv/", nil).want(t, problem.Unauthenticated)
	w.do(t, "PUT", "/.casemate/kv/", strings.NewReader("x"), bearer(storeKey)).want(t, problem.MethodNotAllowed)
	w.do(t, "GET", "/.casemate/kv/?prefix=b", nil, bearer(fetchKey)).want(t, problem.BadRequest)
}

func TestAttackBucketsOfOthers(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	w.ask(t, "PUT", bucketPath+"/secret", "plain")
	for _, c := range []struct {
		key, method, path string
		want              problem.Code
	}{
		{"", "GET", bucketPath + "/secret", problem.Unauthenticated},
		{"", "GET", bucketPath, problem.Unauthenticated},
		{unknownKey, "GET", bucketPath + "/secret", problem.Unauthenticated},
		{goodKey, "GET", bucketPath + "/secret", problem.Forbidden}, // may call functions
		{readKey, "GET", bucketPath + "/secret", problem.Forbidden}, // may see functions and events
		{ordersKey, "PUT", "/~shop/.casemate/kv/orders/k", problem.Forbidden},
		{fetchKey, "PUT", bucketPath + "/secret", problem.Forbidden},
		{fetchKey, "DELETE", bucketPath + "/secret", problem.Forbidden},
		{fetchKey, "GET", "/.casemate/kv/other/secret", problem.Forbidden},
		{fetchKey, "GET", "/.casemate/kv/other", problem.Forbidden},
		{fetchKey, "GET", "/~shop/.casemate/kv/b/secret", problem.Forbidden},
		{shopKey, "GET", bucketPath + "/secret", problem.Forbidden},
		{shopKey, "PUT", bucketPath + "/secret", problem.Forbidden},
		{shopKey, "GET", bucketPath + "/none", problem.Forbidden},
		{shopKey, "GET", "/~shop/.casemate/kv/b/secret", problem.NotFound}, // its own, and another one
		{shopKey, "GET", "/~default/.casemate/kv/b/secret", problem.NotFound},
		{shopKey, "GET", "/~shop/.casemate/kv/b/../../../.casemate/kv/b/secret", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/%2e%2e/b/secret", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/..%2fsecret", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/%252e%252e/x", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/..;/x", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/x%5cy", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/x%00", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b//x", problem.InvalidPath},
		{shopKey, "GET", "/~shop/.casemate/kv/b/x/", problem.BadRequest},
		{shopKey, "GET", "/~shop/.casemate/kv/b.c/x", problem.NotFound},
		{shopKey, "GET", "/~shop/.casemate/kv/*/x", problem.NotFound},
		{shopKey, "GET", "/~shop/.casemate/kv/%3E/x", problem.NotFound},
		{shopKey, "GET", "/~*/.casemate/kv/b/x", problem.NotFound},
		{shopKey, "PUT", "/~shop/.casemate/kv/", problem.MethodNotAllowed}, // a list of buckets
		{shopKey, "GET", "/~shop/.casemate/kv/b/", problem.NotFound},
		{shopKey, "POST", "/~shop/.casemate/kv/b/x", problem.MethodNotAllowed},
		{shopKey, "PUT", "/~shop/.casemate/kv/b", problem.MethodNotAllowed},
		{shopKey, "DELETE", "/~shop/.casemate/kv/b", problem.MethodNotAllowed},
		{shopKey, "GET", "/~shop/.casemate/kv/b/" + strings.Repeat("k", keyvalue.MaxKey+1), problem.BadRequest},
	} {
		field := "X-Other: 1"
		if c.key != "" {
			field = bearer(c.key)
		}
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\nContent-Length: 0\r\n\r\n", c.method, c.path, field)
		a := w.rawAnswer(t, raw)
		if a.want(t, c.want); t.Failed() {
			t.Fatalf("%s %s", c.method, c.path)
		}
		if strings.Contains(a.text, "plain") {
			t.Errorf("%s %s: %s", c.method, c.path, a.text)
		}
	}
	if a := w.ask(t, "GET", bucketPath+"/secret", ""); a.body != "plain" {
		t.Error(a.text)
	}
}

func TestAttackOversizedValues(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	if a := w.ask(t, "PUT", bucketPath+"/k", strings.Repeat("x", maxValue)); a.status != 201 {
		t.Error(a.text)
	}
	w.ask(t, "PUT", bucketPath+"/k", strings.Repeat("x", maxValue+1)).want(t, problem.BodyTooLarge)
	// Whoever may not store sends nothing that is read.
	a := w.rawAnswer(t, "PUT "+bucketPath+"/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+bearer(fetchKey)+"\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	a.want(t, problem.Forbidden)
	w.ask(t, "GET", bucketPath, "body").want(t, problem.BodyTooLarge)
	for i := range 9 {
		w.ask(t, "PUT", fmt.Sprint(bucketPath, "/", i), "x")
	}
	w.ask(t, "PUT", bucketPath+"/more", "x").want(t, problem.StorageFull)
}

func TestStoreFailuresOverHTTP(t *testing.T) {
	t.Parallel()
	w := newValueWorld(t)
	k := bucketPath + "/k"
	w.disk.SetFail(func(string, bool) error { return fmt.Errorf("%s: %w", planted, state.ErrFull) })
	w.ask(t, "PUT", k, "x").want(t, problem.StorageFull)
	w.disk.SetFail(func(string, bool) error { return errors.New(planted) })
	for _, a := range []answer{w.ask(t, "PUT", k, "x"), w.ask(t, "GET", k, "")} {
		if a.want(t, problem.Internal); strings.Contains(a.text, planted) || !strings.Contains(a.text, "may have been made") {
			t.Error(a.text)
		}
	}
	w.disk.SetFail(nil)
	if a := w.ask(t, "GET", k, ""); a.body != "x" {
		t.Errorf("an undecided change was not finished: %s", a.text)
	}
	none := newWorld(t, Limits{})
	none.serve(t)
	none.do(t, "GET", k, nil, bearer(goodKey)).want(t, problem.NotFound)
}

// FuzzValueRequest: whatever the query and the conditions, nothing panics, and what is
// understood is within bounds.
func FuzzValueRequest(f *testing.F) {
	for _, s := range [][3]string{{"prefix=a&after=b&limit=3", `"1", W/"2"`, "*"}, {"ttl=1", "*", `"`}, {"a;b=%zz", `"18446744073709551616"`, ","}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, query, match, none string) {
		r := httptest.NewRequest("PUT", "/", nil)
		r.URL.RawQuery = query
		r.Header["If-Match"], r.Header["If-None-Match"] = []string{match}, []string{none}
		x := &exchange{r: r, target: &endpoint{kind: toValue, key: "k"}}
		p, err := x.parameters("prefix", "after", "limit")
		if err == nil && len(p) > 3 {
			t.Fatal(p)
		}
		v, err := x.newValue("ttl")
		if err != nil {
			return
		}
		if v.TTL < 0 || len(v.OneOf) > maxTags || v.Present && v.OneOf != nil || !v.Absent || !v.Present && v.OneOf == nil {
			t.Fatalf("%q and %q are read as %+v", match, none, v)
		}
	})
}
