package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Web Crypto has it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// World is what an instance sees of the outside. The zero value has clocks that
// stand still, zeros for entropy and no environment.
type World struct {
	Now       int64             // Unix nanoseconds
	Monotonic int64             // nanoseconds; sleeping moves both clocks
	Entropy   func(data []byte) // fills with random bytes
	Env       []string
	Log       bytes.Buffer // standard error of the last call
	Chunk     int          // bytes that one read or write moves at the most; 0 for no limit

	// Op performs further operations for call and submit. ok false is a failure with
	// the reply as its reason; known false means there is no such operation.
	Op func(op string, req []byte) (reply []byte, ok, known bool)

	// Calls counts the host calls of the last call by name.
	Calls map[string]int

	in, out   []byte
	preparing bool
	handles   int32
	replies   map[int32][]byte
	ready     []ended
}

type ended struct {
	at     int64 // monotonic; 0 for at once
	handle int32
}

type worldKey struct{}

func worldOf(ctx context.Context) *World { return ctx.Value(worldKey{}).(*World) }

func (w *World) begin(input []byte) {
	w.in, w.out = input, w.out[:0]
	w.Log.Reset()
	clear(w.Calls)
	clear(w.replies)
	w.ready, w.handles = w.ready[:0], 0
}

func (w *World) count(name string) {
	if w.Calls != nil {
		w.Calls[name]++
	}
}

const (
	errnoOK   = 0
	errnoBadf = 8
)

type hostFunc struct {
	name    string
	params  int
	result  bool
	longArg int // the parameter that is an i64, from 1; 0 for none
	f       func(w *World, m api.Memory, s []uint64)
}

func linkHost(ctx context.Context, r wazero.Runtime) error {
	for module, funcs := range map[string][]hostFunc{"wasi_snapshot_preview1": wasi, "casemate": casemate} {
		b := r.NewHostModuleBuilder(module)
		for _, h := range funcs {
			params := slices.Repeat([]api.ValueType{api.ValueTypeI32}, h.params)
			if h.longArg > 0 {
				params[h.longArg-1] = api.ValueTypeI64
			}
			var results []api.ValueType
			if h.result {
				results = []api.ValueType{api.ValueTypeI32}
			}
			b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, s []uint64) {
				w := worldOf(ctx)
				w.count(h.name)
				for k := range h.params { // the upper halves of 32-bit values are not defined
					if k+1 != h.longArg {
						s[k] = uint64(uint32(s[k]))
					}
				}
				h.f(w, m.Memory(), s)
			}), params, results).Export(h.name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

func must(data []byte, ok bool) []byte {
	if !ok {
		panic("the guest gave a place outside its memory")
	}
	return data
}

func read(m api.Memory, ptr, n uint64) []byte {
	return must(m.Read(uint32(ptr), uint32(n)))
}

func putUint32(m api.Memory, ptr uint64, v uint32) {
	binary.LittleEndian.PutUint32(read(m, ptr, 4), v)
}

// vector gives the first piece of memory that an iovec names.
func (w *World) vector(m api.Memory, ptr uint64) []byte {
	v := read(m, ptr, 8)
	p := read(m, uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[4:])))
	if w.Chunk > 0 && len(p) > w.Chunk {
		p = p[:w.Chunk]
	}
	return p
}

var wasi = []hostFunc{
	{name: "fd_read", params: 4, result: true, f: func(w *World, m api.Memory, s []uint64) {
		if s[0] != 0 {
			s[0] = errnoBadf
			return
		}
		n := copy(w.vector(m, s[1]), w.in)
		w.in = w.in[n:]
		putUint32(m, s[3], uint32(n))
		s[0] = errnoOK
	}},
	{name: "fd_write", params: 4, result: true, f: func(w *World, m api.Memory, s []uint64) {
		p := w.vector(m, s[1])
		switch s[0] {
		case 1:
			w.out = append(w.out, p...)
		case 2:
			w.Log.Write(p)
		default:
			s[0] = errnoBadf
			return
		}
		putUint32(m, s[3], uint32(len(p)))
		s[0] = errnoOK
	}},
	{name: "clock_time_get", params: 3, result: true, longArg: 2, f: func(w *World, m api.Memory, s []uint64) {
		t := w.Now
		if s[0] == 1 {
			t = w.Monotonic
		}
		binary.LittleEndian.PutUint64(read(m, s[2], 8), uint64(t))
		s[0] = errnoOK
	}},
	{name: "random_get", params: 2, result: true, f: func(w *World, m api.Memory, s []uint64) {
		p := read(m, s[0], s[1])
		clear(p)
		if w.Entropy != nil {
			w.Entropy(p)
		}
		s[0] = errnoOK
	}},
	{name: "environ_sizes_get", params: 2, result: true, f: func(w *World, m api.Memory, s []uint64) {
		n := 0
		for _, e := range w.Env {
			n += len(e) + 1
		}
		putUint32(m, s[0], uint32(len(w.Env)))
		putUint32(m, s[1], uint32(n))
		s[0] = errnoOK
	}},
	{name: "environ_get", params: 2, result: true, f: func(w *World, m api.Memory, s []uint64) {
		list, data := s[0], s[1]
		for _, e := range w.Env {
			putUint32(m, list, uint32(data))
			copy(read(m, data, uint64(len(e)+1)), e+"\x00")
			list, data = list+4, data+uint64(len(e)+1)
		}
		s[0] = errnoOK
	}},
	{name: "proc_exit", params: 1, f: func(w *World, _ api.Memory, _ []uint64) {
		panic("the guest exits: " + w.Log.String())
	}},
}

var casemate = []hostFunc{
	{name: "call", params: 4, result: true, f: func(w *World, m api.Memory, s []uint64) {
		h, code := w.start(string(read(m, s[0], s[1])), read(m, s[2], s[3]), false)
		s[0] = api.EncodeI32(cmp.Or(code, h))
	}},
	{name: "submit", params: 4, result: true, f: func(w *World, m api.Memory, s []uint64) {
		if w.preparing {
			s[0] = api.EncodeI32(-1)
			return
		}
		h, code := w.start(string(read(m, s[0], s[1])), read(m, s[2], s[3]), true)
		s[0] = api.EncodeI32(cmp.Or(code, h))
	}},
	{name: "poll", result: true, f: func(w *World, _ api.Memory, s []uint64) {
		s[0] = uint64(w.poll())
	}},
	{name: "size", params: 1, result: true, f: func(w *World, _ api.Memory, s []uint64) {
		r, ok := w.replies[int32(s[0])]
		s[0] = api.EncodeI32(int32(len(r)))
		if !ok {
			s[0] = api.EncodeI32(-1)
		}
	}},
	{name: "read", params: 3, result: true, f: func(w *World, m api.Memory, s []uint64) {
		h := int32(s[0])
		r, ok := w.replies[h]
		if !ok {
			s[0] = api.EncodeI32(-1)
			return
		}
		delete(w.replies, h)
		s[0] = uint64(copy(read(m, s[1], s[2]), r))
	}},
}

// poll ends the operation that is due first, moving the clocks when it is a sleep.
func (w *World) poll() int32 {
	if len(w.ready) == 0 {
		return 0
	}
	i := 0
	for k, e := range w.ready {
		if e.at < w.ready[i].at {
			i = k
		}
	}
	e := w.ready[i]
	w.ready = slices.Delete(w.ready, i, i+1)
	if e.at > w.Monotonic {
		w.Now += e.at - w.Monotonic
		w.Monotonic = e.at
	}
	return e.handle
}

func (w *World) start(op string, req []byte, later bool) (handle, code int32) {
	reply, ok, known := w.perform(op, req, later)
	if !known {
		return 0, -1
	}
	if w.replies == nil {
		w.replies = map[int32][]byte{}
	}
	w.handles++
	status := byte(1)
	if ok {
		status = 0
	}
	w.replies[w.handles] = append([]byte{status}, reply...)
	if later {
		e := ended{handle: w.handles}
		if op == "time.sleep" {
			e.at = w.Monotonic + int64(binary.LittleEndian.Uint64(req))
		}
		w.ready = append(w.ready, e)
	}
	return w.handles, 0
}

var algorithms = []func() hash.Hash{nil, sha1.New, sha256.New, sha512.New384, sha512.New}

func (w *World) perform(op string, req []byte, later bool) (reply []byte, ok, known bool) {
	switch op {
	case "time.sleep":
		return nil, true, later
	case "crypto.digest":
		h := algorithms[req[0]]()
		h.Write(req[1:])
		return h.Sum(nil), true, true
	case "crypto.hmac":
		n := binary.LittleEndian.Uint32(req[1:])
		h := hmac.New(algorithms[req[0]], req[5:5+n])
		h.Write(req[5+n:])
		return h.Sum(nil), true, true
	}
	if w.Op == nil {
		return nil, false, false
	}
	return w.Op(op, req)
}
