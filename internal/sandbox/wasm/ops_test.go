package wasm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// desk is a guest's side of the operations, without the guest.
type desk struct {
	t   *testing.T
	i   *invocation
	mem api.Memory
	end func() // of the invocation
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	e := newEngine(t, "")
	m := guest(nil, st.Func{Name: "handle", Body: reply(0)})
	m.Memory = 300 // more than the replies that may be held
	v := e.load(m.Encode(), function.EntryHandle)
	i := e.srv.takeInvocation(v)
	in, err := v.acquire(i)
	if err != nil || !in.memory.Begin(0) {
		t.Fatal("no instance", err)
	}
	i.inst = in
	i.begin(generous.Timeout, generous.ComputeTime(), noLimit)
	d := &desk{t: t, i: i, mem: in.module.Memory()}
	d.end = sync.OnceFunc(func() {
		i.leave()
		e.srv.giveInvocation(i)
	})
	t.Cleanup(d.end)
	return d
}

// do calls one of the functions.
func (d *desk) do(name string, params ...uint64) int32 {
	return hostFunctions()[name].do(d.i, d.mem, params)
}

// ask calls or submits an operation.
func (d *desk) ask(how, op string, request []byte) int32 {
	d.mem.Write(0, []byte(op))
	d.mem.Write(4096, request)
	return d.do(how, 0, uint64(len(op)), 4096, uint64(len(request)))
}

// result takes the reply, which must be a success.
func (d *desk) result(handle int32) []byte {
	d.t.Helper()
	n := d.do("size", uint64(uint32(handle)))
	if n < 1 {
		d.t.Fatalf("handle %d has %d bytes", handle, n)
	}
	if got := d.do("read", uint64(uint32(handle)), 65536, uint64(n)); got != n {
		d.t.Fatalf("of %d bytes %d were read", n, got)
	}
	b, _ := d.mem.Read(65536, uint32(n))
	if b[0] != replyDone {
		d.t.Fatalf("the reply is %q", b)
	}
	return bytes.Clone(b[1:])
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDigests takes the vectors that accompany FIPS 180-4.
func TestDigests(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	million := strings.Repeat("a", 1_000_000)
	for _, c := range []struct {
		algorithm byte
		data, hex string
	}{
		{1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
		{1, "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
		{1, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
		{2, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{2, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{2, million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
		{3, "abc", "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},
		{4, "abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
	} {
		got := d.result(d.ask("call", "crypto.digest", append([]byte{c.algorithm}, c.data...)))
		if hex.EncodeToString(got) != c.hex {
			t.Errorf("algorithm %d of %d bytes gave %x", c.algorithm, len(c.data), got)
		}
	}
}

// TestMACs takes the vectors of RFC 4231 and RFC 2202.
func TestMACs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range []struct {
		algorithm       byte
		key, data, want string
	}{
		{2, strings.Repeat("0b", 20), hex.EncodeToString([]byte("Hi There")), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{3, strings.Repeat("0b", 20), hex.EncodeToString([]byte("Hi There")), "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"},
		{4, strings.Repeat("0b", 20), hex.EncodeToString([]byte("Hi There")), "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{2, hex.EncodeToString([]byte("Jefe")), hex.EncodeToString([]byte("what do ya want for nothing?")), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{2, strings.Repeat("aa", 20), strings.Repeat("dd", 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{2, strings.Repeat("aa", 131), hex.EncodeToString([]byte("Test Using Larger Than Block-Size Key - Hash Key First")), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		{1, strings.Repeat("0b", 20), hex.EncodeToString([]byte("Hi There")), "b617318655057264e28bc0b6fb378c8ef146be00"},
	} {
		key := unhex(t, c.key)
		request := binary.LittleEndian.AppendUint32([]byte{c.algorithm}, uint32(len(key)))
		request = slices.Concat(request, key, unhex(t, c.data))
		if got := d.result(d.ask("call", "crypto.hmac", request)); hex.EncodeToString(got) != c.want {
			t.Errorf("algorithm %d gave %x, want %s", c.algorithm, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	nap := make([]byte, 8)
	for _, c := range []struct {
		how, op string
		request []byte
		want    int32
	}{
		{"call", "", nil, refusedUnknown},
		{"call", "crypto.digesT", []byte{2}, refusedUnknown},
		{"call", "crypto.digest\x00", []byte{2}, refusedUnknown},
		{"call", strings.Repeat("crypto.digest", 100), []byte{2}, refusedUnknown},
		{"call", "time.sleep", nap, refusedUnknown},
		{"submit", "crypto.digest", []byte{2}, refusedUnknown},
		{"submit", "", nil, refusedUnknown},
		{"call", "crypto.digest", nil, refusedRequest},
		{"call", "crypto.digest", []byte{0}, refusedRequest},
		{"call", "crypto.digest", []byte{5, 1}, refusedRequest},
		{"call", "crypto.hmac", []byte{2, 0, 0, 0}, refusedRequest},
		{"call", "crypto.hmac", []byte{2, 1, 0, 0, 0}, refusedRequest},
		{"call", "crypto.hmac", []byte{2, 255, 255, 255, 255, 1}, refusedRequest},
		{"call", "crypto.hmac", []byte{9, 0, 0, 0, 0}, refusedRequest},
		{"submit", "time.sleep", nap[:7], refusedRequest},
		{"submit", "time.sleep", make([]byte, 9), refusedRequest},
	} {
		if got := d.ask(c.how, c.op, c.request); got != c.want {
			t.Errorf("%s %.20q with %x gave %d, want %d", c.how, c.op, c.request, got, c.want)
		}
	}
	// Pointers outside memory, in each place.
	d.mem.Write(0, []byte("crypto.digest"))
	end := uint64(d.mem.Size())
	for _, p := range [][]uint64{{end, 13, 0, 1}, {end - 5, 13, 0, 1}, {0, 13, end, 1}, {0, 13, 0, end + 1}, {0, 13, math.MaxUint32, math.MaxUint32}, {math.MaxUint32, 13, 0, 1}} {
		if got := d.do("call", p...); got != refusedRequest {
			t.Errorf("call%v gave %d", p, got)
		}
		if got := d.do("submit", p...); got != refusedRequest && got != refusedUnknown {
			t.Errorf("submit%v gave %d", p, got)
		}
	}
	for _, handle := range []uint64{0, 1, 7, math.MaxUint32} {
		if d.do("size", handle) != -1 || d.do("read", handle, 0, 10) != -1 {
			t.Errorf("handle %d has a reply", handle)
		}
	}
	if d.do("poll") != 0 {
		t.Error("something is under way")
	}
}

func TestReplies(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	h := d.ask("call", "crypto.digest", []byte{2, 'a'})
	// Outside memory nothing is copied, and the reply stays.
	if got := d.do("read", uint64(h), uint64(d.mem.Size())-10, 33); got != -1 {
		t.Errorf("reading to the end of memory gave %d", got)
	}
	if got := d.do("read", uint64(h), 100, 5); got != 5 {
		t.Errorf("reading the beginning gave %d", got)
	}
	if d.do("size", uint64(h)) != -1 || d.do("read", uint64(h), 100, 5) != -1 {
		t.Error("a reply can be read twice")
	}
	if d.i.ops.bytes != 0 {
		t.Errorf("%d bytes are held", d.i.ops.bytes)
	}
	// As many as may be held, and again after one was read.
	var last int32
	for k := range maxReplies {
		if last = d.ask("call", "crypto.digest", []byte{1}); last <= 0 {
			t.Fatalf("reply %d is refused: %d", k, last)
		}
	}
	if d.ask("call", "crypto.digest", []byte{1}) != refusedTooMany || d.ask("submit", "time.sleep", make([]byte, 8)) != refusedTooMany {
		t.Error("too many replies are held")
	}
	d.result(last)
	if h := d.ask("call", "crypto.digest", []byte{1}); h <= last {
		t.Errorf("after one was read: %d", h)
	}
}

func TestReplyBytesAreBounded(t *testing.T) {
	t.Parallel()
	o := &operations{replies: map[uint32][]byte{}}
	for o.bytes < maxReplyBytes {
		o.keep(make([]byte, 1<<20))
	}
	if !o.full() || o.bytes > maxReplyBytes+1<<20+64 {
		t.Errorf("with %d bytes held there is room", o.bytes)
	}
}

func nanos(d time.Duration) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(d)) }

// TestSleeps submits three and takes them in the order in which they end.
func TestSleeps(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	long := d.ask("submit", "time.sleep", nanos(60*time.Millisecond))
	short := d.ask("submit", "time.sleep", nanos(0))
	never := d.ask("submit", "time.sleep", nanos(math.MaxInt64))
	if long <= 0 || short <= 0 || never <= 0 || long == short {
		t.Fatal(long, short, never)
	}
	if d.do("size", uint64(never)) != -1 || d.do("read", uint64(never), 0, 10) != -1 {
		t.Error("one that has not ended has a reply")
	}
	for _, want := range []int32{short, long} {
		if got := d.do("poll"); got != want {
			t.Errorf("poll gave %d, want %d", got, want)
		}
		if b := d.result(want); len(b) != 0 {
			t.Errorf("sleeping gave %q", b)
		}
	}
	o := d.i.ops
	if o.under != 1 || len(o.timers) != 1 {
		t.Errorf("%d are under way with %d timers", o.under, len(o.timers))
	}
	d.i.cancel()
	func() {
		defer func() {
			if s, ok := recover().(*stopped); !ok || s.kind != sandbox.Canceled {
				t.Errorf("waiting for ever ended with %v", s)
			}
		}()
		d.do("poll")
	}()
	d.end()
	if o.timers[uint32(never)].Stop() {
		t.Error("a timer runs on after its invocation")
	}
}

// TestTimersDoNothingLater leaves timers running that would end in the midst of the
// next invocation, which must hear nothing of them.
func TestTimersDoNothingLater(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	m := guest([]st.Func{opSubmit, opPoll, fdRead}, st.Func{Name: "handle", Body: st.Seq(
		move(3, 0, atBody, 1),
		// With "s" it submits a hundred sleeps of 1 to 100 microseconds and leaves; else it polls.
		st.Seq(st.Const(atBody), []byte{0x2d, 0, 0}, st.Const('s'), []byte{0x46, 0x04, 0x40}),
		st.Times(100, 0, st.Const(2048), []byte{0x20, 0, 0xad}, st.Const64(1000), []byte{0x7e, 0x37, 3, 0},
			st.Call(1, st.Const(1500), st.Const(10), st.Const(2048), st.Const(8)), st.Drop),
		reply(1), []byte{0x05},
		st.Put8(atBody, st.Seq(st.Call(2), st.Const('0'), []byte{0x6a})), reply(1), []byte{0x0b}), Locals: 2})
	m.Data = append(m.Data, st.Data{At: 1500, Bytes: []byte("time.sleep")})
	v := e.load(m.Encode(), function.EntryHandle)
	for range 50 {
		e.want(v, "s", "s")
		e.want(v, "p", "0")
		wantReady(t, v)
	}
}

// TestOperationsOfAGuest goes through the engine, from both entries: the first thing
// that a command does is a host operation, whose reply it reads later.
func TestOperationsOfAGuest(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	imports := []st.Func{opCall, opSize, opRead, opSubmit, opPoll}
	body := st.Seq(
		// The handle is kept in local 0; the digest is of one byte of memory that is 2, of nothing.
		st.Put8(2048, st.Const(2)),
		st.Call(1, st.Const(1500), st.Const(13), st.Const(2048), st.Const(1)), []byte{0x21, 0},
		st.Call(3, []byte{0x20, 0}, st.Const(atBody), st.Call(2, []byte{0x20, 0})), st.Drop,
		// A sleep, submitted and awaited: 1 when its handle came back.
		st.Call(4, st.Const(1600), st.Const(10), st.Const(3000), st.Const(8)), []byte{0x21, 0},
		st.Put8(atBody+33, st.Seq(st.Call(5), []byte{0x20, 0}, []byte{0x46})), reply(34))
	data := []st.Data{{At: 1500, Bytes: []byte("crypto.digest")}, {At: 1600, Bytes: []byte("time.sleep")}}
	want := "\x00" + string(unhex(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")) + "\x01"
	command := guest(imports, st.Func{Name: "_start", Body: body, Locals: 1})
	handle := guest(imports, st.Func{Name: "handle", Body: body, Locals: 1})
	command.Data, handle.Data = append(command.Data, data...), append(handle.Data, data...)
	for name, c := range map[string]struct {
		m     st.Module
		entry function.Entry
	}{
		"command": {command, function.EntryCommand}, "handle": {handle, function.EntryHandle},
		"command, anew": {anew(command), function.EntryCommand},
	} {
		v := e.load(c.m.Encode(), c.entry)
		for range 3 {
			if o := e.run(v, ""); o.f != nil || o.body != want {
				t.Errorf("%s: got %q, %v", name, o.body, o.f)
			}
		}
	}
}

// TestHostCallsAreBounded makes one call more than allowed of each host module.
func TestHostCallsAreBounded(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for name, imported := range map[string]st.Func{
		"WASI": {Name: "sched_yield", Results: one}, "ours": opPoll,
	} {
		for _, entry := range []function.Entry{function.EntryCommand, function.EntryHandle} {
			code := func(n int32) []byte {
				f := st.Func{Name: map[function.Entry]string{function.EntryCommand: "_start", function.EntryHandle: "handle"}[entry], Locals: 1}
				f.Body = st.Seq(reply(0), st.Times(n, 0, st.Call(1), st.Drop))
				return guest([]st.Func{imported}, f).Encode()
			}
			limits := generous
			limits.Calls = 1000
			for n, kind := range map[int32]sandbox.Kind{998: "", 999: sandbox.Calls} { // and two for the answer
				v, f := e.tryLoad(code(n), entry, limits)
				if f != nil {
					t.Fatal(f)
				}
				for range 2 {
					o := e.run(v, "")
					if (o.f == nil) != (kind == "") || o.f != nil && o.f.kind != kind {
						t.Errorf("%s, %s: %d calls of %d gave %v", name, entry, n+2, limits.Calls, o.f)
					}
					if kind == "" && o.calls != 1000 {
						t.Errorf("%s, %s: %d calls were counted", name, entry, o.calls)
					}
				}
				v.unload()
			}
		}
	}
}

// TestNothingIsSubmittedEarly has a preparation submit a sleep, which is refused, and
// perform a digest, which is not.
func TestNothingIsSubmittedEarly(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	show := func(at int32, call []byte) []byte { // the result, as a letter from Z
		return st.Put8(at, st.Seq(call, st.Const('Z'), []byte{0x6a}))
	}
	m := guest([]st.Func{opCall, opSubmit}, st.Func{Name: "handle", Body: reply(2)}, st.Func{Name: "prepare", Body: st.Seq(
		show(atBody, st.Call(2, st.Const(1600), st.Const(10), st.Const(3000), st.Const(8))),
		st.Put8(2048, st.Const(2)),
		show(atBody+1, st.Call(1, st.Const(1500), st.Const(13), st.Const(2048), st.Const(1))))})
	m.Data = append(m.Data, st.Data{At: 1500, Bytes: []byte("crypto.digest")}, st.Data{At: 1600, Bytes: []byte("time.sleep")})
	v := e.load(m.Encode(), function.EntryHandle)
	if v.ready == nil {
		t.Fatal(v.why)
	}
	e.want(v, "", "Y[") // -1, and the first handle
}
