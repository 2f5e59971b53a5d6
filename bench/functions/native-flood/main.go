// Takes as much of one thing as it gets, until its time is nearly over: the bad
// neighbour of neighbour measures.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

type request struct {
	Do string `json:"do"`
}

func handle(ctx context.Context, r request) (string, error) {
	end, _ := ctx.Deadline()
	end = end.Add(-100 * time.Millisecond)
	var flood func()
	switch r.Do {
	case "cpu":
		flood = spin
	case "memory":
		flood = allocate
	case "forks":
		flood = fork
	case "disk":
		flood = fill
	case "log":
		flood = log
	case "descriptors":
		flood = open
	default:
		return "", errors.New("no such flood")
	}
	rounds := 0
	for ; time.Now().Before(end); rounds++ {
		flood()
	}
	return fmt.Sprintf("%d rounds of %s", rounds, r.Do), nil
}

// spin never returns, on several threads.
func spin() {
	for range 4 {
		go func() {
			for {
			}
		}()
	}
	for {
	}
}

// allocate ends with the process.
func allocate() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
}

func fork() {
	cmd := exec.Command("/proc/self/exe", "child")
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}

func fill() {
	f, err := os.Create(filepath.Join(os.TempDir(), "fill"))
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	b := make([]byte, 1<<20)
	for {
		if _, err := f.Write(b); err != nil {
			return
		}
	}
}

func log() { _, _ = os.Stderr.WriteString(strings.Repeat(strings.Repeat("l", 99)+"\n", 100)) }

func open() {
	var all []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		all = append(all, f)
	}
	for _, f := range all {
		_ = f.Close()
	}
}

func main() {
	if len(os.Args) > 1 { // a child of fork
		time.Sleep(200 * time.Millisecond)
		return
	}
	lambda.Start(handle)
}
