//go:build wasip1

// Command guest draws from all that Go's runtime leaves to chance.
package main

import (
	"fmt"
	oldrand "math/rand"
	"math/rand/v2"
	"os"
	"strconv"
)

var before map[int]int

func init() {
	n, _ := strconv.Atoi(os.Getenv("DRAW"))
	for range n {
		rand.Uint64()
	}
	before = map[int]int{}
	for i := range 200 {
		before[i] = i
	}
}

func main() {}

//go:wasmexport turn
func turn() {
	fmt.Println("math/rand:", oldrand.Int63(), oldrand.Perm(20))
	fmt.Println("math/rand/v2:", rand.Uint64(), rand.Float64())
	fmt.Print("map order:")
	count := 0
	for k := range before {
		if count++; count < 40 {
			fmt.Print(" ", k)
		}
	}
	fmt.Print("\nselect order:")
	a, b := make(chan int), make(chan int)
	close(a)
	close(b)
	for range 64 {
		select {
		case <-a:
			fmt.Print(" a")
		case <-b:
			fmt.Print(" b")
		}
	}
	fmt.Println()
}
