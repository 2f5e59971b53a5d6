package box

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
)

// initMemory is how much memory of its own an init may hold, in KiB.
const initMemory = 100

// TestInitHoldsLittle looks at an init from outside: every box has one for as long as it
// lives, so it is to be small, and to have nothing that a guest could want.
func TestInitHoldsLittle(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	x, err := b.Start(context.Background(), Spec{Executable: exe, Args: []string{"guest", "block"}, Proc: true, Tmp: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		x.Kill()
		<-x.Done()
	}()
	dir := "/proc/" + strconv.Itoa(x.PID)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	// CAP_KILL alone, to pass signals on.
	for _, l := range []string{
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000020", "CapEff:\t0000000000000020", "CapBnd:\t0000000000000000",
		"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Threads:\t1", "Groups:\t ",
	} {
		if !strings.Contains(string(status), l+"\n") {
			t.Errorf("the init lacks %q:\n%s", l, status)
		}
	}
	if env, err := os.ReadFile(dir + "/environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	// What the guest was given is closed; it has its connection, and learns of ends.
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil || len(fds) != 5 {
		t.Errorf("descriptors %v, %v", fds, err)
	}
	text, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	private := 0
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Private_") {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			private += n
		}
	}
	if private == 0 || private > initMemory {
		t.Errorf("the init holds %d KiB of its own:\n%s", private, text)
	}
	t.Logf("%d KiB", private)
}
