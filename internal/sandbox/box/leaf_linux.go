package box

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// leaf is the control group that the node moves to.
const leaf = "/casemate.node"

// settle makes room for boxes' control groups where there is version 2 alone: a group
// with processes in it cannot hand controllers down (Documentation/admin-guide/cgroup-v2,
// "no internal processes"), so the node leaves its group for one below it. The broker,
// in a pid namespace of its own, could not move it. It gives what the broker is to take
// for its own memberships, or "" for what the kernel tells it. When the node shares its
// group with others or may not leave it, nothing is done, and the broker says what is
// missing.
func settle(root, self string) string {
	text, err := os.ReadFile(self)
	if err != nil {
		return ""
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "0::/")
	if !ok || path == "" || strings.Contains(path, "\n") {
		return "" // version 1, or the root, which the rule excepts
	}
	path = "/" + path
	if above, settled := strings.CutSuffix(path, leaf); settled {
		return "0::" + above + "\n"
	}
	procs, err := os.ReadFile(root + path + "/cgroup.procs")
	pid := strconv.Itoa(os.Getpid())
	if err != nil || !slices.Equal(strings.Fields(string(procs)), []string{pid}) {
		return ""
	}
	if err := os.Mkdir(root+path+leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return ""
	}
	f, err := os.OpenFile(root+path+leaf+"/cgroup.procs", os.O_WRONLY, 0)
	if err != nil {
		return ""
	}
	_, err = f.WriteString(pid)
	if errors.Join(err, f.Close()) != nil {
		return ""
	}
	return "0::" + path + "\n"
}
