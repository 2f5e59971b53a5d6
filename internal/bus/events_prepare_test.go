package bus

import "testing"

func TestPrepareHasEventsWaitAndCounted(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	ok(t, e.Prepare(t.Context(), consumer()))
	ok(t, e.Prepare(t.Context(), consumer())) // it is there
	publishAll(t, e, numbered(0, 3)...)
	untilSettled(t, e, consumer().Name, 3, 0) // the server counts soon, not at once
	if got := consume(t, e, consumer(), 3, (*Delivered).Ack); got != "0 1 2" {
		t.Errorf("got %s", got)
	}
	ok(t, e.Prepare(t.Context(), consumer())) // it does not begin anew
	untilSettled(t, e, consumer().Name, 0, 0)
	if err := e.Prepare(t.Context(), consumer(func(c *ConsumerConfig) { c.Name = "Not a name" })); err == nil {
		t.Error("a name that is none was taken")
	}
}
