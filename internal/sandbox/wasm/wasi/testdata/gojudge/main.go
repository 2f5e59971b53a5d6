// Command gojudge does what the C program does, through Go's library.
package main

import (
	"bufio"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"
)

func main() {
	fmt.Println(os.Args, os.Getenv("GREETING"), os.Getenv("MISSING"))
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadString('\n')
	fmt.Printf("%q %v\n", line, err)
	rest, err := io.ReadAll(in)
	fmt.Printf("%q %v\n", rest, err)
	fmt.Fprintln(os.Stderr, "a line of the log")
	_, err = os.ReadFile("/etc/passwd")
	fmt.Println(err != nil, errors.Is(err, fs.ErrExist))
	fmt.Println(os.WriteFile("x", nil, 0o600) != nil)
	began := time.Now()
	time.Sleep(time.Millisecond)
	fmt.Println(time.Since(began) >= time.Millisecond, began.Year() >= 2020)
	select {
	case <-time.After(time.Millisecond):
		fmt.Println("timer")
	}
	var a, b [32]byte
	_, _ = crand.Read(a[:])
	_, _ = crand.Read(b[:])
	fmt.Println(a != b, rand.Uint64() != rand.Uint64())
	done := make(chan int)
	go func() { done <- 7 }()
	fmt.Println(<-done)
	os.Exit(3)
}
