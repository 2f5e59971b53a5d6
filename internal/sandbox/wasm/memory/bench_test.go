package memory

import (
	"fmt"
	"testing"
)

// BenchmarkRestore writes to pages and restores them, by each strategy; "memcpy" is
// what copying the same pages costs by itself, the least that could be.
func BenchmarkRestore(b *testing.B) {
	const page = 4096
	dirty := []int{0, 1, 12, 40, 400}
	for _, size := range []uint64{1 << 20, 64 << 20} {
		for _, n := range dirty {
			if uint64(n)*page > size {
				continue
			}
			step := int(size/page) / max(n, 1) * page
			name := fmt.Sprintf("%dMiB/pages=%d", size>>20, n)
			for _, strategy := range []Strategy{Scan, Advise, Copy} {
				b.Run(name+"/"+string(strategy), func(b *testing.B) {
					s := open(b, strategy, 1<<30)
					content := make([]byte, size)
					for i := range content {
						content[i] = byte(i>>12) + 1
					}
					l := newLinear(b, s, 2*size)
					if err := l.Map(newImage(b, s, size, Piece{Data: content})); err != nil {
						b.Fatal(err)
					}
					b.ReportAllocs()
					for b.Loop() {
						mem := l.Bytes()
						for k := range n {
							mem[k*step]++
						}
						l.Restore()
					}
				})
			}
			b.Run(name+"/memcpy", func(b *testing.B) {
				from, to := make([]byte, size), make([]byte, size)
				for b.Loop() {
					for k := range n {
						to[k*step]++
						copy(to[k*step:][:page], from[k*step:])
					}
				}
			})
		}
	}
}
