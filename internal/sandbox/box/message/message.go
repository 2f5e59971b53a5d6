// Package message is what the node and the broker say to each other: JSON, one object a
// packet, over sockets of the kind SOCK_SEQPACKET, with descriptors beside it. Requests
// carry a number that the answer repeats; answers may come in another order.
//
// Only internal/sandbox/box and its children may import it. The small program links
// it, so it imports little. A Conn may be written to from many goroutines and read
// from one.
package message

// The role of what is started is its first argument. The init is no role of the small
// program, but has a name all the same.
const (
	Roles      = "casemate-box-" // how all of them begin
	RoleBroker = Roles + "broker"
	RoleInit   = Roles + "init"
	RoleProbe  = Roles + "probe"
)

// GateByte is what the broker sends to an init, once the box's control groups hold it,
// with descriptors beside it: the root's tree, then the code's, if there is any.
const GateByte = 'g'

// Operations of the broker.
const (
	OpHello   = "hello"
	OpImage   = "image"
	OpBind    = "bind"
	OpSeal    = "seal"
	OpRelease = "release"
	OpStart   = "start"
	OpSignal  = "signal"
	OpUsage   = "usage"
	OpPeak    = "peak"
	OpFreeze  = "freeze"
	OpThaw    = "thaw"
	OpYield   = "yield"
	OpCompete = "compete"
)

// Request is what the node asks of the broker.
type Request struct {
	ID     uint64
	Op     string
	Image  uint64 `json:",omitempty"` // bind, seal, release
	Size   int64  `json:",omitempty"` // image: bytes
	Inodes int    `json:",omitempty"` // image
	Binds  []Bind `json:",omitempty"` // bind
	Start  *Start `json:",omitempty"` // start; its descriptor: the init's connection
	Box    uint64 `json:",omitempty"` // signal, usage, peak, freeze, thaw
	Signal int    `json:",omitempty"` // signal
	// hello: where control groups are mounted, and which the broker is to take for its own;
	// empty: those of /proc/self/cgroup
	Cgroups, Memberships string `json:",omitempty"`
}

// Bind puts a file or directory of the host into an image, read-only.
type Bind struct {
	From   string // absolute, without symbolic links; empty: an empty directory
	To     string // relative to the image's root; it exists
	Device bool   `json:",omitempty"` // a device file that must work
}

// Start is the broker's part in starting a box.
type Start struct {
	Root, Code uint64 `json:",omitempty"` // images; 0: none
	Memory     int64  `json:",omitempty"` // bytes
	Processes  int    `json:",omitempty"`
	CPUPercent int    `json:",omitempty"`
}

// Reply answers a Request, or, with ID 0, tells of the end of a box.
type Reply struct {
	ID      uint64
	Failure *Failure          `json:",omitempty"`
	Image   uint64            `json:",omitempty"` // image; its descriptor: the directory
	Box     uint64            `json:",omitempty"` // start; its descriptor: the init as a pidfd
	Missing map[string]string `json:",omitempty"` // hello: control groups that are not there
	One     bool              `json:",omitempty"` // hello: boxes have one user id mapped, the broker's
	Usage   *Usage            `json:",omitempty"`
	Ended   *Ended            `json:",omitempty"`
}

// Usage is what a box has used.
type Usage struct {
	CPU        int64 // nanoseconds
	Memory     int64 // bytes
	MemoryPeak int64 // bytes
	Group      bool  // measured by a control group
}

// Ended tells that a box is gone and cleaned up.
type Ended struct {
	Box    uint64
	Status uint32 // as wait(2) gives it, of the init
	OOM    bool
	Usage  Usage
}

// Failure is a step that did not succeed.
type Failure struct {
	Step  string
	Errno int    `json:",omitempty"`
	Text  string `json:",omitempty"` // when there is no number
}

// Sight is what the probe sees inside a box.
type Sight struct {
	PID, UID, GID int
	Groups        int
	Status        map[string]string // fields of /proc/self/status
	Namespaces    map[string]string // names of /proc/self/ns and where they lead
	Map           string            // /proc/self/uid_map
	Links         []string          // network interfaces
	Host          string
	Root          []string // names in /
	Writable      bool     // something could be made in /
	Descriptors   []int    // besides standard ones
	Environment   int      // variables
	Core          uint64   // limit
	OOM           string   // oom_score_adj
	Others        int      // processes that can be seen besides its own
}
