// Package plain is how functions run where nothing locks them in: a Lambda Runtime API
// made of net/http for one process, and the process. It is the peer of measures of the
// native tier and does no more than they need; only bench imports it. A Runtime may be
// used by one goroutine at a time.
package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"time"
)

// Runtime is a process that asks for events, and what answers it.
type Runtime struct {
	cmd     *exec.Cmd
	http    *http.Server
	asked   chan struct{} // the process waits for an event
	events  chan []byte
	answers chan []byte
	ended   chan struct{}
	serial  int
}

// Start starts a program on a Runtime API of its own, which the variable
// AWS_LAMBDA_RUNTIME_API names, and returns when it waits for its first event.
func Start(ctx context.Context, argv, env []string, dir string) (*Runtime, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Runtime{asked: make(chan struct{}), events: make(chan []byte), answers: make(chan []byte), ended: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", r.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{verb}", r.answer)
	r.http = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.http.Serve(l) }()
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Env, r.cmd.Dir = append(env[:len(env):len(env)], "AWS_LAMBDA_RUNTIME_API="+l.Addr().String()), dir
	if err := r.cmd.Start(); err != nil {
		_ = r.http.Close()
		return nil, err
	}
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait()
	}()
	select {
	case <-r.asked:
		return r, nil
	case <-r.ended:
		err = errors.New("the process ended")
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Stop()
	return nil, fmt.Errorf("waiting for %s: %v", argv[0], err)
}

func (r *Runtime) next(w http.ResponseWriter, req *http.Request) {
	var event []byte
	select {
	case event = <-r.events:
	case r.asked <- struct{}{}:
		select {
		case event = <-r.events:
		case <-req.Context().Done():
			return
		}
	case <-req.Context().Done():
		return
	}
	r.serial++
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", "request-"+strconv.Itoa(r.serial))
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(time.Minute).UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:peer")
	h.Set("Content-Length", strconv.Itoa(len(event)))
	_, _ = w.Write(event)
}

func (r *Runtime) answer(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil || req.PathValue("verb") != "response" {
		body = nil
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
	select {
	case r.answers <- body:
	case <-r.ended:
	}
}

// Invoke hands one event over and waits for the answer.
func (r *Runtime) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	select {
	case r.events <- event:
	case <-r.ended:
		return nil, errors.New("the process ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case b := <-r.answers:
		if b == nil {
			return nil, errors.New("the function failed")
		}
		return b, nil
	case <-r.ended:
		return nil, errors.New("the process ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// PID is the process's.
func (r *Runtime) PID() int { return r.cmd.Process.Pid }

// Stop kills the process and returns when it is gone.
func (r *Runtime) Stop() {
	_ = r.cmd.Process.Kill()
	<-r.ended
	_ = r.http.Close()
}

// Classic serves one event as CGI did: it starts a process for it, which nobody uses
// again.
func Classic(ctx context.Context, argv, env []string, dir string, event []byte) ([]byte, error) {
	r, err := Start(ctx, argv, env, dir)
	if err != nil {
		return nil, err
	}
	defer r.Stop()
	return r.Invoke(ctx, event)
}
