package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm"
)

// Argv0 is the name under which the binary is started to be a sandbox.
const Argv0 = "casemate-sandbox"

// The descriptors that a sandbox is meant to have besides the three standard ones: the
// socket to the node, and on Linux the file in which it finds compiled code.
const (
	connection = 3
	placedCode = 4
)

// heapLimit is what Go's collector tries to stay below in a sandbox, in bytes. The
// guests' memory does not count. Compiling is what needs it.
const heapLimit = 768 << 20

// places is how many goroutines may run at once: as many guests as a function may have
// at once unless its manifest says otherwise.
const places = 64

// gcPercent makes collections rare: a sandbox's own heap is small, and each collection
// stops all guests for a moment, which lasts until the slowest has reached a tick.
const gcPercent = 1600

// Limits of a sandbox process.
const (
	// maxFiles is two files without a name for each loaded version (the state that its
	// guests begin with, and its module's data), and eight for itself.
	maxFiles = 4096
	// maxFileSize bounds such a file: no guest has more memory than 32 bits address.
	maxFileSize  = 4 << 30
	maxProcesses = 4096
)

// Exit codes of a sandbox, for the node's log.
const (
	exitOK       = 0
	exitUsage    = 2
	exitLockdown = 3
	exitServe    = 4
)

// IsSandbox reports whether a program started under this name is to be a sandbox.
func IsSandbox(argv0 string) bool { return filepath.Base(argv0) == Argv0 }

// Main is the whole life of a sandbox process and gives its exit code. It is to be
// called before anything else is set up.
func Main() int {
	return run(os.Args, time.Now) //nolint:forbidigo // a sandbox is a program of its own, and this is its top
}

func run(args []string, clock func() time.Time) int {
	// A guest that computes keeps its place with Go's scheduler between two ticks, also
	// while the kernel lets others go first. With no more places than processors, a few
	// such guests would keep everybody else from running at all. (Setting it also stops
	// the runtime from following the machine's settings, for which it would keep files
	// open.)
	runtime.GOMAXPROCS(max(places, runtime.NumCPU()))
	debug.SetMemoryLimit(heapLimit)
	debug.SetGCPercent(gcPercent)
	plan, err := parsePlan(args)
	if err != nil {
		return die(os.Stderr, exitUsage, err)
	}
	hello, pagemap, err := lockDown(plan)
	if err != nil {
		return die(os.Stderr, exitLockdown, err)
	}
	conn, err := nodeConnection()
	if err != nil {
		return die(os.Stderr, exitServe, err)
	}
	err = wasm.Serve(conn, wasm.Options{Clock: clock, Memory: plan.memory, Pagemap: pagemap, Code: codeOfNode(), Hello: hello})
	if err != nil {
		return die(os.Stderr, exitServe, err)
	}
	return exitOK
}

func die(w io.Writer, code int, err error) int {
	_, _ = fmt.Fprintf(w, "sandbox: %v\n", err)
	return code
}

// plan is what a process is told by its arguments. None of it is secret.
type plan struct {
	memory   int64 // of all guests, in bytes
	isolated bool  // the process was started in namespaces of its own
	ownUID   bool  // its user is not anybody else's
	boxed    bool  // it was started in a box: the rest was done before it began
}

func (p plan) args() []string {
	return []string{
		Argv0, strconv.FormatInt(p.memory, 10),
		strconv.FormatBool(p.isolated), strconv.FormatBool(p.ownUID), strconv.FormatBool(p.boxed),
	}
}

func parsePlan(args []string) (plan, error) {
	if len(args) != 5 {
		return plan{}, errors.New("reading arguments: this program is started by a node, not by hand")
	}
	memory, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return plan{}, fmt.Errorf("reading arguments: %v", err)
	}
	p := plan{memory: memory}
	for i, flag := range []*bool{&p.isolated, &p.ownUID, &p.boxed} {
		if *flag, err = strconv.ParseBool(args[2+i]); err != nil {
			return plan{}, fmt.Errorf("reading arguments: %v", err)
		}
	}
	return p, nil
}
