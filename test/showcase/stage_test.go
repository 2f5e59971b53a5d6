package main

import (
	"context"
	"os"
	"testing"
)

// What an act started goes in reverse, whether the act was done, gave up or failed.
func TestAStageEndsWhatWasStartedOnIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act             func(testing.TB)
		skipped, failed string
	}{
		"done":    {func(testing.TB) {}, "", ""},
		"skipped": {func(t testing.TB) { t.Skip("not", "here") }, "not here", ""},
		"failed":  {func(t testing.TB) { t.Fatalf("%d is wrong", 3) }, "", "3 is wrong"},
		"twice":   {func(t testing.TB) { t.Error("one"); t.Fatal("two") }, "", "one\ntwo"},
	} {
		var order []int
		dir := ""
		end, skipped, err := perform(context.Background(), name, func(t testing.TB) {
			t.Cleanup(func() { order = append(order, 1) })
			t.Cleanup(func() { order = append(order, 2) })
			dir = t.TempDir()
			c.act(t)
		})
		if _, stat := os.Stat(dir); stat != nil || len(order) != 0 {
			t.Errorf("%s: it ended before it was told to: %v, %v", name, order, stat)
		}
		end()
		failed := ""
		if err != nil {
			failed = err.Error()
		}
		if skipped != c.skipped || failed != c.failed {
			t.Errorf("%s: skipped %q, failed %q", name, skipped, failed)
		}
		if _, stat := os.Stat(dir); !os.IsNotExist(stat) || len(order) != 2 || order[0] != 2 {
			t.Errorf("%s: after the end: %v, %v", name, order, stat)
		}
	}
}
