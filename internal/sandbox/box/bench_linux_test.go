package box

import (
	"context"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart starts a static program that ends at once, and waits until nothing is
// left of it. It also gives the shortest and the middle time until the program was
// executed, and from there to the end of everything.
func BenchmarkStart(b *testing.B) {
	needRoot(b)
	for name, cgroups := range map[string]string{"limited": "", "without-cgroups": "/proc/nothing"} {
		b.Run(name, func(b *testing.B) {
			broker := open(b, Config{Cgroups: cgroups})
			exe := guest(b)
			defer exe.Close()
			spec := Spec{
				Executable: exe, Args: []string{"guest", "exit", "0"}, Tmp: 1 << 20, Proc: true,
				Memory: 64 << 20, Processes: 16, CPUPercent: 100,
			}
			var starts, ends []time.Duration
			for b.Loop() {
				began := time.Now()
				x, err := broker.Start(context.Background(), spec)
				if err != nil {
					b.Fatal(err)
				}
				starts = append(starts, time.Since(began))
				began = time.Now()
				<-x.Done()
				ends = append(ends, time.Since(began))
			}
			for name, d := range map[string][]time.Duration{"start": starts, "end": ends} {
				slices.Sort(d)
				b.ReportMetric(d[0].Seconds()*1e3, "min-"+name+"-ms")
				b.ReportMetric(d[len(d)/2].Seconds()*1e3, "p50-"+name+"-ms")
			}
		})
	}
}
