package broker

import "testing"

func TestUIDs(t *testing.T) {
	u := newUIDs()
	seen := map[int]bool{}
	for range pairs {
		uid, ok := u.take()
		if !ok || uid < firstUID || uid >= firstUID+2*pairs || uid%2 != 0 || seen[uid] {
			t.Fatalf("after %d: %d, %v", len(seen), uid, ok)
		}
		seen[uid] = true
	}
	if uid, ok := u.take(); ok {
		t.Errorf("with none left: %d", uid)
	}
	u.free(firstUID + 10)
	// The one that is free, wherever the round is.
	if uid, ok := u.take(); !ok || uid != firstUID+10 {
		t.Errorf("the one that was given back: %d, %v", uid, ok)
	}
}
