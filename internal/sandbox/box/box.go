package box

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Errors that callers may match.
var (
	// ErrUnsupported is what the machine has no means for.
	ErrUnsupported = errors.New("not supported on this machine")
	// ErrEnded is for a box or a broker that has ended.
	ErrEnded = errors.New("ended")
)

// Error is a step that did not succeed. Err may be matched: a syscall.Errno, mostly.
type Error struct {
	Step string
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Config is how a Broker is opened.
type Config struct {
	// Program is the small program's path. Empty: the one embedded, or, when this binary
	// was built without it, this binary itself, whose main then must call stub.Main first.
	Program string
	// Unprivileged opens the broker as if by a user without privileges.
	Unprivileged bool
	// Cgroups is where control groups are mounted; empty: /sys/fs/cgroup.
	Cgroups string
	// Logger gets what the broker has to say; nil: nothing is logged.
	Logger *slog.Logger
}

// Posture says what separates a box from the machine.
type Posture struct {
	Enforced []string          // measures in force, sorted
	Missing  map[string]string // measures that are not, with the reason
}

// Has reports whether a measure is in force.
func (p Posture) Has(measure string) bool {
	_, found := slices.BinarySearch(p.Enforced, measure)
	return found
}

// String names what is missing.
func (p Posture) String() string {
	if len(p.Missing) == 0 {
		return "complete"
	}
	return "without " + strings.Join(slices.Sorted(maps.Keys(p.Missing)), ",")
}

// Bind puts a file or directory of the host into an image, read-only.
type Bind struct {
	From string // absolute path on the host; symbolic links are resolved once, by NewImage
	To   string // absolute path inside
}

// File is a small file of an image.
type File struct {
	Path    string // absolute path inside
	Mode    os.FileMode
	Content []byte
}

// Link is a symbolic link of an image.
type Link struct {
	Path   string // absolute path inside
	Target string
}

// ImageSpec describes a read-only tree.
type ImageSpec struct {
	// Root says that boxes will have it as their root: it gets the directories on which a
	// box's own mounts go (/tmp, /proc, /var/task), and /dev with null, zero, full, random
	// and urandom.
	Root  bool
	Binds []Bind
	Files []File
	Dirs  []string
	Links []Link
	// Masks are directories inside, most often of a bind, that an empty one covers.
	Masks []string
	// Size in bytes and Inodes bound what is written into the image, besides Binds. Zero:
	// room for Files, Dirs and Links and little else.
	Size   int64
	Inodes int
}

// Spec describes a box.
type Spec struct {
	Root, Code *Image   // Root nil: an empty root; Code nil: nothing at /var/task
	Program    string   // absolute path inside, or
	Executable *os.File // a descriptor to execute
	Args, Env  []string // complete; Args[0] included
	Dir        string   // working directory; empty: /
	Files      []*os.File
	// Stdout and Stderr are /dev/null when nil. Standard input always is.
	Stdout, Stderr *os.File
	// UsualTimes gives the program turns on a processor and timers as any program has
	// them, not those that the node asked for itself and that it would inherit.
	UsualTimes bool
	// Listen are addresses inside, bound before the program runs and handed out.
	Listen []netip.AddrPort
	Proc   bool // mount /proc, with nothing but the box's own processes
	// Tmp is the size in bytes of a /tmp from which nothing can be executed; 0: none.
	Tmp       int64
	TmpInodes int // 0: DefaultTmpInodes
	// Filter is a seccomp program as the kernel takes it (box/filter makes them).
	Filter []byte

	Memory     int64 // bytes, by control group; 0: unlimited
	Processes  int   // by control group, and RLIMIT_NPROC; 0: unlimited
	CPUPercent int   // of one processor, by control group; 0: unlimited
	// Resource limits; 0: DefaultOpenFiles, DefaultFileSize, unlimited.
	OpenFiles, FileSize, AddressSpace uint64
}

// Defaults of a Spec.
const (
	DefaultTmpInodes = 4096
	DefaultOpenFiles = 1024
	DefaultFileSize  = 4 << 30
)

// Usage is what a box has used so far.
type Usage struct {
	CPU        time.Duration
	Memory     int64 // bytes
	MemoryPeak int64 // bytes; since the start, or since ResetPeak
}

// Exit is how a box ended.
type Exit struct {
	Code       int            // of the guest's program; -1 when a signal ended it
	Signal     syscall.Signal // that ended it, or 0
	OOM        bool           // the kernel killed something in it for its memory limit
	CPU        time.Duration
	MemoryPeak int64 // bytes; 0 when it is not known
}

// String describes the end to a person.
func (e Exit) String() string {
	switch {
	case e.OOM:
		return "out of memory"
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}

// Box is one running box.
type Box struct {
	ID        string // unique among all boxes of all brokers
	PID       int    // of its init, on the host; 0 when it cannot be told
	Listeners []net.Listener

	inside
}
