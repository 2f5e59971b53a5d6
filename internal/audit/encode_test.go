package audit

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func sameReceipt(t testing.TB, r *Receipt) {
	t.Helper()
	want, wantErr := json.Marshal(r)
	got, err := appendReceipt([]byte("before"), r)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%+v: %v, want %v", r, err, wantErr)
	}
	if err == nil && string(got) != "before"+string(want) {
		t.Errorf("got  %s\nwant %s", got[len("before"):], want)
	}
}

// fullReceipt sets every field, so that one that is added must be written too.
func fullReceipt(t testing.TB) *Receipt {
	t.Helper()
	r := &Receipt{
		ID: "019aabb5-8d8f-7e02-9d1f-7a6e8f0c1d2e", RequestID: "019aabb5-8d8f-7e02-9d1f-7a6e8f0c1d2f", Namespace: "default", Function: "hello",
		Version: "sha256:8f1c", Artifact: "sha256:77aa", Alias: "live", Trigger: "http", Route: "POST /a/{b}<&>", Principal: "key:abcd",
		Event: "e-1", Events: 9, Members: "e-1\ne-2", Source: "orders", Attempt: 10, Replay: true, Chain: "e-0", Depth: 11, Sandbox: "mi-1",
		Isolation: "wasm/process", Cold: true, Start: time.Date(2026, 11, 22, 10, 20, 30, 123456789, time.FixedZone("", 3600)), Wall: 1, CPU: 2, Fuel: 3, Calls: 4,
		Memory: 5, BytesIn: 6, BytesOut: 7, LogBytes: 8, Status: 200, Outcome: "ok",
	}
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the field %s is not part of this test", v.Type().Field(i).Name)
		}
	}
	return r
}

func TestReceiptIsWhatEncodingJSONMakes(t *testing.T) {
	t.Parallel()
	sameReceipt(t, fullReceipt(t))
	for i := range reflect.TypeFor[Receipt]().NumField() {
		r := fullReceipt(t)
		reflect.ValueOf(r).Elem().Field(i).SetZero()
		sameReceipt(t, r)
	}
	sameReceipt(t, &Receipt{})
	for _, start := range []time.Time{
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 25*3600)), time.Date(2026, 1, 1, 0, 0, 0, 500, time.UTC), time.Now(),
	} {
		sameReceipt(t, &Receipt{Start: start})
	}
}

// FuzzReceipt holds the encoder against encoding/json.
func FuzzReceipt(f *testing.F) {
	f.Add("id", "default", "GET /", "key:x", true, int64(1), int64(2), 3)
	f.Add("\xff<&>", "\"\\", "\x00\n", "\u2028é", false, int64(-1), int64(1)<<62, -3)
	f.Fuzz(func(t *testing.T, id, name, route, principal string, cold bool, n, at int64, status int) {
		sameReceipt(t, &Receipt{
			ID: id, RequestID: name, Namespace: name, Function: id, Version: route, Artifact: principal, Alias: name, Trigger: id,
			Route: route, Principal: principal, Sandbox: route, Isolation: name, Cold: cold, Start: time.Unix(at>>20, at&0xfffff),
			Wall: time.Duration(n), CPU: time.Duration(at), Fuel: n, Calls: at, Memory: n, BytesIn: at, BytesOut: n, LogBytes: at, Status: status, Outcome: route,
		})
	})
}

func BenchmarkReceipt(b *testing.B) {
	r := fullReceipt(b)
	r.Route = "POST /hello"
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = appendReceipt(buf[:0], r)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(r)
		}
	})
}
