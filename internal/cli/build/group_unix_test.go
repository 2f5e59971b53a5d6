//go:build unix

package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A compiler that hangs is killed with everything it started.
func TestAHangingCompilerIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, `sleep 600 & echo $! > ../child; mv ../child ../begun; wait`)
	var text []byte
	for limit := 200 * time.Millisecond; text == nil; limit *= 2 { // until it had the time to begin
		req := request(dir)
		req.Timeout = limit
		var failed *CompileError
		if _, err := Build(t.Context(), req); !errors.As(err, &failed) || !failed.TimedOut {
			t.Fatalf("got %v, want a *CompileError for the time", err)
		}
		text, _ = os.ReadFile(filepath.Join(dir, "begun"))
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); alive(child); <-time.After(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("something the compiler started lives on")
		}
	}
}

// alive says whether a process runs. One that was killed may wait to be collected.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // where there is one
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
