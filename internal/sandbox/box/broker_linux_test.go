package box

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestBrokerHasFewPrivileges looks at the broker from outside.
func TestBrokerHasFewPrivileges(t *testing.T) {
	needRoot(t)
	t.Setenv("CASEMATE_SECRET", "hunter2")
	b := open(t, Config{})
	dir := "/proc/" + strconv.Itoa(b.cmd.Process.Pid)
	threads, err := os.ReadDir(dir + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		text, err := os.ReadFile(dir + "/task/" + th.Name() + "/status")
		if err != nil {
			continue // the thread is gone
		}
		// CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_SYS_ADMIN.
		for _, l := range []string{"CapPrm:\t00000000002000e0", "CapEff:\t00000000002000e0", "NoNewPrivs:\t1", "Groups:\t \n"} {
			if !strings.Contains(string(text), l) {
				t.Errorf("thread %s lacks %q:\n%s", th.Name(), l, text)
			}
		}
	}
	env, err := os.ReadFile(dir + "/environ")
	if err != nil || strings.Contains(string(env), "hunter2") {
		t.Errorf("environment %q, %v", env, err)
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if theirs, err := os.Readlink(dir + "/ns/" + ns); err != nil || theirs == ours {
			t.Errorf("the broker's %s namespace is %s, the node's %s, %v", ns, theirs, ours, err)
		}
	}
}

func TestLargeOrder(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	// The kernel takes no more than 128 KiB for one.
	env := []string{"A=" + strings.Repeat("x", 100<<10), "B=" + strings.Repeat("y", 100<<10)}
	f := look(t, b, Spec{Env: env, Proc: true})
	if !slices.Equal(f.Env, env) {
		t.Errorf("%d variables arrived", len(f.Env))
	}
	exe := guest(t)
	defer exe.Close()
	env = append(env, env...)
	if _, err := b.Start(context.Background(), Spec{Executable: exe, Args: []string{"guest"}, Env: env}); err == nil {
		t.Error("an order without bounds was taken")
	}
}

func TestFilesArrive(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := look(t, b, Spec{Proc: true, Files: []*os.File{w, r}})
	w.Close()
	var got []string
	for _, fd := range f.FDs {
		if n, to, _ := strings.Cut(fd, " "); n > "2" {
			got = append(got, n+" "+strings.SplitN(to, ":", 2)[0])
		}
	}
	if !slices.Equal(got, []string{"3 pipe", "4 pipe"}) {
		t.Errorf("descriptors %q", f.FDs)
	}
}
