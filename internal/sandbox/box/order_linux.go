package box

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/inner"
	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
)

// initProcesses is how many processes and threads the init is: they count against a box's
// limit on processes.
const initProcesses = 1

// order makes the init's part of a Spec, and the descriptors that go with it.
func (b *Broker) order(s *Spec) (*inner.List, []int, error) {
	const step = "checking the order"
	o := &inner.Order{
		Program: s.Program, Args: s.Args, Env: s.Env, Dir: s.Dir, Stdout: s.Stdout != nil, Stderr: s.Stderr != nil,
		Executable: s.Executable != nil, Files: len(s.Files), Listen: s.Listen, Proc: s.Proc, UsualTimes: s.UsualTimes,
		Tmp: s.Tmp, TmpInodes: s.TmpInodes, Filter: s.Filter, Limits: limits(s, b.rootful),
		Code: s.Code != nil, One: b.one, Capabilities: b.capabilities,
	}
	switch {
	case len(s.Args) == 0:
		return nil, nil, &Error{Step: step, Err: errors.New("there are no arguments")}
	case (s.Executable == nil) == (s.Program == ""):
		return nil, nil, &Error{Step: step, Err: errors.New("there must be a program or an executable")}
	case len(s.Filter)%8 != 0 || len(s.Filter) > 8*unix.BPF_MAXINSNS:
		return nil, nil, &Error{Step: step, Err: errors.New("the filter is not a seccomp program")}
	}
	if o.TmpInodes == 0 {
		o.TmpInodes = DefaultTmpInodes
	}
	var err error
	if o.Landlock, err = b.rules(s); err != nil {
		return nil, nil, &Error{Step: step, Err: err}
	}
	var fds []int
	for _, f := range append([]*os.File{s.Stdout, s.Stderr, s.Executable}, s.Files...) {
		if f != nil {
			fds = append(fds, int(f.Fd()))
		}
	}
	list, err := inner.Make(o)
	if err != nil {
		return nil, nil, &Error{Step: step, Err: err}
	}
	return list, fds, nil
}

// rules gives the Landlock rules of a box, or nil where the kernel has none.
func (b *Broker) rules(s *Spec) (*landlock.Prepared, error) {
	if b.landlock == 0 {
		return nil, nil
	}
	root := emptyRoot()
	if s.Root != nil {
		var err error
		if root, err = s.Root.top(); err != nil {
			return nil, err
		}
	}
	rules := landlock.Native(root.entries, root.devices)
	if s.Executable != nil {
		// It is not below the root. The kernel reads what it executes.
		rules.Paths = append(rules.Paths, landlock.Rule{Access: landlock.Read | landlock.Execute, Plain: true})
	}
	p, err := rules.Prepare(b.landlock)
	return &p, err
}

// limits are the resource limits of the guest.
func limits(s *Spec, ownUID bool) []inner.Limit {
	or := func(v, def uint64) uint64 {
		if v == 0 {
			return def
		}
		return v
	}
	all := []inner.Limit{
		// One byte, not none: the kernel hands a dump to a program that the host has set
		// even when the limit is 0, but not when it is 1 (fs/coredump.c).
		{Name: "core dumps", Resource: unix.RLIMIT_CORE, Value: 1},
		{Name: "file size", Resource: unix.RLIMIT_FSIZE, Value: or(s.FileSize, DefaultFileSize)},
		{Name: "open files", Resource: unix.RLIMIT_NOFILE, Value: or(s.OpenFiles, DefaultOpenFiles)},
		{Name: "locked memory", Resource: unix.RLIMIT_MEMLOCK, Value: 0},
		{Name: "message queues", Resource: unix.RLIMIT_MSGQUEUE, Value: 0},
	}
	if s.Processes > 0 && ownUID {
		// The kernel counts by user, so this is for a user of its own only.
		all = append(all, inner.Limit{Name: "processes", Resource: unix.RLIMIT_NPROC, Value: uint64(s.Processes)})
	}
	if s.AddressSpace > 0 {
		all = append(all, inner.Limit{Name: "address space", Resource: unix.RLIMIT_AS, Value: s.AddressSpace})
	}
	return all
}
