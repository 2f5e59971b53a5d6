package main

import "testing"

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		s    stock
		want int
	}{
		{stock{OnHand: 100, DailyUse: 10, LeadDays: 10}, 0},
		{stock{OnHand: 99, DailyUse: 10, LeadDays: 10}, 101},
		{stock{OnHand: 0, DailyUse: 0, LeadDays: 5}, 0},
	} {
		if got := quantity(c.s); got != c.want {
			t.Errorf("%+v: %d, want %d", c.s, got, c.want)
		}
	}
}
