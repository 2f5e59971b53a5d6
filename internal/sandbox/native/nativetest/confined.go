package nativetest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// confined is what holds where code is locked in.
func confined(t *testing.T, h Harness) {
	for name, test := range map[string]func(*Bench){
		"memory limit": func(b *Bench) {
			v := b.Version()
			b.WantKind(b.Invoke(v, `{"do":"allocate","n":400}`), sandbox.Memory)
			o := b.Invoke(v, `{"do":"allocate","n":40}`)
			b.Want(o, `40`)
			if o.Usage.MemoryPeak < 40<<20 || o.Usage.MemoryPeak > 128<<20 {
				b.T.Errorf("a peak of %d bytes on record", o.Usage.MemoryPeak)
			}
		},
		"scratch space": func(b *Bench) {
			v := b.Version()
			b.Want(b.Invoke(v, `{"do":"fill","n":100}`), `16`)
		},
		"processes": func(b *Bench) {
			v := b.Version(Limit(func(l *function.Limits) { l.Processes, l.Memory = 40, 512<<20 }))
			o := b.Invoke(v, `{"do":"children","n":100}`)
			if o.Err != nil || len(o.Body) == 0 || string(o.Body) == "100" {
				b.T.Errorf("%s children, %v", o.Body, o.Err)
			}
		},
		"nothing goes on after the answer": func(b *Bench) {
			v := b.Version()
			b.Want(b.Invoke(v, `{"do":"later"}`), `"done"`)
			// It counts by itself, a thousand a second at the most, until it is frozen, which on a
			// busy machine may be late, but not each time.
			const idle, most, tries = 2 * time.Second, 1000, 10
			before := 0
			for try := 1; ; try++ {
				<-time.After(idle) // longer than it takes to be frozen
				o := b.Invoke(v, `{"do":"count"}`)
				n, err := strconv.Atoi(string(o.Body))
				if o.Err != nil || err != nil {
					b.T.Fatalf("asked for its count it gave %q, %v", o.Body, o.Err)
				}
				if n-before < most {
					break
				}
				if try == tries {
					b.T.Fatalf("it counted from %d to %d in %v in which it had nothing to do", before, n, idle)
				}
				before = n
			}
		},
		"what it sees": func(b *Bench) {
			f := b.Facts(b.Version())
			if f.UID != 1000 || f.Dir != "/var/task" {
				b.T.Errorf("user %d in %s", f.UID, f.Dir)
			}
			if f.Slack != "50000" && !b.kernel {
				b.T.Errorf("its timers may be %s ns late", f.Slack)
			}
			if want := []string{"bootstrap"}; !slices.Equal(f.Task, want) {
				b.T.Errorf("its files are %v", f.Task)
			}
			known := []string{"bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sbin", "tmp", "usr", "var"}
			lines := []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"}
			if b.kernel {
				known = append(known, "sys") // of that kernel
			} else {
				lines = append(lines, "Seccomp:\t2") // of the machine's
			}
			for _, name := range f.Root {
				if !slices.Contains(known, name) {
					b.T.Errorf("/%s is there", name)
				}
			}
			for _, line := range lines {
				if !strings.Contains(f.Status, line) {
					b.T.Errorf("its status lacks %q:\n%s", line, f.Status)
				}
			}
		},
	} {
		t.Run("confined/"+name, func(t *testing.T) {
			t.Parallel()
			test(New(t, h))
		})
	}
}
