package node

import (
	"os"

	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
)

// confine limits a connector's files to those that it was installed with. It leaves the
// network alone, which is what a connector is for.
func confine(read, execute []string, program *os.File) error {
	rules := landlock.Rules{
		AnyTCP: true, Paths: []landlock.Rule{{File: int(program.Fd()), Access: landlock.Read | landlock.Execute}},
	}
	for _, p := range read {
		rules.Paths = append(rules.Paths, landlock.Rule{Path: p, Access: landlock.Read, Optional: true})
	}
	for _, p := range execute {
		rules.Paths = append(rules.Paths, landlock.Rule{Path: p, Access: landlock.Read | landlock.Execute, Optional: true})
	}
	return landlock.Restrict(rules)
}
