package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
)

// The measures of events run benchmarks of this folder (events_test.go), each in a process
// of its own: intake, bus, delivery, the invoker and its receipts as the node puts them
// together, and a runner that does nothing in the place of sandboxes.

// Goals of the measures of events.
const (
	durableGoal  = 0.5
	latencyGoal  = 2
	postgresGoal = 2
)

// eventBench runs a benchmark of this folder some times, and gives the median of each unit
// by the benchmark's own name.
func eventBench(ctx context.Context, pattern string, rounds int) (map[string]map[string]float64, error) {
	seen := map[string]map[string][]float64{}
	for range rounds { // in turn, since the patterns name both sides
		all, err := gobench(ctx, "bench", pattern, "1x", 1)
		if err != nil {
			return nil, err
		}
		for _, b := range all {
			name := b.name[len(b.name)-1]
			if seen[name] == nil {
				seen[name] = map[string][]float64{}
			}
			for unit, v := range b.units {
				seen[name][unit] = append(seen[name][unit], v)
			}
		}
	}
	out := map[string]map[string]float64{}
	for name, units := range seen {
		out[name] = map[string]float64{}
		for unit, v := range units {
			slices.Sort(v)
			out[name][unit] = (v[(len(v)-1)/2] + v[len(v)/2]) / 2
		}
	}
	return out, nil
}

// durable is how many events per second are published, on disk, and done.
func durable(ctx context.Context, b *bench) ([]result, error) {
	got, err := eventBench(ctx, "^BenchmarkEventsDurable$", b.cfg.rounds)
	if err != nil {
		return nil, err
	}
	peer := got["jetstream"]
	var rs []result
	for _, row := range []struct{ id, name, how string }{
		{"", "single", "2,000 callers, one event each"},
		{"batched", "batched", "4 callers, 500 events each"},
	} {
		us := got[row.name]
		rs = append(rs, result{
			ID: row.id, Unit: "events/s", Ours: us["events/s"], Peer: peer["events/s"], PeerName: "JetStream alone, 4 callers with atomic batches of 500, and a consumer",
			Ratio: us["events/s"] / peer["events/s"], CPU: us["cpu-µs/event"], PeerCPU: peer["cpu-µs/event"], CPURatio: peer["cpu-µs/event"] / us["cpu-µs/event"],
			Goal: durableGoal, Better: "higher", N: b.cfg.rounds,
			Note: "512 B, in process: " + row.how + ", published, on disk, run by a no-op runner and its receipt on record; the peer has each write on disk too",
		})
	}
	return rs, nil
}

// eventLatency is how long it takes from publishing until the function is done.
func eventLatency(ctx context.Context, b *bench) ([]result, error) {
	got, err := eventBench(ctx, "^BenchmarkEventsLatency$", b.cfg.rounds)
	if err != nil {
		return nil, err
	}
	us, peer := got["ours"], got["jetstream"]
	return []result{{
		Unit: "µs", Ours: us["p50-µs"], Peer: peer["p50-µs"], PeerName: "JetStream alone", Ratio: us["p50-µs"] / peer["p50-µs"],
		Goal: latencyGoal, Better: "lower", N: b.cfg.rounds,
		Note: fmt.Sprintf("512 B, one at a time, in process: from publishing until the receipt of a no-op runner is on record, against publishing and consuming; p50; p99 %.0f against %.0f µs", us["p99-µs"], peer["p99-µs"]),
	}}, nil
}

// drained is how fast a million events that wait are done.
func drained(ctx context.Context, _ *bench) ([]result, error) {
	got, err := eventBench(ctx, "^BenchmarkEventsDrain$", 1)
	if err != nil {
		return nil, err
	}
	us := got["EventsDrain"]
	return []result{
		{
			Unit: "events/s", Ours: us["events/s"], Better: "higher", N: 1,
			Note: fmt.Sprintf("1,000,000 events of 512 B that wait, run by a no-op runner, receipts on record; they were stored at %.0f/s, 500 to a call", us["stored/s"]),
		},
		{
			ID: "memory", Unit: "MB", Ours: us["most-MB"] - us["before-MB"], Better: "lower", N: 1,
			Note: fmt.Sprintf("what the process grew by meanwhile, from %.0f MB", us["before-MB"]),
		},
	}, nil
}

// postgresRows is how soon the function has done a row, and how many rows a second.
func postgresRows(ctx context.Context, _ *bench) ([]result, error) {
	got, err := eventBench(ctx, "^BenchmarkEventsPostgres$", 1)
	if err != nil {
		return nil, err
	}
	us, peer := got["ours"], got["alone"]
	return []result{
		{
			Unit: "ms", Ours: us["p50-µs"] / 1e3, Peer: peer["p50-µs"] / 1e3, PeerName: "pgoutput decoded and thrown away", Ratio: us["p50-µs"] / peer["p50-µs"],
			Goal: postgresGoal, Better: "lower", N: 300,
			Note: fmt.Sprintf("from sending the insert until its row was done by a no-op runner; p50; p99 %.1f against %.1f ms", us["p99-µs"]/1e3, peer["p99-µs"]/1e3),
		},
		{
			ID: "rows", Unit: "rows/s", Ours: us["rows/s"], Peer: peer["rows/s"], PeerName: "pgoutput decoded and thrown away", Ratio: us["rows/s"] / peer["rows/s"],
			Better: "higher", N: 1, Note: "100,000 rows of 400 B that wait, in transactions of 100, until the function has done all",
		},
	}, nil
}

const (
	idleTriggers   = 1000
	triggersOfOne  = 50               // the most that a function may have
	triggersWatch  = 10 * time.Second // over which an idle node's processor time is taken
	triggersSettle = 15 * time.Second
)

// idleTriggersOf is what a node holds for triggers that have nothing to do, and what it does
// for them.
func idleTriggersOf(ctx context.Context, b *bench) ([]result, error) {
	f, err := b.build(ctx, "hello-c")
	if err != nil {
		return nil, err
	}
	var rs []result
	for _, row := range []struct {
		id      string
		trigger func(n int) api.Trigger
	}{
		{"schedule", func(n int) api.Trigger {
			return api.Trigger{Kind: "schedule", Settings: json.RawMessage(fmt.Sprintf(`{"cron":"%d %d 29 2 *"}`, n%60, n%24))}
		}},
		{"topic", func(n int) api.Trigger {
			return api.Trigger{Kind: "topic", Settings: json.RawMessage(fmt.Sprintf(`{"topic":"t%d"}`, n))}
		}},
	} {
		r, err := b.idleTriggers(ctx, f, row.trigger)
		if err != nil {
			return rs, fmt.Errorf("%s: %w", row.id, err)
		}
		r.ID = row.id
		rs = append(rs, r)
	}
	return rs, nil
}

func (b *bench) idleTriggers(ctx context.Context, f built, trigger func(int) api.Trigger) (r result, err error) {
	s, err := b.site(ctx)
	if err != nil {
		return r, err
	}
	defer s.stop()
	// The functions are there before, each with one trigger, so that what is counted is the
	// triggers alone.
	functions := idleTriggers / triggersOfOne
	deploy := func(triggers int) error {
		var fns []built
		for i := range functions {
			v := f
			v.name = fmt.Sprintf("f%d", i)
			v.config.HTTP, v.config.Triggers = nil, nil
			for n := range triggers {
				t := trigger(i*triggersOfOne + n)
				t.Name, t.NoSchema = fmt.Sprintf("t%d", n), "nothing comes"
				v.config.Triggers = append(v.config.Triggers, t)
			}
			fns = append(fns, v)
		}
		return s.deploy(ctx, "default", fns...)
	}
	held := func() (int64, error) {
		if err := errors.Join(s.quiet(ctx), pause(ctx, triggersSettle)); err != nil {
			return 0, err
		}
		return treePSS(s.pid)
	}
	if err := deploy(1); err != nil {
		return r, err
	}
	before, err := held()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := deploy(triggersOfOne); err != nil {
		return r, err
	}
	took := time.Since(began)
	after, err := held()
	if err != nil {
		return r, err
	}
	cpu, err := treeCPU(s.pid)
	if err == nil {
		err = pause(ctx, triggersWatch)
	}
	if err != nil {
		return r, err
	}
	later, err := treeCPU(s.pid)
	if err != nil {
		return r, err
	}
	more := idleTriggers - functions
	return result{
		Unit: "KB", Ours: float64(after-before) / 1e3 / float64(more), Better: "lower", N: more,
		Note: strings.Join([]string{
			fmt.Sprintf("what the process tree holds more for each of %d idle triggers, 50 to a function", more),
			fmt.Sprintf("with all of them it takes %.2f %% of a processor while nothing happens", (later-cpu).Seconds()/triggersWatch.Seconds()*100),
			fmt.Sprintf("deploying them took %.1f s", took.Seconds()),
		}, "; "),
	}, nil
}
