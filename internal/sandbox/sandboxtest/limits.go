package sandboxtest

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// hang is how long a test waits for what must come, and only a failure reaches: no machine
// is so busy. What must not end by itself before that has a limit of never.
const (
	hang  = time.Minute
	never = 10 * hang
)

func testLimits(t *testing.T, h Harness) {
	each(t, h, map[string]func(*Bench){
		"WallTimeSpinning": func(b *Bench) { wantTimeout(b, Spin()) },
		"WallTimeSleeping": func(b *Bench) { wantTimeout(b, Sleep()) },
		"CancelSpinning":   func(b *Bench) { wantCancel(b, Spin()) },
		"CancelSleeping":   func(b *Bench) { wantCancel(b, Sleep()) },
		"Memory": func(b *Bench) {
			o := b.Invoke(b.Version(Hoard(), Limit(func(l *function.Limits) { l.Memory = 8 << 20 })), "")
			b.WantKind(o, sandbox.Memory)
			if o.Usage.MemoryPeak != 8<<20 {
				b.T.Errorf("the peak is %d bytes, want the limit", o.Usage.MemoryPeak)
			}
		},
		"MemoryAtStart": func(b *Bench) {
			b.WantKind(b.Invoke(b.Version(Greedy(200), Limit(func(l *function.Limits) { l.Memory = 8 << 20 })), ""), sandbox.Memory)
		},
		"Table": func(b *Bench) {
			o := b.Invoke(b.Version(HoardTable()), "")
			if o.Err != nil {
				b.T.Fatalf("invoking: %v", o.Err)
			}
			if n := binary.LittleEndian.Uint32(o.Body); n > 1<<21 {
				b.T.Errorf("the guest grew a table to %d elements, which lie outside its memory", n)
			}
		},
		"Stack": func(b *Bench) {
			b.WantKind(b.Invoke(b.Version(Recurse()), ""), sandbox.Stack)
		},
		"Output": func(b *Bench) {
			o := b.Invoke(b.Version(FloodOutput(), Limit(func(l *function.Limits) { l.Output = 256 << 10 })), "")
			b.WantKind(o, sandbox.Output)
		},
		"OutputExactly": func(b *Bench) {
			v := b.Version(Print("{\"status\":200}\n"+strings.Repeat("a", 1000)), Limit(func(l *function.Limits) { l.Output = 1000 }))
			b.Want(v, strings.Repeat("a", 1000))
			v = b.Version(Print("{\"status\":200}\n"+strings.Repeat("a", 1001)), Limit(func(l *function.Limits) { l.Output = 1000 }))
			b.WantKind(b.Invoke(v, ""), sandbox.Output)
		},
		"HeadLine": func(b *Bench) { b.WantKind(b.Invoke(b.Version(FloodHead()), ""), sandbox.BadAnswer) },
		"Log": func(b *Bench) {
			o := b.Want(b.Version(FloodLog(100), Limit(func(l *function.Limits) { l.Log = 10 << 10 })), "")
			if len(o.Log) != 10 || o.Usage.LogBytes != 10<<10 || o.Usage.LogDropped != 90<<10 {
				b.T.Errorf("got %d lines, %d bytes kept, %d dropped", len(o.Log), o.Usage.LogBytes, o.Usage.LogDropped)
			}
		},
		"LogLine": func(b *Bench) {
			o := b.Want(b.Version(Log(strings.Repeat("y", sandbox.MaxLogLine+5)+"\nnext\n")), "")
			if len(o.Log) != 3 || len(o.Log[0].Text) != sandbox.MaxLogLine || o.Log[1].Text != "yyyyy" || o.Log[2].Text != "next" {
				b.T.Errorf("a long line came as %d lines", len(o.Log))
			}
		},
	})
}

func wantTimeout(b *Bench, code []byte) {
	b.T.Helper()
	limit := 200 * time.Millisecond
	v := b.Version(code, Within(limit))
	if err := b.Runner.Prepare(context.Background(), v); err != nil {
		b.T.Fatalf("preparing: %v", err)
	}
	began := time.Now()
	first := b.Invoke(v, "")
	took := time.Since(began)
	b.WantKind(first, sandbox.Timeout)
	if took < limit || took > hang {
		b.T.Errorf("it was stopped after %v", took)
	}
	if first.Usage.Wall < limit || first.Usage.Sandbox == "" {
		b.T.Errorf("usage is not filled in: %+v", first.Usage)
	}
	// The limit holds within the sandbox: nobody else has to suffer for it.
	if second := b.Invoke(v, ""); second.Usage.Sandbox != first.Usage.Sandbox {
		b.T.Errorf("the sandbox was replaced: %s, then %s", first.Usage.Sandbox, second.Usage.Sandbox)
	}
}

func wantCancel(b *Bench, code []byte) {
	b.T.Helper()
	v, good := b.Version(code), b.Version(Hello())
	if err := b.Runner.Prepare(context.Background(), v); err != nil {
		b.T.Fatalf("preparing: %v", err)
	}
	box := b.Want(good, "hello").Usage.Sandbox
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	o := b.InvokeContext(ctx, v, "")
	b.WantKind(o, sandbox.Canceled)
	if took := time.Since(began); took > hang {
		b.T.Errorf("it was stopped after %v", took)
	}
	if after := b.Want(good, "hello").Usage.Sandbox; after != box {
		b.T.Errorf("a canceled guest cost its neighbours the sandbox: %s, then %s", box, after)
	}
	again, cancelAgain := context.WithCancel(context.Background())
	cancelAgain()
	if second := b.InvokeContext(again, v, ""); second.Err == nil || second.Err.Kind != sandbox.Canceled {
		b.T.Errorf("a canceled context gave %v", second.Err)
	}
}
