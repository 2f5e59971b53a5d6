package native

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// speech is what the node and one version's code say to each other.
type speech interface {
	// command makes the guest's arguments and environment.
	command(p Place) (args, env []string)
	// dir is the working directory, relative to the version's files.
	dir() string
	// terminates says that the code expects SIGTERM before it is killed.
	terminates() bool
	// open begins to speak with the code in a cell.
	open(c Cell, clock func() time.Time) guest
}

// speechOf chooses by the runtime. It fails with a *sandbox.Error when the version's
// files do not hold what the runtime needs.
func speechOf(v *function.Version, t Tree) (speech, error) {
	switch v.Config.Runtime {
	case function.RuntimeProvided:
		if !executable(t, bootstrap) {
			return nil, badCode("there is no executable file named %s in the code", bootstrap)
		}
		return &lambda{v: v}, nil
	case function.RuntimeNodeJS, function.RuntimePython:
		return &lambda{v: v}, nil
	case function.RuntimeHTTP:
		return newServer(v, t)
	case function.RuntimeAzure:
		return newHandler(v, t)
	default:
		return nil, badCode("%q is not a native runtime", v.Config.Runtime)
	}
}

// executable reports whether a file of the version can be executed.
func executable(t Tree, name string) bool {
	info, err := fs.Stat(t.Files(), name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func badCode(format string, args ...any) *sandbox.Error {
	return &sandbox.Error{Kind: sandbox.BadModule, Public: fmt.Sprintf(format, args...)}
}

// environment makes the environment of a guest: nothing of the node's is in it. What
// the platform suggests gives way to the version's own variables, and those to what
// the protocol needs. No name is there twice: which of two would win is up to the
// guest's language.
func environment(v *function.Version, p Place, protocol []string) []string {
	all := suggested(v, p)
	for _, name := range slices.Sorted(maps.Keys(v.Config.Environment)) {
		all = append(all, name+"="+v.Config.Environment[name])
	}
	all = append(all, protocol...)
	seen := make(map[string]int, len(all))
	env := all[:0:0]
	for _, e := range all {
		name, _, _ := strings.Cut(e, "=")
		if at, there := seen[name]; there {
			env[at] = e
			continue
		}
		seen[name] = len(env)
		env = append(env, e)
	}
	return env
}

// suggested is what code may expect of any system, and what interpreters must know of
// this one.
func suggested(v *function.Version, p Place) []string {
	limit := v.Config.Limits.Memory
	return []string{
		"PATH=" + searchPath(p), "LANG=C.UTF-8", "TZ=:UTC", "HOME=" + p.Scratch, "TMPDIR=" + p.Scratch,
		"LD_LIBRARY_PATH=" + p.Task + ":" + path.Join(p.Task, "lib"),
		// It looks at the machine's memory otherwise to choose how much to take.
		"GOMEMLIMIT=" + mebibytes(limit/10*9) + "MiB",
		"NODE_PATH=" + path.Join(p.Task, "node_modules"),
		"PYTHONPATH=" + p.Task, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1",
	}
}

// nodeCommand starts Node.js. It would look at the machine's memory otherwise to choose
// how much to fill with objects; a part of the limit is left for code, stacks and buffers.
func nodeCommand(v *function.Version, p Place) []string {
	limit := v.Config.Limits.Memory
	return []string{p.Node, "--max-old-space-size=" + mebibytes(max(limit-64<<20, limit/2))}
}

// searchPath is where programs are found, the version's own first.
func searchPath(p Place) string { return p.Task + "/bin:" + p.Task + ":/usr/local/bin:/usr/bin:/bin" }

func mebibytes(n int64) string { return strconv.FormatInt(n>>20, 10) }
