package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	contextName = "showcase"
	wantGateway = "127.0.0.1:8443"
	wantControl = "127.0.0.1:8444"
	wantObjects = "127.0.0.1:8445"
	anyPort     = "127.0.0.1:0"

	startWithin = 60 * time.Second
	stopWithin  = 30 * time.Second
	endWithin   = 5 * time.Second // for a command that was interrupted
	pollEvery   = 50 * time.Millisecond
	lastLines   = 20 // of the node's log, shown when something went wrong
)

// node is a running `casemate up`.
type node struct {
	Context    string `json:"context"`
	GatewayURL string `json:"gatewayUrl"`
	ControlURL string `json:"controlUrl"`

	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when the process is gone; err is then set
	err   error
}

// startNode starts a node and returns when it says of itself that it is ready.
func startNode(ctx context.Context, s *show) (*node, error) {
	gateway, control, objects := s.address("gateway", wantGateway), s.address("control", wantControl), s.address("objects", wantObjects)
	n := &node{log: filepath.Join(s.dir, "node.log"), ended: make(chan struct{})}
	log, err := os.Create(n.log)
	if err != nil {
		return nil, fmt.Errorf("making the node's log: %v", err)
	}
	defer func() { _ = log.Close() }()
	said, err := os.Create(filepath.Join(s.dir, "ready.json"))
	if err != nil {
		return nil, fmt.Errorf("making the node's output: %v", err)
	}
	defer func() { _ = said.Close() }()

	// Not bound to ctx: the node is stopped by a signal and given time to drain.
	n.cmd = exec.CommandContext(context.WithoutCancel(ctx), s.program, "up", "-o", "json", "--context", contextName,
		"--data-dir", filepath.Join(s.dir, "data"), "--gateway", gateway, "--control", control, "--objects", objects,
		"--watch", "inbox="+s.inbox)
	n.cmd.Env, n.cmd.Stdout, n.cmd.Stderr = s.environment(), said, log
	ownGroup(n.cmd)
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %v", s.program, err)
	}
	go func() {
		n.err = n.cmd.Wait()
		close(n.ended)
	}()
	if err := n.ready(ctx, s, said.Name()); err != nil {
		err = fmt.Errorf("waiting for the node: %w%s", err, n.lastWords())
		return nil, errors.Join(err, n.stop(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// ready waits for the addresses that `up` prints and then for a healthy status.
func (n *node) ready(ctx context.Context, s *show, said string) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ended:
			return fmt.Errorf("it ended at once: %v", n.err)
		case <-tick.C:
		}
		if n.GatewayURL == "" {
			b, err := os.ReadFile(said)
			if err != nil || json.Unmarshal(b, n) != nil || n.GatewayURL == "" {
				continue // not written yet, or not all of it
			}
		}
		var status struct {
			Healthy bool   `json:"healthy"`
			State   string `json:"state"`
		}
		out, err := s.casemate(ctx, "status")
		if err == nil && json.Unmarshal(out, &status) == nil && status.Healthy && status.State == "ready" {
			return nil
		}
	}
}

// stop asks the node to end and waits until it has.
func (n *node) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	select {
	case <-n.ended:
		return nil // whoever waited for it said so already
	default:
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping the node: %v", err)
	}
	select {
	case <-n.ended:
	case <-ctx.Done():
		_ = n.cmd.Process.Kill()
		<-n.ended
		return fmt.Errorf("stopping the node: it did not end within %v%s", stopWithin, n.lastWords())
	}
	if n.err != nil {
		return fmt.Errorf("stopping the node: %v%s", n.err, n.lastWords())
	}
	return nil
}

// lastWords gives the end of the node's log, which holds no secrets.
func (n *node) lastWords() string {
	b, err := os.ReadFile(n.log)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "\n  " + strings.Join(lines[max(0, len(lines)-lastLines):], "\n  ")
}

// address gives the usual address, or says aloud that another has to do.
func (s *show) address(listener, usual string) string {
	l, err := net.Listen("tcp", usual)
	if err != nil {
		s.say("  %s is taken: another port has to do (%s)", usual, listener)
		return anyPort
	}
	_ = l.Close()
	return usual
}

// casemate runs one command against the node and gives its JSON.
func (s *show) casemate(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.program, append(args, "-o", "json", "--context", contextName)...)
	var out, said bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = s.environment(), &out, &said
	// Interrupted, it stops the compilers it started; killed, it could not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endWithin
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("casemate %s: %v\n%s", args[0], err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}

// environment points the program at this run's configuration and at no other.
func (s *show) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CASEMATE_") {
			env = append(env, kv)
		}
	}
	return append(env, "CASEMATE_CONFIG="+s.config)
}
