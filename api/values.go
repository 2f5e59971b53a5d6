package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The gateway's key-value door. A Client whose URL is that of a gateway calls it; all
// other methods are the control listener's.

// ExpiresHeader says until when a value stays.
const ExpiresHeader = "Casemate-Expires"

// Bucket is a bucket of keys and values. It is there while a key is in it.
type Bucket struct {
	Bucket string `json:"bucket"`
	Keys   int    `json:"keys"`
}

// ValueKey is what a list says of a value.
type ValueKey struct {
	Key      string     `json:"key"`
	Revision uint64     `json:"revision"`
	Size     int64      `json:"size"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// ValueKeys is a page of a bucket's keys, in byte order.
type ValueKeys struct {
	Keys []ValueKey `json:"keys"`
	Next string     `json:"next,omitempty"` // where the next page begins; "" when this is the last
}

// Value is what is stored under a key.
type Value struct {
	Bucket      string     `json:"bucket"`
	Key         string     `json:"key"`
	Revision    uint64     `json:"revision"`
	ContentType string     `json:"contentType,omitempty"`
	Modified    *time.Time `json:"modified,omitempty"`
	Expires     *time.Time `json:"expires,omitempty"`
	Data        []byte     `json:"data"`
}

// ValueCondition is what must hold of a key before it is changed. The zero value asks for
// nothing.
type ValueCondition struct {
	Absent   bool   // there is none
	Revision uint64 // it has this one; 0 for any
}

// PutValue is a value to be stored.
type PutValue struct {
	Data        []byte
	ContentType string
	TTL         time.Duration // whole seconds; 0: it stays
	If          ValueCondition
}

// ValueChange is the answer to a change.
type ValueChange struct {
	Bucket   string     `json:"bucket"`
	Key      string     `json:"key"`
	Revision uint64     `json:"revision"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// valuePath is the path of a namespace's buckets, of one bucket or of one key. The slashes
// of a key are those of the path.
func valuePath(ns string, segments ...string) string {
	path := "/.casemate/kv/"
	if ns != "default" {
		path = "/~" + escape(ns) + path
	}
	for i, s := range segments {
		if i > 0 {
			path += "/"
		}
		parts := strings.Split(s, "/")
		for k := range parts {
			parts[k] = escape(parts[k])
		}
		path += strings.Join(parts, "/")
	}
	return path
}

// Buckets lists the buckets of a namespace that the key may read, by name.
func (c *Client) Buckets(ctx context.Context, ns string) ([]Bucket, error) {
	out, err := fetch[struct {
		Buckets []Bucket `json:"buckets"`
	}](ctx, c, http.MethodGet, valuePath(ns), nil)
	if err != nil {
		return nil, err
	}
	return out.Buckets, nil
}

// ValueKeys lists at most limit keys of a bucket that begin with prefix and come behind
// after.
func (c *Client) ValueKeys(ctx context.Context, ns, bucket, prefix, after string, limit int) (*ValueKeys, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if after != "" {
		q.Set("after", after)
	}
	return fetch[ValueKeys](ctx, c, http.MethodGet, valuePath(ns, bucket)+"?"+q.Encode(), nil)
}

// Value reads one.
func (c *Client) Value(ctx context.Context, ns, bucket, key string) (*Value, error) {
	resp, err := c.send(ctx, http.MethodGet, valuePath(ns, bucket, key), nil, nil, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	v := &Value{Bucket: bucket, Key: key, ContentType: resp.Header.Get("Content-Type")}
	if v.Data, err = c.read(ctx, resp); err != nil {
		return nil, err
	}
	if v.Revision, err = strconv.ParseUint(strings.Trim(resp.Header.Get("Etag"), `"`), 10, 64); err != nil {
		return nil, fmt.Errorf("reading answer of %s: it has no revision; is the address that of a gateway?", c.base)
	}
	if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		v.Modified = &at
	}
	if at, err := time.Parse(time.RFC3339Nano, resp.Header.Get(ExpiresHeader)); err == nil {
		v.Expires = &at
	}
	return v, nil
}

// PutValue stores a value; it is on disk when it returns.
func (c *Client) PutValue(ctx context.Context, ns, bucket, key string, in PutValue) (*ValueChange, error) {
	header := in.If.header()
	if in.ContentType != "" {
		header.Set("Content-Type", in.ContentType)
	}
	path := valuePath(ns, bucket, key)
	if in.TTL > 0 {
		path += "?ttl=" + strconv.FormatInt(int64(in.TTL/time.Second), 10)
	}
	return c.change(ctx, http.MethodPut, path, header, in.Data)
}

// DeleteValue removes a key.
func (c *Client) DeleteValue(ctx context.Context, ns, bucket, key string, condition ValueCondition) (*ValueChange, error) {
	return c.change(ctx, http.MethodDelete, valuePath(ns, bucket, key), condition.header(), nil)
}

func (v ValueCondition) header() http.Header {
	h := http.Header{}
	if v.Absent {
		h.Set("If-None-Match", "*")
	}
	if v.Revision > 0 {
		h.Set("If-Match", `"`+strconv.FormatUint(v.Revision, 10)+`"`)
	}
	return h
}

func (c *Client) change(ctx context.Context, method, path string, header http.Header, data []byte) (*ValueChange, error) {
	resp, err := c.send(ctx, method, path, header, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := c.read(ctx, resp)
	if err != nil {
		return nil, err
	}
	out := new(ValueChange)
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("reading answer of %s: it is not the JSON expected; are client and node of one version? (%v)", c.base, err)
	}
	return out, nil
}
