// Command work is a guest that computes: hashing, sorting, a matrix, JSON. Each export
// returns something that depends on all of it.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
)

func main() {}

func numbers(n int32, seed uint32) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		seed = seed*1664525 + 1013904223
		v[i] = seed
	}
	return v
}

//go:wasmexport hash
func hash(n int32) uint32 {
	block := make([]byte, 64*n)
	for i := range block {
		block[i] = byte(i)
	}
	sum := sha256.Sum256(block)
	return binary.BigEndian.Uint32(sum[:])
}

//go:wasmexport sort
func sort(n int32) uint32 {
	v := numbers(n, 2)
	slices.SortFunc(v, func(a, b uint32) int {
		if a < b {
			return -1
		}
		if a > b {
			return 1
		}
		return 0
	})
	return v[len(v)/2]
}

//go:wasmexport matrix
func matrix(n int32) uint32 {
	a, b, c := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	for i := range a {
		a[i], b[i] = float64(i%7), float64(i%5)
	}
	for i := range n {
		for l := range n {
			for j := range n {
				c[i*n+j] += a[i*n+l] * b[l*n+j]
			}
		}
	}
	sum := 0.0
	for _, x := range c {
		sum += x
	}
	return uint32(sum)
}

type item struct {
	ID   uint32   `json:"id"`
	Name string   `json:"name"`
	Tags []string `json:"tags"`
	Size uint32   `json:"size"`
}

//go:wasmexport json
func encode(n int32) uint32 {
	var in, out []item
	for _, v := range numbers(n, 3) {
		in = append(in, item{v, "somebody", []string{"a", "bc", "def"}, v >> 8})
	}
	b, err := json.Marshal(in)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil || len(out) != len(in) {
		return 0
	}
	return out[len(out)-1].Size
}
