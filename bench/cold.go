package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"time"
)

// coldGoal is the share of a workerd process's start to its first answer.
const coldGoal = 0.15

// cold measures the first call of a function whose namespace has no process. The node
// was started anew, so nothing is loaded, and what it keeps is what a node keeps after
// the idle unload: the record, the artifact, the compiled code, and a process that waits
// for whoever comes. The connection is there, and another request went before.
func cold(ctx context.Context, b *bench) ([]result, error) {
	rows := []struct{ row, fn, what string }{
		{"c", "hello-c", "C, exported handle"},
		{"rust", "hello-rust", "Rust, command"},
		{"go", "hello-go", "Go, exported handle"},
		{"go-command", "hello-go-command", "Go, command"},
		{"js", "hello-js", "JavaScript"},
	}
	s, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { s.stop() }()
	fns := map[string]built{}
	for _, r := range rows {
		if fns[r.row], err = b.build(ctx, r.fn); err != nil {
			return nil, err
		}
		if err := s.deploy(ctx, "cold-"+r.row, fns[r.row]); err != nil {
			return nil, err
		}
	}
	// What is compiled once in a node's life is not what a cold start waits for.
	if err := s.quiet(ctx); err != nil {
		return nil, err
	}
	took, peers := map[string][]float64{}, []float64{}
	for i := range b.cfg.colds {
		s.stop()
		if err := s.start(ctx); err != nil {
			return nil, err
		}
		for k := range rows {
			r := rows[(i+k)%len(rows)]
			if err := s.ready(ctx); err != nil {
				return nil, err
			}
			d, err := firstByte(ctx, s.target("cold-"+r.row, fns[r.row]), s.pool)
			if err != nil {
				return nil, fmt.Errorf("calling %s: %v", r.fn, err)
			}
			took[r.row] = append(took[r.row], d)
		}
		began := time.Now()
		peer, err := b.workerd(ctx, false)
		if err != nil {
			return nil, err
		}
		peers = append(peers, float64(time.Since(began).Microseconds())/1e3)
		peer.stop()
	}
	var rs []result
	for _, r := range rows {
		ours, peer := quantile(took[r.row], .5), quantile(peers, .5)
		rs = append(rs, result{
			ID: r.row, Unit: "ms", Ours: ours, Peer: peer, PeerName: "workerd, process start to first answer", Ratio: ours / peer,
			Goal: coldGoal, Better: "lower", N: len(took[r.row]),
			Note: fmt.Sprintf("%s; request to first byte of the answer; p90 %s against %s ms, worst %s ms", r.what,
				figure(quantile(took[r.row], .9)), figure(quantile(peers, .9)), figure(quantile(took[r.row], 1))),
		})
	}
	return rs, nil
}

// ready waits until a process is ready for a namespace to come, with what it loads ahead.
func (s *site) ready(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.sandboxes(wait, 20*time.Millisecond, 1, false); err != nil {
		return err
	}
	return s.quiet(ctx)
}

// firstByte gives the time from the request to the first byte of a right answer, in ms.
func firstByte(ctx context.Context, t *target, pool *x509.CertPool) (float64, error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	// A route that there is not: it opens the connection and wakes no function.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL+"/nowhere", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	var first time.Time
	began := time.Now()
	err = hello(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { first = time.Now() }}), client, t)
	return float64(first.Sub(began).Nanoseconds()) / 1e6, err
}

// quantile gives the value below which q of all lie.
func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

// idleNode is a node with many idle functions of a kind.
type idleNode struct {
	row       string
	f         built
	s         *site
	before    int64 // bytes that its processes held, with no function yet
	deploying time.Duration
}

// idleFunctions deploys many functions, each of bytes of its own, lets them be until
// nothing is loaded and their processes have ended, and divides by their number what
// memory the node has gained: what it keeps for each, and its share of what a node
// keeps once it has worked at all, such as the engine for scripts in the process that
// waits. There is a node for each kind, and both are there whenever one is looked at: a
// page of the program is counted as a share, which is larger when the other one is gone.
func idleFunctions(ctx context.Context, b *bench) ([]result, error) {
	var nodes []*idleNode
	for _, k := range []struct{ row, fn string }{{"c", "hello-c"}, {"js", "hello-js"}} {
		f, err := b.build(ctx, k.fn)
		if err != nil {
			return nil, err
		}
		s, err := b.site(ctx)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		nodes = append(nodes, &idleNode{row: k.row, f: f, s: s})
	}
	if err := pause(ctx, rested); err != nil {
		return nil, err
	}
	for _, k := range nodes {
		var err error
		if k.before, err = treePSS(k.s.pid); err != nil {
			return nil, err
		}
	}
	for _, k := range nodes {
		began := time.Now()
		if err := deployMany(ctx, k.s, k.f, b.cfg.functions); err != nil {
			return nil, err
		}
		k.deploying = time.Since(began)
	}
	for _, k := range nodes {
		// The process of a namespace ends five minutes after its last use.
		wait, cancel := context.WithTimeout(ctx, 8*time.Minute)
		err := k.s.sandboxes(wait, time.Second, 1, true)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("waiting until all is idle: %v", err)
		}
	}
	if err := pause(ctx, rested); err != nil {
		return nil, err
	}
	var rs []result
	for _, k := range nodes {
		r, err := k.result(b.cfg.functions)
		if err != nil {
			return nil, err
		}
		rs = append(rs, r)
	}
	// They are not there for nothing: the first and the last still answer.
	for _, k := range nodes {
		for _, i := range []int{0, b.cfg.functions - 1} {
			t := k.s.target(fmt.Sprintf("idle-%d", i/perNamespace), k.f.variant(i))
			if err := b.await(ctx, t, k.s.pool); err != nil {
				return nil, err
			}
		}
	}
	return rs, nil
}

// rested is after how long a node that is left alone has handed back what memory it
// had to spare.
const rested = 30 * time.Second

// result compares what the node holds now with what it held before.
func (k *idleNode) result(n int) (result, error) {
	after, err := treePSS(k.s.pid)
	if err != nil {
		return result{}, err
	}
	return result{
		ID: k.row, Unit: "KB", Ours: float64(after-k.before) / 1e3 / float64(n), Goal: 50, Better: "lower", N: n,
		Note: fmt.Sprintf("added per deployed function, proportional set size of the tree: %.0f MB before, %.0f MB when their processes had ended; deploying %d took %.0f s",
			float64(k.before)/1e6, float64(after)/1e6, n, k.deploying.Seconds()),
	}, nil
}

// perNamespace is how many of the idle functions share a namespace.
const perNamespace = 100

// deployMany deploys variants of a function, a namespace after the other: the node
// compiles several at once by itself.
func deployMany(ctx context.Context, s *site, f built, n int) error {
	const atOnce = 20
	for at := 0; at < n; {
		var some []built
		namespace := at / perNamespace
		for len(some) < atOnce && at < n && at/perNamespace == namespace {
			some = append(some, f.variant(at))
			at++
		}
		if err := s.deploy(ctx, fmt.Sprintf("idle-%d", namespace), some...); err != nil {
			return fmt.Errorf("deploying functions up to %d: %v", at, err)
		}
	}
	return nil
}
