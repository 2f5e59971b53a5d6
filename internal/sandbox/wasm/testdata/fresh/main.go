//go:build wasip1

// Command fresh draws before it looks at the request and after, and keeps a secret
// wherever it can.
package main

import (
	"bufio"
	crand "crypto/rand"
	"fmt"
	"hash/maphash"
	oldrand "math/rand"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"
)

var (
	early = map[int]int{}
	seed  = maphash.MakeSeed()
	kept  string
	heap  [][]byte
	pool  sync.Pool
)

func init() {
	for i := range 1000 {
		early[i] = i
	}
}

func main() { handle() }

//go:wasmexport handle
func handle() int32 {
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(out, `{"status":200}`)
	found := "nothing"
	if kept != "" || heap != nil || os.Getenv("SECRET") != "" || pool.Get() != nil {
		found = "a variable"
	}
	fmt.Fprintln(out, "found:", found)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return 1
	}
	var b [16]byte
	_, _ = crand.Read(b[:])
	fmt.Fprintf(out, "crypto: %x\n", b)
	fmt.Fprintln(out, "math/rand:", oldrand.Int63())
	fmt.Fprintln(out, "math/rand/v2:", rand.Uint64())
	var order []string
	for k := range early {
		if order = append(order, fmt.Sprint(k)); len(order) == 30 {
			break
		}
	}
	fmt.Fprintln(out, "order:", strings.Join(order, " "))
	a, z := make(chan int), make(chan int)
	close(a)
	close(z)
	var turns strings.Builder
	for range 64 {
		select {
		case <-a:
			turns.WriteByte('a')
		case <-z:
			turns.WriteByte('z')
		}
	}
	fmt.Fprintln(out, "select:", turns.String())
	fmt.Fprintln(out, "late seed:", maphash.String(maphash.MakeSeed(), "x"))
	fmt.Fprintln(out, "nanoseconds:", time.Now().UnixNano())
	kept = line
	pool.Put(&line)
	for range 8 {
		heap = append(heap, []byte(strings.Repeat(line, 10_000)))
	}
	_ = os.Setenv("SECRET", strings.TrimSpace(line))
	fmt.Fprintln(out, "end")
	_ = out.Flush()
	_ = os.Stdin.Close()
	_ = os.Stderr.Close()
	return 0
}
