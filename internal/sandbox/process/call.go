package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// invoke runs one invocation in the process. reached is false when the guest
// certainly never started.
func (p *process) invoke(ctx context.Context, inv *sandbox.Invocation, l *load) (res sandbox.Result, reached bool, err *sandbox.Error) {
	head, jsonErr := json.Marshal(&inv.Head)
	if jsonErr != nil {
		return res, true, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the request cannot be handed over", Cause: jsonErr}
	}
	head = append(head, '\n')
	total := len(head) + len(inv.Body)
	if total > wire.MaxInput {
		return res, true, &sandbox.Error{Kind: sandbox.Unavailable, Public: fmt.Sprintf("the request exceeds %d MiB", wire.MaxInput>>20)}
	}
	c := &call{inv: inv, limit: inv.Version.Config.Limits, done: make(chan struct{}, 1)}
	p.mu.Lock()
	if p.dead {
		reason := p.reason
		p.mu.Unlock()
		return res, false, lost(reason)
	}
	p.streams++
	stream := p.streams
	p.calls[stream] = c
	p.mu.Unlock()

	sent := p.send(ctx, stream, l.stream, head, inv.Body)
	p.await(ctx, c, stream)
	res, err = c.result()
	res.Usage.Sandbox, res.Usage.Kind = p.id, p.kind
	return res, sent, err
}

// send writes the invocation. It reports whether the guest may have started.
func (p *process) send(ctx context.Context, stream, version uint32, head, body []byte) bool {
	var start [wire.StartSize]byte
	wire.AppendStart(start[:0], wire.Start{Version: version, Input: uint32(len(head) + len(body))})
	room := wire.MaxPayload - len(start)
	h := head[:min(len(head), room)]
	b := body[:min(len(body), room-len(h))]
	if p.out.Send(wire.Invoke, stream, start[:], h, b) != nil {
		return false
	}
	head, body = head[len(h):], body[len(b):]
	if len(head) == 0 && len(body) == 0 {
		return true
	}
	for _, rest := range [...][]byte{head, body} {
		for len(rest) > 0 {
			if ctx.Err() != nil {
				return false // await tells the process
			}
			n := min(len(rest), wire.MaxPayload)
			if p.out.Send(wire.Body, stream, rest[:n]) != nil {
				return false
			}
			rest = rest[n:]
		}
	}
	return true
}

// await returns when the call has ended, and sees to it that it does: a guest whose
// time is over is the process's to stop, and a process that does not is killed.
func (p *process) await(ctx context.Context, c *call, stream uint32) {
	timer := time.NewTimer(c.limit.Timeout + p.runner.grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return
	case <-timer.C:
		p.abandon(c, &sandbox.Error{
			Kind: sandbox.Timeout, Public: fmt.Sprintf("the function did not finish within %v", c.limit.Timeout),
		}, "it did not stop a guest whose time was over")
		<-c.done
		return
	case <-ctx.Done():
	}
	// Sending may wait for a process that reads nothing; the timer must not.
	go func() { _ = p.out.Send(wire.Cancel, stream) }()
	timer.Reset(p.runner.grace)
	select {
	case <-c.done:
	case <-timer.C:
		p.abandon(c, canceled(ctx), "it did not stop a guest whose caller had gone")
		<-c.done
	}
}

// abandon kills the process on account of one call, which gets an error of its own.
func (p *process) abandon(c *call, e *sandbox.Error, reason string) {
	p.mu.Lock()
	c.forced = e
	p.mu.Unlock()
	p.kill(reason)
}

func canceled(ctx context.Context) *sandbox.Error {
	return &sandbox.Error{Kind: sandbox.Canceled, Public: "the caller has gone", Cause: context.Cause(ctx)}
}

// result says what came of a call that has ended.
func (c *call) result() (sandbox.Result, *sandbox.Error) {
	o := c.outcome
	res := sandbox.Result{Usage: sandbox.Usage{
		Wall: o.Wall, CPU: o.CPU, MemoryPeak: o.MemoryPeak, BytesOut: o.BytesOut,
		LogBytes: o.LogBytes, LogDropped: o.LogDropped,
	}}
	if c.failure != nil {
		return res, c.failure
	}
	head, body, err := splitAnswer(c.out)
	if err != nil {
		return res, &sandbox.Error{Kind: sandbox.BadAnswer, Public: "the function's answer is not valid: " + err.Error()}
	}
	if int64(len(body)) > c.limit.Output {
		return res, &sandbox.Error{Kind: sandbox.Output, Public: "the answer exceeds its limit", Cause: errors.New("the sandbox let it pass")}
	}
	res.Response, res.Body = head, body
	return res, nil
}

// validText makes a string of bytes that a guest wrote.
func validText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
