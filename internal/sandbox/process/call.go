package process

import (
	"context"
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
	c := p.newCall(inv)
	defer p.recycle(c)
	head := appendHead(c.head[:0], &inv.Head)
	c.head = head
	total := len(head) + len(inv.Body)
	if total > wire.MaxInput {
		return res, true, &sandbox.Error{Kind: sandbox.Unavailable, Public: fmt.Sprintf("the request exceeds %d MiB", wire.MaxInput>>20)}
	}
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
	if p.out.Gather(wire.Invoke, stream, start[:], h, b) != nil {
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
// time is over is the process's to stop, and a process that does not is killed, by
// the watch (overdue) or here.
func (p *process) await(ctx context.Context, c *call, stream uint32) {
	select {
	case <-c.done:
		return
	case <-ctx.Done():
	}
	// Sending may wait for a process that reads nothing; the timer must not.
	go func() { _ = p.out.Send(wire.Cancel, stream) }()
	timer := time.NewTimer(p.runner.grace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		p.abandon(c, canceled(ctx), "it did not stop a guest whose caller had gone")
		<-c.done
	}
}

// overdue kills the process when it did not stop a guest whose time was over. The
// watch calls it, so that no call needs a timer of its own.
func (p *process) overdue(tick int64) {
	late := false
	p.mu.Lock()
	for _, c := range p.calls {
		if c.due <= tick && c.forced == nil {
			c.forced = &sandbox.Error{
				Kind: sandbox.Timeout, Public: fmt.Sprintf("the function did not finish within %v", c.limit.Timeout),
			}
			late = true
		}
	}
	p.mu.Unlock()
	if late {
		p.kill("it did not stop a guest whose time was over")
	}
}

// keepHead is the largest buffer that a call keeps for the next one, in bytes.
const keepHead = 16 << 10

// newCall gives a call that nobody else holds: what an earlier one left, emptied,
// or a new one.
func (p *process) newCall(inv *sandbox.Invocation) *call {
	c, ok := p.idle.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1)}
	}
	c.inv, c.limit = inv, inv.Version.Config.Limits
	c.due = p.runner.due(c.limit.Timeout + p.runner.grace)
	return c
}

// recycle takes back a call of which nobody knows any more: it has left p.calls,
// and what it said on done was heard.
func (p *process) recycle(c *call) {
	head := c.head[:0]
	if cap(head) > keepHead {
		head = nil
	}
	*c = call{done: c.done, head: head}
	p.idle.Put(c)
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
		LogBytes: o.LogBytes, LogDropped: o.LogDropped, Fuel: o.Fuel, Calls: o.Calls,
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
