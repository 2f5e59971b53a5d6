package process

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
)

// Boxes starts boxes; a *box.Broker does.
type Boxes interface {
	Start(ctx context.Context, s box.Spec) (*box.Box, error)
	Posture() box.Posture
}

// boxed starts processes in boxes. The broker and the init of the box do all of the
// lockdown that takes privileges, and the process only what concerns itself.
type boxed struct{ boxes Boxes }

func newBoxed(b Boxes) way { return boxed{b} }

// start implements way.
func (b boxed) start(ctx context.Context, o order) (life, error) {
	program, err := filter.Wasm()
	if err != nil {
		return nil, err
	}
	files := []*os.File{o.conn}
	if o.code != nil {
		files = append(files, o.code)
	}
	x, err := b.boxes.Start(ctx, box.Spec{
		Executable: o.binary, Args: plan{memory: o.memory, boxed: true}.args(), Env: []string{},
		Files: files, Stderr: o.words,
		// For the map of the process's own pages, which it opens before it seals itself.
		Proc:   true,
		Filter: program, Memory: o.most, Processes: maxProcesses, OpenFiles: maxFiles,
		FileSize: uint64(min(o.memory, maxFileSize)),
	})
	if err != nil {
		return nil, err
	}
	return boxedLife{x, b.boxes}, nil
}

func (boxed) close() {}

type boxedLife struct {
	box   *box.Box
	boxes Boxes
}

func (l boxedLife) pid() int { return l.box.Program() }

func (l boxedLife) kill() { l.box.Kill() }

func (l boxedLife) wait() string { return l.box.Exit().String() }

// walls implements life. What a box can and this kind of process has no use for is left
// out: fuel bounds what guests compute, and none of them is ever paused.
func (l boxedLife) walls() ([]string, map[string]string) {
	p := l.boxes.Posture()
	enforced, missing := slices.Clone(p.Enforced), maps.Clone(p.Missing)
	if missing == nil {
		missing = map[string]string{}
	}
	maps.Copy(missing, l.box.Missing())
	for _, unused := range []string{box.MeasureCPU, box.MeasureFreezer} {
		delete(missing, unused)
	}
	return slices.DeleteFunc(enforced, func(m string) bool {
		_, lacking := missing[m]
		return lacking || m == box.MeasureCPU || m == box.MeasureFreezer
	}), missing
}

// openBinary opens the program of the sandboxes. One that only its owner may execute
// could not be executed by the users that sandboxes become; those get a copy in memory.
func openBinary(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the sandbox's program: %v", err)
	}
	const everybody = 0o005
	info, err := f.Stat()
	if err != nil || info.Mode()&everybody == everybody {
		return f, err
	}
	defer func() { _ = f.Close() }()
	code, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading the sandbox's program: %v", err)
	}
	inMemory, err := box.Executable(code)
	if err != nil {
		return nil, fmt.Errorf("opening the sandbox's program: %v", err)
	}
	return inMemory, nil
}
