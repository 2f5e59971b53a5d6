package filter

import (
	"maps"
	"slices"
)

// Connector gives the program for a connector: a program that an operator installed, with
// connections to one far side, that starts nothing, serves nobody and changes no file.
// It is for one that runs already. ConnectorStart gives the same for one that is yet to be
// executed, by the thread that starts it: it may start processes and execute programs.
func Connector() ([]byte, error) { return encode(connectorPolicy(false)) }

// ConnectorStart is Connector for before it is executed.
func ConnectorStart() ([]byte, error) { return encode(connectorPolicy(true)) }

func connectorPolicy(start bool) policy {
	p := nativePolicy()
	taken := []string{
		// It makes connections, and takes none.
		"accept", "accept4", "bind", "listen",
		// Landlock knows nothing of owners, modes and times, and the node's files may be of
		// the same user. What it does know is taken all the same.
		"chmod", "chown", "copy_file_range", "creat", "fallocate", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat",
		"ftruncate", "futimesat", "inotify_add_watch", "inotify_init", "inotify_init1", "lchown", "link", "linkat", "mkdir", "mkdirat",
		"rename", "renameat", "renameat2", "rmdir", "symlink", "symlinkat", "truncate", "unlink", "unlinkat", "utime",
		"utimensat", "utimes",
		// Others of the same user, the node perhaps, are none of its business.
		"pidfd_open", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sched_setaffinity", "setpriority",
	}
	check := maps.Clone(p.check)
	check["socket"] = connections()
	if start {
		// Without a user namespace these take a privilege, and the connector has none.
		const pidNamespace, ipcNamespace = 0x20000000, 0x08000000
		check["clone"] = noBits(0, ePERM, cloneNamespaces&^(pidNamespace|ipcNamespace)|cloneParent)
	} else {
		taken = append(taken, "execve", "fork", "vfork", "kill", "prlimit64")
		check["clone"] = bitsOf(0, ePERM, cloneThread, cloneNamespaces)
		check["prlimit64"] = only(0, ePERM, 0) // its own
	}
	p.allow = slices.DeleteFunc(p.allow, func(name string) bool { return slices.Contains(taken, name) })
	p.check = check
	return p
}
