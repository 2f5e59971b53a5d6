package native

import (
	"testing"
	"time"
)

// An invocation that computes for long makes way; one that answers or waits does not.
func TestLongComputationsMakeWay(t *testing.T) {
	t.Parallel()
	c := newFakeCell()
	m := manners{cell: c}
	used := time.Duration(0)
	step := func(d time.Duration) bool {
		used += d
		m.look(used)
		return c.yields.Load()
	}
	if step(longCompute - 1) {
		t.Error("it makes way although it computes little")
	}
	if !step(longCompute) {
		t.Error("it does not make way although it computes")
	}
	if !step(paceEvery) {
		t.Error("it does not go on making way")
	}
	if step(0) {
		t.Error("it makes way although it waits")
	}
	step(paceEvery)
	m.end()
	if c.yields.Load() {
		t.Error("it makes way in its next invocation")
	}
}

// Who makes way for everybody must not be starved by them.
func TestWhoMakesWayIsNotStarved(t *testing.T) {
	t.Parallel()
	c := newFakeCell()
	m := manners{cell: c}
	m.look(longCompute)
	if !c.yields.Load() {
		t.Fatal("it does not make way")
	}
	used := longCompute + paceEvery*leastShare/100 - 1
	m.look(used)
	if c.yields.Load() {
		t.Error("it makes way although it gets less than its least share")
	}
	m.look(used + paceEvery)
	if !c.yields.Load() {
		t.Error("it does not make way again although it got a share")
	}
}
