//go:build wasip1

// Command goguest is a guest in Go: a command, or with -buildmode=c-shared a
// reactor that exports handle. The path of the request says what it does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

type head struct {
	Path string `json:"path"`
}

var kept int

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(7)
	}
}

//go:wasmexport handle
func handle() int32 {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 7
	}
	return 0
}

func serve() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var h head
	if err := json.Unmarshal(line, &h); err != nil {
		return err
	}
	body, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	kept++
	out := string(body)
	switch h.Path {
	case "/panic":
		panic("as told")
	case "/fail":
		return io.ErrUnexpectedEOF
	case "/spin":
		for { //nolint:staticcheck // it is meant to
		}
	case "/sleep":
		time.Sleep(time.Hour)
	case "/hoard":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			all[len(all)-1][1] = 1
		}
	case "/recurse":
		out = fmt.Sprint(deep(1 << 40))
	case "/reach":
		out = reach()
	case "/kept":
		out = fmt.Sprint(kept)
	}
	_, err = fmt.Printf("{\"status\":200,\"headers\":{\"content-type\":\"text/plain\"}}\n%s", out)
	return err
}

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return deep(n-1) + 1
}

// reach tries what no guest may have and names what it got.
func reach() string {
	var got []string
	for _, p := range []string{"/etc/passwd", "../../etc/passwd", "/proc/self/environ", "/", "."} {
		if f, err := os.Open(p); err == nil {
			got = append(got, p)
			_ = f.Close()
		}
	}
	if err := os.WriteFile("/tmp/x", []byte("x"), 0o600); err == nil {
		got = append(got, "write")
	}
	if c, err := net.Dial("tcp", "127.0.0.1:80"); err == nil {
		got = append(got, "dial "+c.RemoteAddr().String())
	}
	got = append(got, os.Environ()...)
	if len(os.Args) > 1 {
		got = append(got, os.Args[1:]...)
	}
	return strings.Join(got, ",")
}
