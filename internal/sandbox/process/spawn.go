package process

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
)

// spawner is how the node starts processes itself, where there is no broker that does.
// All come from one thread that lives as long as it does: the kernel kills a child when
// the thread that made it ends, not the program.
type spawner struct {
	profile profile
	missing map[string]string
	jobs    chan func()
	done    chan struct{}
}

// newSpawner makes one for a profile, given what that lacks, and why there is no broker.
func newSpawner(p profile, lacks map[string]string, unboxed string) *spawner {
	if unboxed == "" {
		unboxed = "the node starts its sandboxes itself"
	}
	missing := map[string]string{measureLandlock: unboxed, measureCgroup: unboxed, measureProcesses: unboxed}
	maps.Copy(missing, lacks)
	s := &spawner{profile: p, missing: missing, jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
		close(s.done)
	}()
	return s
}

func (s *spawner) close() {
	close(s.jobs)
	<-s.done
}

// start implements way.
func (s *spawner) start(_ context.Context, o order) (life, error) {
	// The uid varies with the process, so that two runners share few of them.
	cmd := s.profile.command(o.binary, o.serial+uint64(os.Getpid())*64, o.memory)
	cmd.ExtraFiles = []*os.File{o.conn}
	if o.code != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, o.code)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, o.binary)
	cmd.Stderr = o.words
	started := make(chan error)
	s.jobs <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	return spawned{cmd, s.missing}, nil
}

type spawned struct {
	cmd     *exec.Cmd
	missing map[string]string
}

func (l spawned) pid() int { return l.cmd.Process.Pid }

func (l spawned) kill() { _ = l.cmd.Process.Kill() }

func (l spawned) wait() string {
	if err := l.cmd.Wait(); err != nil {
		return fmt.Sprint(err)
	}
	return l.cmd.ProcessState.String()
}

func (l spawned) walls() ([]string, map[string]string) { return startEnforces(), l.missing }
