package wasm

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // WebCrypto offers it, for formats that need it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// Refusals of call and submit.
const (
	refusedUnknown = -1 // no such operation, or not granted
	refusedRequest = -2 // the request has no valid form
	refusedTooMany = -3 // too many replies are held, or operations under way
)

// Bounds on what one invocation may hold of operations.
const (
	maxReplies    = 1024
	maxReplyBytes = 16 << 20
)

// longRequest is how much data is digested while nobody else is served, in bytes.
const longRequest = 256 << 10

// How a reply begins.
const replyDone = 0

// hostFunction is a function of the module casemate, whose parameters are all i32.
type hostFunction struct {
	params int
	do     func(i *invocation, mem api.Memory, p []uint64) int32
}

// hostFunctions lists the module casemate.
//
//   - call(op, op length, request, request length) performs an operation
//     and gives the handle of its reply, or a refusal;
//   - submit, with the same parameters, begins one;
//   - poll() waits for one that was begun and gives its handle, or 0 when none is
//     under way;
//   - size(handle) is the length of a reply, -1 while there is none;
//   - read(handle, address, length) copies the reply, drops it, and gives how much
//     was copied, or -1.
//
// A reply is one byte, 0 for done and 1 for failed, and the result or the reason.
func hostFunctions() map[string]hostFunction {
	return map[string]hostFunction{
		"call":   {4, hostCall},
		"submit": {4, hostSubmit},
		"poll":   {0, func(i *invocation, _ api.Memory, _ []uint64) int32 { return i.operations().poll(i) }},
		"size":   {1, func(i *invocation, _ api.Memory, p []uint64) int32 { return i.operations().size(uint32(p[0])) }},
		"read":   {3, hostRead},
	}
}

// exportOperations links the module casemate into a runtime.
func exportOperations(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(importModule)
	for name, f := range hostFunctions() {
		params := make([]api.ValueType, f.params)
		for i := range params {
			params[i] = api.ValueTypeI32
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			i, _ := wasi.From(ctx).(*invocation)
			i.Called()
			i.check()
			if b := i.boot; b != nil && b.command {
				// Replies are an invocation's own, so a command makes its calls in one.
				b.stopHere(ctx, stack, func(g wasi.Guest, mem api.Memory, p []uint64) wasi.Errno {
					return wasi.Errno(uint32(f.do(g.(*invocation), mem, p)))
				})
			}
			stack[0] = api.EncodeI32(f.do(i, mod.Memory(), stack))
		}), params, []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("linking %s: %v", importModule, err)
	}
	return nil
}

// operations is what one invocation has of replies and of operations under way. The
// mutex guards the fields below it, since operations end in goroutines of their own.
type operations struct {
	mu      sync.Mutex
	last    uint32
	replies map[uint32][]byte
	bytes   int
	ended   []uint32 // submitted ones that poll has not given yet
	under   int      // submitted ones that have not ended
	timers  map[uint32]*time.Timer
	signal  chan struct{} // room for one
}

func (i *invocation) operations() *operations {
	if i.ops == nil {
		i.ops = &operations{replies: map[uint32][]byte{}, timers: map[uint32]*time.Timer{}, signal: make(chan struct{}, 1)}
	}
	return i.ops
}

// stop ends what is under way. Nothing is heard of it any more.
func (o *operations) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.timers {
		t.Stop()
	}
}

// full reports whether nothing more can be held. The mutex is held.
func (o *operations) full() bool {
	return len(o.replies)+o.under >= maxReplies || o.bytes >= maxReplyBytes
}

// keep holds a reply and gives its handle. The mutex is held.
func (o *operations) keep(result []byte) uint32 {
	o.last++
	o.hold(o.last, result)
	return o.last
}

// hold keeps the reply of a handle that was given before. The mutex is held.
func (o *operations) hold(handle uint32, result []byte) {
	o.replies[handle] = append([]byte{replyDone}, result...)
	o.bytes += len(result) + 1
}

func (o *operations) poll(i *invocation) int32 {
	for {
		o.mu.Lock()
		if len(o.ended) > 0 {
			handle := o.ended[0]
			o.ended = o.ended[1:]
			o.mu.Unlock()
			return int32(handle)
		}
		under := o.under
		o.mu.Unlock()
		if under == 0 {
			return 0
		}
		i.worker.pass()
		i.log.flush()
		o.await(i)
	}
}

// await returns when an operation may have ended, or ends the run.
func (o *operations) await(i *invocation) {
	now := i.srv.clock()
	timer := time.NewTimer(max(i.deadline.Sub(now), 0) + time.Millisecond)
	defer timer.Stop()
	select {
	case <-o.signal:
	case <-timer.C:
	case <-i.wake:
	}
	i.pace.away(i.check().Sub(now))
}

func (o *operations) size(handle uint32) int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b, ok := o.replies[handle]; ok {
		return int32(len(b))
	}
	return -1
}

func hostRead(i *invocation, mem api.Memory, p []uint64) int32 {
	o, handle := i.operations(), uint32(p[0])
	o.mu.Lock()
	defer o.mu.Unlock()
	b, ok := o.replies[handle]
	if !ok {
		return -1
	}
	b = b[:min(uint64(len(b)), uint64(uint32(p[2])))]
	if !mem.Write(uint32(p[1]), b) {
		return -1
	}
	o.bytes -= len(o.replies[handle])
	delete(o.replies, handle)
	return int32(len(b))
}

// request gives the name of the operation and its request, both in guest memory.
func request(mem api.Memory, p []uint64) (op string, req []byte, ok bool) {
	name, ok1 := mem.Read(uint32(p[0]), min(uint32(p[1]), 64))
	req, ok2 := mem.Read(uint32(p[2]), uint32(p[3]))
	return string(name), req, ok1 && ok2
}

func hostCall(i *invocation, mem api.Memory, p []uint64) int32 {
	op, req, ok := request(mem, p)
	if !ok {
		return refusedRequest
	}
	if len(req) > longRequest {
		i.worker.pass()
	}
	var result []byte
	switch op {
	case "crypto.digest":
		result, ok = digest(req)
	case "crypto.hmac":
		result, ok = mac(req)
	default:
		return refusedUnknown
	}
	if !ok {
		return refusedRequest
	}
	o := i.operations()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full() {
		return refusedTooMany
	}
	return int32(o.keep(result))
}

func hostSubmit(i *invocation, mem api.Memory, p []uint64) int32 {
	op, req, ok := request(mem, p)
	if i.boot != nil || i.preparing || op != "time.sleep" {
		return refusedUnknown
	}
	if !ok || len(req) != 8 {
		return refusedRequest
	}
	o := i.operations()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full() {
		return refusedTooMany
	}
	o.last++
	handle := o.last
	o.under++
	wait := time.Duration(min(binary.LittleEndian.Uint64(req), math.MaxInt64))
	o.timers[handle] = time.AfterFunc(wait, func() { o.end(handle) })
	return int32(handle)
}

// end says that an operation that was submitted is over.
func (o *operations) end(handle uint32) {
	o.mu.Lock()
	delete(o.timers, handle)
	o.under--
	o.hold(handle, nil)
	o.ended = append(o.ended, handle)
	o.mu.Unlock()
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// algorithm gives a hash by its number in requests.
func algorithm(n byte) func() hash.Hash {
	switch n {
	case 1:
		return sha1.New
	case 2:
		return sha256.New
	case 3:
		return sha512.New384
	case 4:
		return sha512.New
	default:
		return nil
	}
}

// digest answers crypto.digest: an algorithm, then the data.
func digest(req []byte) ([]byte, bool) {
	if len(req) == 0 || algorithm(req[0]) == nil {
		return nil, false
	}
	h := algorithm(req[0])()
	_, _ = h.Write(req[1:]) // a hash never fails
	return h.Sum(nil), true
}

// mac answers crypto.hmac: an algorithm, the key's length, the key, the data.
func mac(req []byte) ([]byte, bool) {
	if len(req) < 5 || algorithm(req[0]) == nil {
		return nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(req[1:]))
	rest := req[5:]
	if n > uint64(len(rest)) {
		return nil, false
	}
	h := hmac.New(algorithm(req[0]), rest[:n])
	_, _ = h.Write(rest[n:]) // a hash never fails
	return h.Sum(nil), true
}
