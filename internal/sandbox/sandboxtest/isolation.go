package sandboxtest

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

func testIsolation(t *testing.T, h Harness) {
	each(t, h, map[string]func(*Bench){
		"FreshState": func(b *Bench) {
			v := b.Version(Remember())
			for range 20 {
				b.Want(v, "000")
			}
		},
		"FreshStateAfterTrap": func(b *Bench) {
			// The same reserved memory is likely to serve a guest that crashed full of
			// its data and the next one.
			v := b.Version(Hoard(), In("trap"))
			b.Invoke(v, "")
			b.Want(b.Version(Remember(), In("trap")), "000")
		},
		"FreshEntropy": func(b *Bench) {
			v := b.Version(Entropy())
			seen := map[string]bool{}
			for range 20 {
				o := b.Invoke(v, "")
				if o.Err != nil || len(o.Body) != 16 {
					b.T.Fatalf("got %d bytes, %v", len(o.Body), o.Err)
				}
				if seen[string(o.Body)] {
					b.T.Fatalf("two invocations got the same random bytes")
				}
				seen[string(o.Body)] = true
			}
		},
		"ClocksMove": func(b *Bench) {
			v := b.Version(Clocks())
			var last [2]int64
			for range 3 {
				o := b.Invoke(v, "")
				if o.Err != nil || len(o.Body) != 16 {
					b.T.Fatalf("got %d bytes, %v", len(o.Body), o.Err)
				}
				wall := int64(binary.LittleEndian.Uint64(o.Body))
				mono := int64(binary.LittleEndian.Uint64(o.Body[8:]))
				if d := time.Since(time.Unix(0, wall)).Abs(); d > time.Minute {
					b.T.Errorf("the guest's clock is off by %v", d)
				}
				if wall <= last[0] || mono <= last[1] {
					b.T.Errorf("the clocks stood still: %d and %d after %v", wall, mono, last)
				}
				last = [2]int64{wall, mono}
			}
		},
		"EnvironmentIsConfigured": func(b *Bench) {
			b.T.Log("the process's own environment must not show")
			b.Want(b.Version(Environ(), Env(map[string]string{"GREETING": "hi", "A": ""})), "A=\x00GREETING=hi\x00guest\x00")
			b.Want(b.Version(Environ()), "guest\x00")
		},
		"NothingReachable": func(b *Bench) {
			o := b.Invoke(b.Version(Reach()), "")
			if o.Err != nil || len(o.Body) != probedFDs*probesEach {
				b.T.Fatalf("got %d answers, %v", len(o.Body), o.Err)
			}
			for i, errno := range o.Body {
				// The standard descriptors are stated to be there, as files without a name.
				if standard := i/probesEach < 3 && i%probesEach == 2; errno == 0 && !standard {
					b.T.Errorf("%s succeeded", describe(i))
				}
			}
		},
		"NamespacesApart": func(b *Bench) {
			boxes := map[string]string{}
			for i := range 6 {
				ns := fmt.Sprintf("ns-%d", i%3)
				o := b.Want(b.Version(Hello(), In(ns)), "hello")
				for other, box := range boxes {
					if other != ns && box == o.Usage.Sandbox {
						b.T.Errorf("%s and %s share the sandbox %s", ns, other, box)
					}
				}
				boxes[ns] = o.Usage.Sandbox
			}
		},
		"KindIsStated": func(b *Bench) {
			if k := b.Want(b.Version(Hello()), "hello").Usage.Kind; !strings.Contains(k, "/") {
				b.T.Errorf("the kind of separation is %q", k)
			}
		},
	})
}
