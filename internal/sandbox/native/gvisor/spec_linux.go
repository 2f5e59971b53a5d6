package gvisor

import (
	"strconv"

	"github.com/casemate-dev/casemate/internal/sandbox/native"
)

// What runsc takes: the parts that are used here of the OCI runtime specification,
// config.md and config-linux.md, 1.0.2.
type (
	spec struct {
		Version  string  `json:"ociVersion"`
		Process  process `json:"process"`
		Root     rootDir `json:"root"`
		Hostname string  `json:"hostname"`
		Mounts   []mount `json:"mounts"`
		Linux    linux   `json:"linux"`
	}
	process struct {
		User            user     `json:"user"`
		Args            []string `json:"args"`
		Env             []string `json:"env"`
		Dir             string   `json:"cwd"`
		NoNewPrivileges bool     `json:"noNewPrivileges"`
		Capabilities    struct{} `json:"capabilities"` // none
		Rlimits         []rlimit `json:"rlimits"`
		OOMScore        int      `json:"oomScoreAdj"`
	}
	user struct {
		UID int `json:"uid"`
		GID int `json:"gid"`
	}
	rlimit struct {
		Type string `json:"type"`
		Hard uint64 `json:"hard"`
		Soft uint64 `json:"soft"`
	}
	rootDir struct {
		Path     string `json:"path"`
		ReadOnly bool   `json:"readonly"`
	}
	mount struct {
		To      string   `json:"destination"`
		Type    string   `json:"type"`
		From    string   `json:"source"`
		Options []string `json:"options,omitempty"`
	}
	linux struct {
		Namespaces []namespace `json:"namespaces"`
		UIDs       []mapping   `json:"uidMappings"`
		GIDs       []mapping   `json:"gidMappings"`
	}
	namespace struct {
		Type string `json:"type"`
		Path string `json:"path,omitempty"`
	}
	mapping struct {
		Inside  int `json:"containerID"`
		Outside int `json:"hostID"`
		Size    int `json:"size"`
	}
)

// guestID is the user and group of the code, as in a box.
const guestID = 1000

// openFiles is how many the code may have open, as in a box.
const openFiles = 1024

// describe makes the specification of a sandbox.
func describe(r *root, code string, args, env []string, dir string, o *native.Order, h *holder) spec {
	mounts := []mount{
		{To: "/proc", Type: "proc", From: "proc", Options: []string{"ro", "nosuid", "nodev", "noexec"}},
		// gVisor has it even when nobody asks.
		{To: "/sys", Type: "sysfs", From: "sysfs", Options: []string{"ro", "nosuid", "nodev", "noexec"}},
		{To: scratch, Type: "tmpfs", From: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=" + strconv.FormatInt(o.Scratch, 10)}},
	}
	mounts = append(mounts, r.mounts...)
	mounts = append(mounts, mount{To: task, Type: "bind", From: code, Options: readOnly()})
	limit := func(name string, n uint64) rlimit { return rlimit{"RLIMIT_" + name, n, n} }
	return spec{
		Version: "1.0.2",
		Process: process{
			User: user{guestID, guestID}, Args: args, Env: env, Dir: dir, NoNewPrivileges: true,
			Rlimits: []rlimit{limit("NOFILE", openFiles), limit("NPROC", uint64(o.Processes)), limit("CORE", 0)},
			// As the box's own processes, which must not go before the sandbox does.
			OOMScore: 1000,
		},
		Root: rootDir{Path: r.dir, ReadOnly: true}, Hostname: "sandbox", Mounts: mounts,
		Linux: linux{
			Namespaces: []namespace{
				{Type: "user"},
				{Type: "pid"},
				{Type: "mount"},
				{Type: "ipc"},
				{Type: "uts"},
				{Type: "network", Path: h.network()},
			},
			UIDs: h.users(), GIDs: h.users(),
		},
	}
}

// readOnly are the options of files that come from outside.
func readOnly() []string { return []string{"bind", "ro", "nosuid", "nodev"} }
