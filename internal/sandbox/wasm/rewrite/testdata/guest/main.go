// Command guest is what the fuel's cost is measured with: code as a compiler
// makes it, with calls, loops and memory traffic.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
)

//go:wasmexport hash
func hash(rounds int32) int32 {
	buf := make([]byte, 64<<10)
	var sum [32]byte
	for range rounds {
		sum = sha256.Sum256(buf)
		copy(buf, sum[:])
	}
	return int32(sum[0])
}

//go:wasmexport order
func order(n int32) int32 {
	xs := make([]uint32, n)
	s := uint32(1)
	for i := range xs {
		s = s*1664525 + 1013904223
		xs[i] = s
	}
	slices.Sort(xs)
	return int32(xs[n/2])
}

//go:wasmexport encode
func encode(rounds int32) int32 {
	v := map[string]any{"name": "casemate", "sizes": []int{1, 2, 3}, "nested": map[string]string{"a": "b"}}
	total := 0
	for range rounds {
		text, err := json.Marshal(v)
		if err != nil {
			return -1
		}
		var back map[string]any
		if json.Unmarshal(text, &back) != nil {
			return -1
		}
		total += len(text) + len(back)
	}
	return int32(total)
}

func main() {}
