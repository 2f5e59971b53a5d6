package bus

import (
	"context"
	"errors"
	"fmt"
)

// VerifyReport says what Verify found.
type VerifyReport struct {
	Events   uint64 // that are whole
	Channels int
	Missing  uint64 // sequences that are neither there nor purged
	Damaged  bool   // some are missing or not what was stored; Bus.Warnings names them
}

// Verify reads everything and checks the digests, that each event's predecessor in
// its channel is there, and that every sequence is accounted for. It calls progress
// now and then, if it is not nil. What it finds makes Bus.Check fail.
func (e *Events) Verify(ctx context.Context, progress func(done, of uint64)) (VerifyReport, error) {
	const every = 4096
	doing := "verifying events " + e.cfg.Name
	var rep VerifyReport
	info, err := e.stream.Info(ctx)
	if err != nil {
		return rep, e.bus.failure(doing, err)
	}
	first, end := info.State.FirstSeq, info.State.LastSeq
	if end == 0 {
		return rep, nil
	}
	// Holes as runs; there are few, as purging is rare.
	type run struct{ first, last uint64 }
	var holes []run
	channels := map[string]struct{}{}
	next := first
	err = e.scan(ctx, scan{filter: e.cfg.SubjectPrefix + ".>", from: first, end: end}, func(r EventRecord) bool {
		if r.Sequence > next {
			holes = append(holes, run{next, r.Sequence - 1})
		}
		next = r.Sequence + 1
		if r.Channel != "" {
			rep.Events++
			channels[r.Namespace+"/"+r.Channel] = struct{}{}
		}
		if progress != nil && r.Sequence%every == 0 {
			progress(r.Sequence-first+1, end-first+1)
		}
		return true
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return rep, e.bus.failure(doing, err)
	}
	rep.Damaged, rep.Channels = err != nil, len(channels)
	if next <= end {
		holes = append(holes, run{next, end})
	}
	// Meanwhile the oldest may have become too old.
	if info, err = e.stream.Info(ctx); err != nil {
		return rep, e.bus.failure(doing, err)
	}
	for i := range holes {
		h := &holes[i]
		if h.first = max(h.first, info.State.FirstSeq); h.first <= h.last {
			rep.Missing += h.last - h.first + 1
		}
	}
	if rep.Missing > 0 {
		var purged uint64
		err := e.notes(ctx, func(n *note) bool {
			i := 0
			n.runs(func(a, b uint64) { // both are in ascending order
				for i < len(holes) && holes[i].last < a {
					i++
				}
				for j := i; j < len(holes) && holes[j].first <= b; j++ {
					if lo, hi := max(a, holes[j].first), min(b, holes[j].last); lo <= hi {
						purged += hi - lo + 1
					}
				}
			})
			return true
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return rep, e.bus.failure(doing, err)
		}
		rep.Missing -= min(purged, rep.Missing)
	}
	if rep.Missing > 0 {
		rep.Damaged = true
		_ = e.bus.corruption(fmt.Sprintf("%d events of %s, which are not there", rep.Missing, e.cfg.Name)) // on record
	}
	if progress != nil {
		progress(end-first+1, end-first+1)
	}
	return rep, nil
}
