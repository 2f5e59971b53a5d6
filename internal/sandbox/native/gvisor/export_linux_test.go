package gvisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/native"
)

// Folder gives a Launcher's folder.
func Folder(l native.Launcher) string { return l.(*Launcher).dir.Name() }

// Broker gives the process that the boxes of a Launcher's sandboxes were started by.
func Broker(t *testing.T, launcher native.Launcher) int {
	t.Helper()
	l := launcher.(*Launcher)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.cells {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(c.holder.box.PID) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "PPid:")
		var pid int
		if _, err := fmt.Sscan(rest, &pid); err != nil || pid <= 1 {
			t.Fatalf("the box was started by %d, %v", pid, err)
		}
		return pid
	}
	t.Fatal("there is no sandbox")
	return 0
}
