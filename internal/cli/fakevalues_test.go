package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
)

// fakeValue is a value of the fake's gateway, which keeps them by namespace/bucket/key.
type fakeValue struct {
	data, contentType string
	revision          uint64
}

// serveValues answers as the gateway's key-value door does.
func (n *fakeNode) serveValues(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	refuse := func(err error) {
		d := problem.Render(problem.From(err), "req-0001")
		problem.WriteDetails(w, d, 0)
	}
	if err := n.refuses(r); err != nil {
		refuse(err)
		return
	}
	ns, rest, _ := strings.Cut(r.URL.Path, "/.casemate/kv/")
	if ns = strings.TrimPrefix(ns, "/~"); ns == "" {
		ns = "default"
	}
	bucket, key, _ := strings.Cut(rest, "/")
	at := ns + "/" + rest
	v, there := n.values[at]
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	n.last = map[string]string{"path": r.URL.EscapedPath(), "query": r.URL.RawQuery, "match": match, "none": none, "type": r.Header.Get("Content-Type")}
	switch {
	case none == "*" && there, match != "" && (!there || match != fmt.Sprintf("%q", strconv.FormatUint(v.revision, 10))):
		refuse(problem.New(problem.Precondition, "the condition does not hold"))
	case key == "" && r.Method == http.MethodGet:
		n.listValues(answer, ns, bucket, r)
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(r.Body)
		n.revision++
		n.values[at] = fakeValue{string(b), r.Header.Get("Content-Type"), n.revision}
		answer(map[string]any{"bucket": bucket, "key": key, "revision": n.revision})
	case !there:
		refuse(problem.New(problem.NotFound, "there is no such key"))
	case r.Method == http.MethodDelete:
		n.revision++
		delete(n.values, at)
		answer(map[string]any{"bucket": bucket, "key": key, "revision": n.revision})
	default:
		w.Header().Set("Etag", fmt.Sprintf("%q", strconv.FormatUint(v.revision, 10)))
		w.Header().Set("Content-Type", v.contentType)
		_, _ = io.WriteString(w, v.data)
	}
}

func (n *fakeNode) listValues(answer func(any), ns, bucket string, r *http.Request) {
	var keys []map[string]any
	buckets := map[string]int{}
	for at, v := range n.values {
		rest, own := strings.CutPrefix(at, ns+"/")
		b, key, _ := strings.Cut(rest, "/")
		if !own {
			continue
		}
		buckets[b]++
		if b == bucket && strings.HasPrefix(key, r.FormValue("prefix")) && key > r.FormValue("after") {
			keys = append(keys, map[string]any{"key": key, "revision": v.revision, "size": len(v.data)})
		}
	}
	if bucket == "" {
		all := []map[string]any{}
		for b, count := range buckets {
			all = append(all, map[string]any{"bucket": b, "keys": count})
		}
		slices.SortFunc(all, func(a, b map[string]any) int { return strings.Compare(a["bucket"].(string), b["bucket"].(string)) })
		answer(map[string]any{"buckets": all})
		return
	}
	slices.SortFunc(keys, func(a, b map[string]any) int { return strings.Compare(a["key"].(string), b["key"].(string)) })
	next := ""
	if limit, err := strconv.Atoi(r.FormValue("limit")); err == nil && len(keys) > min(limit, n.page) {
		keys = keys[:min(limit, n.page)]
		next = keys[len(keys)-1]["key"].(string)
	}
	answer(map[string]any{"keys": keys, "next": next})
}
