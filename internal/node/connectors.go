package node

import (
	"errors"
	"path/filepath"

	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
	"github.com/casemate-dev/casemate/internal/source/connector"
)

// This file has what is around connectors.

// connectorFilter is what bounds a connector's system calls.
func (n *node) connectorFilter() connector.Filter {
	if n.opts.Unsandboxed {
		return connector.Filter{}
	}
	sealed, err := filter.Connector()
	start, err2 := filter.ConnectorStart()
	if err = errors.Join(err, err2); err != nil {
		n.log.Warn("the system calls of connectors are not filtered", "error", err)
		return connector.Filter{}
	}
	return connector.Filter{Sealed: sealed, Start: start}
}

// connectorFolders is where programs that speak the connector protocol may lie.
func (n *node) connectorFolders() []string {
	return []string{filepath.Dir(n.opts.Executable), filepath.Join(n.opts.DataDir, "connectors")}
}
