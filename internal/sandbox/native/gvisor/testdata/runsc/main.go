// Program runsc is gVisor's runtime, built from the module proxy at one exact pin for the tests of the package gvisor. It is a module of its own: nothing of it
// enters Casemate. It holds the commands that the tests need, through gVisor's own cli package; an operator installs the runsc of his distribution or of gVisor's
// releases.
package main

import (
	"github.com/google/subcommands"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
)

func main() {
	const group = "casemate"
	cli.Run(nil, map[util.SubCommand]string{
		new(cmd.Create): group, new(cmd.Delete): group, new(cmd.Kill): group, new(cmd.List): group, new(cmd.Run): group, new(cmd.Start): group,
		new(cmd.State): group, new(cmd.Wait): group, new(cmd.Do): group,
		new(sentrycmd.Boot): group, new(cmd.Gofer): group, new(sentrycmd.Umount): group,
	}, []subcommands.Command{new(cmd.Platforms)})
}
