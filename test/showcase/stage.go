package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// stage lets the showcase use what tests use: the servers on the far side are started and
// ended by the same code. It has all of testing.TB that this code calls; the rest is the
// nil inside.
type stage struct {
	testing.TB

	name     string
	ctx      context.Context
	cleanups []func()
	failed   []string
	skipped  string
}

// perform runs an act on a stage of its own. What it started runs until end is called. It
// fails with what the act failed with.
func perform(ctx context.Context, name string, act func(testing.TB)) (end func(), skipped string, err error) {
	s := &stage{name: name, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		act(s)
	}()
	<-done
	if len(s.failed) > 0 {
		err = errors.New(strings.Join(s.failed, "\n"))
	}
	return s.end, s.skipped, err
}

func (s *stage) end() {
	for len(s.cleanups) > 0 {
		last := s.cleanups[len(s.cleanups)-1]
		s.cleanups = s.cleanups[:len(s.cleanups)-1]
		last()
	}
}

func (s *stage) Helper()                  {}
func (s *stage) Name() string             { return s.name }
func (s *stage) Context() context.Context { return s.ctx }
func (s *stage) Cleanup(fn func())        { s.cleanups = append(s.cleanups, fn) }
func (s *stage) Failed() bool             { return len(s.failed) > 0 }
func (s *stage) Log(...any)               {}
func (s *stage) Logf(string, ...any)      {}

// Error, Fatal and their like keep what was wrong; the last two end the act.
func (s *stage) Error(args ...any) {
	s.failed = append(s.failed, strings.TrimSpace(fmt.Sprintln(args...)))
}

// Errorf is documented at Error.
func (s *stage) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }

// Fatal is documented at Error.
func (s *stage) Fatal(args ...any) {
	s.Error(args...)
	runtime.Goexit()
}

// Fatalf is documented at Error.
func (s *stage) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }

// Skip ends the act, which cannot be shown here.
func (s *stage) Skip(args ...any) {
	s.skipped = strings.TrimSpace(fmt.Sprintln(args...))
	runtime.Goexit()
}

// TempDir gives a new directory that goes with the stage.
func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "casemate-showcase-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Error(err)
		}
	})
	// Servers that run under a user of their own get in below.
	inner, err := os.MkdirTemp(dir, "")
	if err != nil {
		s.Fatal(err)
	}
	return inner
}
