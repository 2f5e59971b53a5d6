package box

import (
	"os"
	"strconv"
	"testing"
)

func TestSettle(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for name, c := range map[string]struct{ self, procs, want, moved string }{
		"version 1":      {"4:memory:/a\n0::/svc\n", pid, "", ""},
		"the root":       {"0::/\n", pid, "", ""},
		"alone":          {"0::/svc\n", pid + "\n", "0::/svc\n", pid},
		"with others":    {"0::/svc\n", "1\n" + pid + "\n", "", ""},
		"moved before":   {"0::/svc/casemate.node\n", "", "0::/svc\n", ""},
		"not to be seen": {"0::/elsewhere\n", pid, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			// The kernel makes the file with the directory; here it is there already.
			if err := os.MkdirAll(root+"/svc"+leaf, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"/self": c.self, "/svc/cgroup.procs": c.procs, "/svc" + leaf + "/cgroup.procs": ""} {
				if err := os.WriteFile(root+file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := settle(root, root+"/self"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if moved, err := os.ReadFile(root + "/svc" + leaf + "/cgroup.procs"); err != nil || string(moved) != c.moved {
				t.Errorf("moved %q, %v, want %q", moved, err, c.moved)
			}
		})
	}
}
