package landlock

import "golang.org/x/sys/unix"

// Native gives the rules for a native guest whose root is in place: it reads and
// executes what the root holds, reads /proc, and writes below /tmp and to devices.
// Nothing below /tmp is executed: a rule for a directory holds for all below it, so each
// entry of the root has one of its own. TCP is limited to the ports, for a server and its
// clients alike; with none it is left alone, since the box has no network but its own
// loopback.
func Native(ports ...uint16) (Rules, error) {
	r := Rules{
		Paths:   []Rule{{Path: "/", Access: List}},
		Bind:    ports,
		Connect: ports,
		AnyTCP:  len(ports) == 0,
	}
	names, err := entries("/")
	if err != nil {
		return Rules{}, err
	}
	for _, name := range names {
		rule := Rule{Path: "/" + name}
		switch name {
		case "tmp":
			rule.Access = Read | Write
		case "dev":
			rule.Access = List
			for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
				r.Paths = append(r.Paths, Rule{Path: "/dev/" + device, Access: Read | Write, Optional: true})
			}
		case "proc":
			rule.Access = Read
		default:
			rule.Access = Read | Execute
		}
		r.Paths = append(r.Paths, rule)
	}
	return r, nil
}

// entries lists a directory.
func entries(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("opening "+path, err)
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, failed("listing "+path, err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
