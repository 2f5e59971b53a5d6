package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/term"

	"github.com/casemate-dev/casemate/internal/cli/build"
)

// Env is the world as the command sees it. Args, Stdin, Stdout, Stderr, Getenv
// and Clock are needed; the zero value of any other field means what its comment
// says.
type Env struct {
	Args           []string // without the program's name
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Clock          func() time.Time
	Version        string // of this program; "": devel

	// Up runs a node until ctx ends, then drains it; nil: `up` and `dev` are
	// refused. It returns nil after an orderly stop.
	Up func(ctx context.Context, o UpOptions) error

	Dir        string                                                               // working directory; "": the process's
	IsTerminal func(stream any) bool                                                // nil: asks the operating system
	Width      func() int                                                           // of the terminal, in cells; nil: asks the operating system
	Build      func(ctx context.Context, req build.Request) (build.Artifact, error) // nil: build.Build
	Programs   Programs                                                             // other programs that `trust` uses; nil: the operating system's
	System     string                                                               // as runtime.GOOS; "": this one
	Root       bool                                                                 // whether the user is root, who needs no sudo
}

// UpOptions is what `up` asks of a node.
type UpOptions struct {
	DataDir string // absolute; made with mode 0700 when missing
	KeyFile string // root key; "": root.key in DataDir, made on the first boot
	Gateway string // host:port; port 0 picks a free one
	Control string // likewise
	Objects string // likewise, of the object store; "": the node has none
	// Folders are those that triggers may watch, by name.
	Folders    map[string]Folder
	Hosts      []string // further names and addresses for the certificate
	AllowTLS12 bool
	// Unsandboxed lets native functions run as plain processes where the machine
	// cannot lock them in.
	Unsandboxed bool
	Drain       time.Duration // for work in flight, once ctx has ended
	// AdminKey is the key that this client holds for the directory, if any. When
	// there is none, or the node does not take it any more, Ready carries a new one:
	// whoever can open the directory and its root key may have it.
	AdminKey   string
	LogHandler slog.Handler // for the node's own log
	// Ready is called once, when both listeners answer. Its error stops the node
	// and is returned by Up.
	Ready func(ReadyInfo) error
}

// Folder is a folder that triggers may watch.
type Folder struct {
	Path       string   // absolute and clean
	Namespaces []string // whose triggers; "*" for all
}

// ReadyInfo is what a node says of itself when it begins to serve.
type ReadyInfo struct {
	Node       string // id
	GatewayURL string
	ControlURL string
	ObjectsURL string // "": it has no object store
	CA         []byte // PEM
	AdminKey   string // secret; set when the node made a new one
	FirstBoot  bool
	Took       time.Duration // to start; 0: not said
}

// check fills in what may be left out.
func (e *Env) check() string {
	switch {
	case e.Stdin == nil || e.Stdout == nil || e.Stderr == nil:
		return "Stdin, Stdout and Stderr must be set"
	case e.Getenv == nil:
		return "Getenv must be set; pass os.Getenv"
	case e.Clock == nil:
		return "Clock must be set; pass time.Now"
	}
	if e.IsTerminal == nil {
		e.IsTerminal = func(stream any) bool {
			f, ok := stream.(*os.File)
			return ok && term.IsTerminal(int(f.Fd()))
		}
	}
	if e.Width == nil {
		stdout, stderr := e.Stdout, e.Stderr
		e.Width = func() int { return terminalWidth(stdout, stderr) }
	}
	if e.Build == nil {
		e.Build = build.Build
	}
	if e.Programs == nil {
		e.Programs = systemPrograms{e.Stdin, e.Stderr}
	}
	if e.System == "" {
		e.System = runtime.GOOS
	}
	if e.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return "finding the working directory: " + err.Error()
		}
		e.Dir = dir
	}
	if e.Version == "" {
		e.Version = "devel"
	}
	return ""
}

// terminalWidth asks the first of the streams that is a terminal; 0: none is.
func terminalWidth(streams ...any) int {
	for _, s := range streams {
		if f, ok := s.(*os.File); ok {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil {
				return w
			}
		}
	}
	return 0
}
