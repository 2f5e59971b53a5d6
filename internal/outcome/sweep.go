package outcome

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// carriedAtOnce is how many pending records are written again in one go.
const carriedAtOnce = 500

// Run sweeps from time to time until ctx ends.
func (s *Store) Run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Error("outcomes cannot be swept", slog.Any("error", err))
			}
		}
	}
}

// Sweep removes what is too old or too much.
func (s *Store) Sweep(ctx context.Context) error {
	s.mu.Lock()
	var names []string
	for ns := range s.spaces {
		names = append(names, ns)
	}
	s.mu.Unlock()
	var failed error
	for _, ns := range names {
		failed = errors.Join(failed, s.sweep(ctx, ns, s.share()))
	}
	return errors.Join(failed, s.shrink(ctx))
}

// share is what a namespace may hold.
func (s *Store) share() amount { return amount{s.cfg.Records, s.cfg.Bytes} }

func (a amount) over(most amount) bool { return a.records > most.records || a.bytes > most.bytes }

// makeRoom sweeps when a namespace, or all of them, hold more than they may.
func (s *Store) makeRoom(ctx context.Context, ns string) error {
	all := amount{shares * s.cfg.Records, shares * s.cfg.Bytes}
	s.mu.Lock()
	sp := s.spaces[ns]
	full, crowded := sp != nil && sp.amount.over(s.share()), s.total.over(all)
	s.mu.Unlock()
	var err error
	if full {
		err = s.sweep(ctx, ns, s.share())
	}
	if crowded {
		err = errors.Join(err, s.shrink(ctx))
	}
	return err
}

// shrink has the largest namespace give way until all together fit, or none can.
func (s *Store) shrink(ctx context.Context) error {
	all := amount{shares * s.cfg.Records, shares * s.cfg.Bytes}
	for {
		s.mu.Lock()
		before := s.total
		var largest string
		var most amount
		for ns, sp := range s.spaces {
			if sp.amount.bytes > most.bytes {
				largest, most = ns, sp.amount
			}
		}
		s.mu.Unlock()
		if !before.over(all) {
			return nil
		}
		if err := s.sweep(ctx, largest, amount{most.records - 1, most.bytes - 1}); err != nil {
			return err
		}
		s.mu.Lock()
		stuck := s.total.bytes >= before.bytes
		s.mu.Unlock()
		if stuck {
			return nil // all that is left is pending
		}
	}
}

// cut is the head of a channel that goes.
type cut struct {
	upTo    uint64
	dropped []string // ids of what is forgotten
	carried []string // ids of what is pending and is written again
}

// sweep removes what is too old from a namespace and, if it holds more than most, the
// oldest ends until an eighth of it is free.
func (s *Store) sweep(ctx context.Context, ns string, most amount) error {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	s.writes.Lock()
	s.mu.Lock()
	c := s.plan(ns, most)
	for _, id := range c.dropped {
		s.drop(id)
	}
	s.mu.Unlock()
	s.writes.Unlock()
	if c.upTo == 0 {
		return nil
	}
	for len(c.carried) > 0 {
		n := min(len(c.carried), carriedAtOnce)
		if err := s.carry(ctx, ns, c.carried[:n]); err != nil {
			return err
		}
		c.carried = c.carried[n:]
	}
	if _, err := s.cfg.Stream.Purge(ctx, ns, Channel, c.upTo); err != nil {
		return fmt.Errorf("sweeping outcomes of %s: %w", ns, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[ns]
	gone := 0
	for ; gone < len(sp.log) && sp.log[gone].sequence <= c.upTo; gone++ {
		b := sp.log[gone].bytes
		sp.amount.add(-1, -b)
		s.total.add(-1, -b)
	}
	sp.log = append([]slot(nil), sp.log[gone:]...)
	if len(sp.log) == 0 {
		delete(s.spaces, ns)
	}
	return nil
}

// plan decides where to cut. s.mu is held, and s.writes, so that no record exists up to
// the cut that the log does not know.
func (s *Store) plan(ns string, most amount) cut {
	sp := s.spaces[ns]
	if sp == nil {
		return cut{}
	}
	now, left := s.cfg.Clock(), sp.amount
	crowded := left.over(most)
	roomy := amount{most.records - most.records/8, most.bytes - most.bytes/8}
	var c, best cut
	useless := 0 // records so far that need not be written again
	for _, at := range sp.log {
		e := s.index[at.id]
		switch {
		case e == nil || e.sequence != at.sequence:
			useless++
		case s.over(e, now), !e.ended.IsZero() && crowded && left.over(roomy):
			useless++
			c.dropped = append(c.dropped, at.id)
		case e.ended.IsZero():
			c.carried = append(c.carried, at.id)
			continue // as the last one it would be written again for nothing
		default:
			return best
		}
		left.add(-1, -at.bytes)
		c.upTo = at.sequence
		// Writing again must be worth it, except where there is need.
		if crowded || useless >= len(c.carried) {
			best = c
		}
	}
	return best
}

// carry writes records of what is pending again, at the tail.
func (s *Store) carry(ctx context.Context, ns string, ids []string) error {
	s.writes.RLock()
	defer s.writes.RUnlock()
	s.mu.Lock()
	var entries []Entry
	var all []*Invocation
	for _, id := range ids {
		e := s.index[id]
		if e == nil || !e.ended.IsZero() {
			continue
		}
		inv := &Invocation{ID: id, Ref: e.ref, Principal: e.principal, State: Pending, Accepted: e.accepted}
		b, err := encode(inv)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		entries = append(entries, Entry{Namespace: ns, Channel: Channel, ID: fmt.Sprintf("%s.carried%d", id, e.sequence), Data: b})
		all = append(all, inv)
	}
	s.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	at, err := s.cfg.Stream.Publish(ctx, entries)
	if err != nil {
		return fmt.Errorf("writing pending invocations of %s again: %w", ns, err)
	}
	if len(at) != len(entries) {
		return fmt.Errorf("writing pending invocations of %s again: %w", ns, state.ErrCorrupt)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, inv := range all {
		if s.index[inv.ID] == nil {
			continue // forgotten in between
		}
		s.add(inv, at[i].Sequence, len(entries[i].Data))
	}
	return nil
}
