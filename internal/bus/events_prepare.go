package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/casemate-dev/casemate/internal/state"
)

// Prepare makes the consumer when it is absent, as Consume does, and delivers nothing: what
// is stored from then on waits for it, and Backlog counts it.
func (e *Events) Prepare(ctx context.Context, cfg ConsumerConfig) error {
	doing := "preparing consumer " + cfg.Name
	subject, err := e.subject(cfg.Namespace, cfg.Channel)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %v", doing, err)
	case !validConsumer(cfg.Name):
		return fmt.Errorf("%s: the name is not made of labels, %d characters at most", doing, maxConsumer)
	}
	if _, lost := e.isLost(consumerName(cfg.Name)); lost {
		return nil // Backlog counts already, and Consume is to know
	}
	if _, err := e.consumer(ctx, cfg.Name); err == nil || !errors.Is(err, state.ErrNotFound) {
		return err
	}
	c := &consuming{e: e, name: consumerName(cfg.Name), subject: subject, watch: newWatch(cfg.AckWait)}
	if err := c.open(ctx, cfg); err != nil {
		return e.bus.failure(doing, err)
	}
	return nil
}
