package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
)

const echoBody = `{"hello":"world","n":12345}`

// noop answers at once with the body, as the hello-JSON-echo function does.
type noop struct{ headers map[string][]string }

func (n noop) Invoke(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
	return &invoke.Outcome{Status: 200, Headers: n.headers, Body: c.Body, Receipt: audit.Receipt{ID: "0190b3c4-0000-7000-8000-000000000000"}}, nil
}

// mapKeys costs what a look-up in memory costs.
type mapKeys map[string]identity.Principal

func (k mapKeys) Verify(presented string) (identity.Principal, error) {
	p, ok := k[presented]
	if !ok {
		return p, fmt.Errorf("unknown key")
	}
	return p, nil
}

func benchGateway(b *testing.B) *Gateway {
	b.Helper()
	var ids atomic.Int64
	g, err := New(Config{
		Invoker: noop{map[string][]string{"content-type": {"application/json"}}},
		Keys:    mapKeys{goodKey: {Kind: "key", ID: "good", Scopes: []identity.Scope{{Action: identity.Invoke, Namespace: "*", Function: "*"}}}},
		Logger:  slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Clock:   time.Now,
		NewID:   func() string { return "0190b3c4-0000-7000-8000-" + strconv.FormatInt(1e11+ids.Add(1), 10) },
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := g.SetRoutes(routesForTests()); err != nil {
		b.Fatal(err)
	}
	return g
}

// discard is a ResponseWriter that costs nearly nothing.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

func (d *discard) SetReadDeadline(time.Time) error  { return nil }
func (d *discard) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkGateway is the pipeline alone: no network, a no-op function, the
// access log written to nowhere.
func BenchmarkGateway(b *testing.B) {
	for _, c := range []struct{ name, method, path, body string }{
		{"get", "GET", "/hello", ""},
		{"echo", "POST", "/echo", echoBody},
		{"param", "GET", "/~shop/cart/12345", ""},
		{"notfound", "GET", "/nowhere", ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := benchGateway(b)
			r := httptest.NewRequest(c.method, "https://localhost"+c.path, nil)
			r.RequestURI = c.path
			r.URL.Scheme, r.URL.Host = "", ""
			r.Header = http.Header{
				"Authorization": {"Bearer " + goodKey}, "User-Agent": {"bench/1"}, "Accept": {"*/*"},
				"Content-Type": {"application/json"}, "Accept-Encoding": {"gzip"},
			}
			w := &discard{h: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				if c.body != "" {
					r.ContentLength = int64(len(c.body))
					r.Body = io.NopCloser(strings.NewReader(c.body))
				}
				g.ServeHTTP(w, r)
			}
		})
	}
}

// bare is what the gateway is measured against: net/http and TLS, and nothing.
func bare() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

// load sends requests for a while over TLS loopback with HTTP/1.1, 32 at a time,
// from a client that does as little as possible, and returns how many a second, and the microseconds of CPU
// that each took on both sides together.
func load(b *testing.B, server *http.Server, wrap func(net.Listener) net.Listener, d time.Duration) (rate, cpu float64) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}, MinVersion: tls.VersionTLS13}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(wrap(l), "", "") }()
	defer func() {
		_ = server.Close()
		<-done
	}()
	request := []byte("POST /echo HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\nAuthorization: Bearer " + goodKey +
		"\r\nContent-Length: " + strconv.Itoa(len(echoBody)) + "\r\n\r\n" + echoBody)
	var total atomic.Int64
	var wg sync.WaitGroup
	start, before := time.Now(), cpuTime(b)
	for range 32 {
		c, err := tls.Dial("tcp", l.Addr().String(), clientTLS("http/1.1"))
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for time.Since(start) < d {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				n := 0
				for !strings.HasSuffix(string(buf[:n]), echoBody) {
					m, err := c.Read(buf[n:])
					if err != nil {
						b.Errorf("%v after %q", err, buf[:n])
						return
					}
					n += m
				}
				if !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
					b.Errorf("got %q", buf[:n])
					return
				}
				total.Add(1)
			}
		})
	}
	wg.Wait()
	n := float64(total.Load())
	return n / time.Since(start).Seconds(), float64((cpuTime(b) - before).Microseconds()) / n
}

// cpuTime of this process tells more than the clock on a machine that others use.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstBare measures both in turns, on the same machine and in the
// same minute, and reports the ratio of the medians.
func BenchmarkAgainstBare(b *testing.B) {
	same := func(l net.Listener) net.Listener { return l }
	for b.Loop() {
		var ours, theirs, ourCPU, theirCPU []float64
		for range 5 {
			rate, cpu := load(b, &http.Server{Handler: bare(), ReadHeaderTimeout: time.Minute}, same, 600*time.Millisecond)
			theirs, theirCPU = append(theirs, rate), append(theirCPU, cpu)
			g := benchGateway(b)
			rate, cpu = load(b, g.Server(nil), g.Listener, 600*time.Millisecond)
			ours, ourCPU = append(ours, rate), append(ourCPU, cpu)
		}
		b.ReportMetric(median(theirCPU), "bare-cpu-µs")
		b.ReportMetric(median(ourCPU), "gateway-cpu-µs")
		b.ReportMetric(median(theirs), "bare/s")
		b.ReportMetric(median(ours), "gateway/s")
		b.ReportMetric(median(ours)/median(theirs), "ratio")
	}
}

func median(v []float64) float64 {
	s := append([]float64(nil), v...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}
