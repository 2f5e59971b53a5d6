// Command guest is the code that tests of the native tier run: a program that speaks
// the Lambda Runtime API with the standard library alone, or HTTP when PORT is set, and
// does what the event tells it to.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// order is what an event asks for.
type order struct {
	Do     string `json:"do"`
	Text   string `json:"text"`
	N      int    `json:"n"`
	Millis int    `json:"millis"`
}

// kept is what a careless function leaves behind for its next invocation.
var kept struct {
	sync.Mutex
	text  string
	count int
}

func main() {
	// The kernel tells a thread about its own timers and about no other's.
	runtime.LockOSThread()
	if len(os.Args) > 1 && os.Args[1] == "child" {
		time.Sleep(time.Hour)
		return
	}
	if os.Getenv("GUEST_EXIT") != "" {
		fmt.Println("cannot start: the configuration is wrong")
		os.Exit(3)
	}
	if os.Getenv("GUEST_HANG") != "" {
		time.Sleep(time.Hour)
	}
	fmt.Println("guest begins")
	var err error
	if port := os.Getenv("PORT"); port != "" {
		err = serve(port)
	} else {
		err = loop("http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/")
	}
	fmt.Fprintln(os.Stderr, "guest ends:", err)
	os.Exit(1)
}

func serve(port string) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Path", r.URL.Path)
		out, err := act(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(out)
	}), ReadHeaderTimeout: time.Second}
	go func() {
		<-asked
		fmt.Println("asked to end")
		_ = srv.Shutdown(context.Background())
		os.Exit(0)
	}()
	return srv.Serve(l)
}

// loop is a runtime client.
func loop(base string) error {
	for {
		resp, err := http.Get(base + "invocation/next")
		if err != nil {
			return err
		}
		event, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
		out, failure := act(event)
		to := base + "invocation/" + id + "/response"
		if failure != nil {
			to = base + "invocation/" + id + "/error"
			out, err = json.Marshal(map[string]string{"errorType": "Guest.Failed", "errorMessage": failure.Error()})
			if err != nil {
				return err
			}
		}
		answer, err := http.Post(to, "application/json", bytes.NewReader(out))
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if failure != nil && strings.HasPrefix(failure.Error(), "fatal") {
			time.Sleep(50 * time.Millisecond) // so that it is given out again before it ends
			os.Exit(1)
		}
	}
}

// act does what an event asks for. An event of another form is echoed.
func act(event []byte) ([]byte, error) {
	var o order
	if json.Unmarshal(event, &o) != nil || o.Do == "" {
		return event, nil
	}
	switch o.Do {
	case "fail":
		return nil, fmt.Errorf("%s", o.Text)
	case "exit":
		os.Exit(o.N)
	case "signal":
		if err := syscall.Kill(os.Getpid(), syscall.SIGSEGV); err != nil {
			return nil, err
		}
		time.Sleep(time.Hour) // another thread may get it
	case "sleep":
		if o.Text != "" {
			fmt.Println(o.Text)
		}
		time.Sleep(time.Duration(o.Millis) * time.Millisecond)
	case "spin":
		for end := time.Now().Add(time.Duration(o.Millis) * time.Millisecond); time.Now().Before(end); {
		}
	case "allocate":
		var all [][]byte
		for range o.N {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		return json.Marshal(len(all))
	case "output":
		return json.Marshal(strings.Repeat("x", o.N))
	case "log":
		line := strings.Repeat("l", 99) + "\n"
		for range o.N {
			_, _ = os.Stderr.WriteString(line)
		}
	case "print":
		fmt.Println(o.Text)
	case "keep":
		kept.Lock()
		defer kept.Unlock()
		was := kept.text
		kept.text = o.Text
		kept.count++
		if b, err := os.ReadFile(filepath.Join(os.TempDir(), "kept")); err == nil {
			was += "+" + string(b)
		}
		if err := os.WriteFile(filepath.Join(os.TempDir(), "kept"), []byte(o.Text), 0o600); err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"was": was, "count": kept.count})
	case "later": // goes on after its answer
		go func() {
			for {
				kept.Lock()
				kept.count++
				kept.Unlock()
				time.Sleep(time.Millisecond)
			}
		}()
	case "count":
		kept.Lock()
		defer kept.Unlock()
		return json.Marshal(kept.count)
	case "fill":
		f, err := os.Create(filepath.Join(os.TempDir(), "fill"))
		if err != nil {
			return nil, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		b := make([]byte, 1<<20)
		n := 0
		for ; n < o.N; n++ {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
		return json.Marshal(n)
	case "children":
		n := 0
		for ; n < o.N; n++ {
			if err := exec.Command("/proc/self/exe", "child").Start(); err != nil {
				break
			}
		}
		return json.Marshal(n)
	case "facts":
		return facts()
	default:
		return nil, fmt.Errorf("no such order: %s", o.Do)
	}
	return []byte(`"done"`), nil
}

// facts is what the guest can see of where it is.
func facts() ([]byte, error) {
	dir := func(name string) []string {
		entries, err := os.ReadDir(name)
		if err != nil {
			return []string{err.Error()}
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	status, _ := os.ReadFile("/proc/self/status")
	slack, _ := os.ReadFile("/proc/self/timerslack_ns")
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	return json.Marshal(map[string]any{
		"env": os.Environ(), "uid": os.Getuid(), "pid": os.Getpid(), "host": host, "cwd": cwd, "args": os.Args,
		"root": dir("/"), "task": dir("."), "tmp": dir(os.TempDir()), "fds": dir("/proc/self/fd"), "proc": dir("/proc"),
		"status": string(status), "slack": strings.TrimSpace(string(slack)),
	})
}
