package enginetest_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/engine/js/enginetest"
)

// image is an instance's memory as a private mapping of a file, so that the pages
// that a request writes can be counted and put back.
type image struct {
	area []byte // reserved
	size int
	file int
	maps *os.File
	buf  []byte
}

const areaSize = 512 << 20

func (m *image) Allocate(_, _ uint64) experimental.LinearMemory {
	area, err := unix.Mmap(-1, 0, areaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		panic(err)
	}
	m.area = area
	return m
}

func (m *image) Reallocate(size uint64) []byte {
	m.size = int(size)
	return m.area[:size:areaSize]
}

func (m *image) Free() {
	unix.Munmap(m.area)
	unix.Close(m.file)
	m.maps.Close()
}

// freeze makes what is there the state to go back to.
func (m *image) freeze(tb testing.TB) {
	tb.Helper()
	var err error
	if m.file, err = unix.MemfdCreate("image", unix.MFD_CLOEXEC); err != nil {
		tb.Fatal(err)
	}
	if _, err := unix.Pwrite(m.file, m.area[:m.size], 0); err != nil {
		tb.Fatal(err)
	}
	_, err = unix.MmapPtr(m.file, 0, unsafe.Pointer(&m.area[0]), uintptr(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		tb.Fatal(err)
	}
	if m.maps, err = os.Open("/proc/self/pagemap"); err != nil {
		tb.Fatal(err)
	}
}

// written lists the pages that differ from the file because they were written to.
func (m *image) written(tb testing.TB) []int {
	tb.Helper()
	page := os.Getpagesize()
	n := m.size / page
	if len(m.buf) < n*8 {
		m.buf = make([]byte, n*8)
	}
	at := int64(uintptr(unsafe.Pointer(&m.area[0]))) / int64(page) * 8
	if _, err := m.maps.ReadAt(m.buf[:n*8], at); err != nil {
		tb.Fatal(err)
	}
	var out []int
	for i := range n {
		e := binary.LittleEndian.Uint64(m.buf[i*8:])
		if e>>63 == 1 && e>>61&1 == 0 { // present, and no longer the file's
			out = append(out, i)
		}
	}
	return out
}

// restore drops the pages written.
func (m *image) restore(tb testing.TB) {
	tb.Helper()
	page := os.Getpagesize()
	for _, p := range m.written(tb) {
		if err := unix.Madvise(m.area[p*page:(p+1)*page], unix.MADV_DONTNEED); err != nil {
			tb.Fatal(err)
		}
	}
}

const helloApp = `export default {
  fetch(request) {
    const name = new URL(request.url).pathname.slice(1) || "world";
    return new Response("Hello, " + name + "!\n", { headers: { "content-type": "text/plain" } });
  },
};`

const echoApp = `export default {
  async fetch(request) {
    const { name, items } = await request.json();
    return Response.json({ greeting: "hello " + name, count: items.length, items });
  },
};`

const asyncApp = `export default {
  async fetch(request, env, ctx) {
    const seen = [];
    for (let i = 0; i < 3; i++) seen.push(await Promise.resolve(i));
    return new Response(request.method + seen, { status: 201 });
  },
};`

func benchmarks(tb testing.TB) []struct{ name, app string } {
	tb.Helper()
	list := []struct{ name, app string }{{"hello", helloApp}, {"echo", echoApp}, {"async", asyncApp}}
	if path := os.Getenv("CASEMATE_BENCH_APP"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		list = append(list, struct{ name, app string }{"app", string(text)})
	}
	return list
}

func benchRequest(name string) []byte {
	h := enginetest.Head{
		ID: "01JABCDEFGHJKMNPQRSTVWXYZ0", Path: "/alice", Query: "a=1&b=2", Deadline: 1790000000000, Caller: "anonymous",
		Headers: map[string][]string{
			"accept": {"*/*"}, "host": {"fn.example.com"}, "user-agent": {"curl/8.5.0"},
			"x-forwarded-for": {"203.0.113.7"}, "x-forwarded-proto": {"https"}, "accept-encoding": {"gzip"},
		},
	}
	if name == "app" {
		h.Method, h.Path, h.Query = "POST", cmp.Or(os.Getenv("CASEMATE_BENCH_PATH"), "/"), ""
		h.Headers["content-type"] = []string{"application/json"}
		return enginetest.Request(h, []byte(`{"name":"Ada"}`))
	}
	if name == "echo" {
		h.Method = "POST"
		h.Headers["content-type"] = []string{"application/json"}
		return enginetest.Request(h, []byte(`{"name":"alice","items":[{"id":1,"title":"first"},{"id":2,"title":"second"},{"id":3,"title":"third"}]}`))
	}
	return enginetest.Request(h, nil)
}

// threadTime is the processor time of this thread, which neighbours on a busy
// machine do not lengthen.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkHandle measures one request on the state after prepare. The time is the
// median of the processor time of handle alone on pages already private; "cold-µs" is with the faults of
// the pages it writes to, as right after MADV_DONTNEED on those, and "pages" is how many the request writes to.
func BenchmarkHandle(b *testing.B) {
	ctx := context.Background()
	e := open(b, 0)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range benchmarks(b) {
		b.Run(c.name, func(b *testing.B) {
			m := new(image)
			i, err := e.New(experimental.WithMemoryAllocator(ctx, m), &enginetest.World{
				Entropy: func(p []byte) { binary.LittleEndian.PutUint64(p[:8], rand.Uint64()) },
			})
			if err != nil {
				b.Fatal(err)
			}
			defer i.Close(ctx)
			if err := i.Prepare(ctx, c.app); err != nil {
				b.Fatal(err)
			}
			m.freeze(b)
			request := benchRequest(c.name)
			once := func() time.Duration {
				start := threadTime()
				err := i.HandleOnly(ctx, request)
				d := threadTime() - start
				if err != nil {
					b.Fatal(err)
				}
				return d
			}
			var cold []time.Duration
			const colds = 200
			for range colds {
				m.restore(b)
				cold = append(cold, once())
			}
			pages := m.written(b)
			clean := make([]byte, m.size)
			if _, err := unix.Pread(m.file, clean, 0); err != nil {
				b.Fatal(err)
			}
			var warm []time.Duration
			for b.Loop() {
				for _, p := range pages {
					copy(m.area[p*4096:(p+1)*4096], clean[p*4096:])
				}
				warm = append(warm, once())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(median(warm))/1e3, "µs/handle")
			b.ReportMetric(float64(median(cold))/1e3, "cold-µs")
			b.ReportMetric(float64(len(pages)), "pages")
			b.ReportMetric(float64(m.size)/(1<<20), "MiB")
			if testing.Verbose() {
				b.Logf("pages %v", pages)
			}
		})
	}
}
