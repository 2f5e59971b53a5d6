package native

import (
	"testing"
	"testing/synctest"
	"time"
)

// Servers are asked to end (SIGTERM) and given some time; those that do not are killed.
func TestServersAreAskedToEndBeforeTheyAreKilled(t *testing.T) {
	t.Parallel()
	for name, polite := range map[string]bool{"ends when asked": true, "does not listen": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i, c := newInstance(t, time.Now())
				i.terminates = true
				go func() {
					for !c.asked.Load() {
						<-time.After(time.Millisecond)
					}
					if polite {
						<-time.After(time.Second)
						c.end(Ending{})
					}
				}()
				begun := time.Now()
				i.end()
				took := time.Since(begun)
				if polite && (took > 2*time.Second || c.how.Signal != "") {
					t.Errorf("it ended with %q after %v, want by itself after a second", c.how.Signal, took)
				}
				if !polite && (took < grace || !c.killed.Load()) {
					t.Errorf("killed: %v after %v", c.killed.Load(), took)
				}
			})
		})
	}
}

// Code in an unknown state is not asked anything.
func TestBrokenOnesAreKilledAtOnce(t *testing.T) {
	t.Parallel()
	i, c := newInstance(t, time.Now())
	i.terminates, i.broken = true, true
	i.end()
	if c.asked.Load() || !c.killed.Load() {
		t.Errorf("asked %v, killed %v", c.asked.Load(), c.killed.Load())
	}
}

func TestEndingsInWords(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Ending{
		"exit status 3": {Code: 3}, "signal: killed": {Code: -1, Signal: "killed"}, "out of memory": {Code: -1, Signal: "killed", OOM: true},
	} {
		if got := e.String(); got != want {
			t.Errorf("%+v reads %q", e, got)
		}
	}
}
