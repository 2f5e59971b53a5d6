package box

import (
	"context"
	"os"
	"strconv"
	"testing"
)

// TestExecutableFromOutsideRunsUnderLandlock executes a file that is in no root and not
// in memory: the rules are set all the same, with one for it.
func TestExecutableFromOutsideRunsUnderLandlock(t *testing.T) {
	t.Parallel()
	b := open(t, Config{})
	if why, missing := b.Posture().Missing[MeasureLandlock]; missing {
		t.Skip(why)
	}
	for name, open := range map[string]func() *os.File{
		"file": func() *os.File {
			f, err := os.Open(built.guest)
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"memory": func() *os.File { return guest(t) },
	} {
		f := open()
		x, err := b.Start(context.Background(), Spec{Executable: f, Args: []string{"guest", "exit", "7"}})
		_ = f.Close()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if lacks := x.Missing(); len(lacks) > 0 {
			t.Errorf("%s: it lacks %v", name, lacks)
		}
		if e := x.Exit(); e.Code != 7 {
			t.Errorf("%s: it ended with %v", name, e)
		}
	}
}

// TestProgramIsTheGuests: of the processes of a box, Program names the guest's.
func TestProgramIsTheGuests(t *testing.T) {
	t.Parallel()
	b := open(t, Config{})
	f := guest(t)
	defer f.Close()
	x, err := b.Start(context.Background(), Spec{Executable: f, Args: []string{"guest", "block"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		x.Kill()
		<-x.Done()
	}()
	pid := x.Program()
	if pid == 0 || pid == x.PID {
		t.Fatalf("the program is process %d, the init %d", pid, x.PID)
	}
	// The kernel lets the init go on a moment before the process has its arguments.
	var args []byte
	for err == nil && len(args) == 0 {
		select {
		case <-x.Done():
			t.Fatal("the program ended")
		default:
			args, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		}
	}
	if err != nil || string(args) != "guest\x00block\x00" {
		t.Errorf("process %d is %q, %v", pid, args, err)
	}
}
