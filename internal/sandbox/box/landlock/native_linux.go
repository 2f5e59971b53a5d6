package landlock

// Entry is what a directory holds.
type Entry struct {
	Name string
	Dir  bool
}

// Native gives the rules for a native guest, of whose root the entries are known, and
// the names of the devices in it: it reads and executes what the root holds, reads
// /proc, and writes below /tmp and to devices. Nothing below /tmp is executed: a rule for
// a directory holds for all below it, so each entry of the root has one of its own. What
// is a symbolic link needs none: the rule is that of what it leads to. TCP is limited to
// the ports, for a server and its clients alike; with none it is left alone, since the
// box has no network but its own loopback.
func Native(root []Entry, devices []string, ports ...uint16) Rules {
	r := Rules{
		Paths:   []Rule{{Path: "/", Access: List}},
		Bind:    ports,
		Connect: ports,
		AnyTCP:  len(ports) == 0,
	}
	for _, e := range root {
		rule := Rule{Path: "/" + e.Name, Plain: !e.Dir}
		switch e.Name {
		case "tmp":
			rule.Access = Read | Write
		case "dev":
			rule.Access = List
			for _, device := range devices {
				r.Paths = append(r.Paths, Rule{Path: "/dev/" + device, Access: Read | Write, Plain: true})
			}
		case "proc":
			rule.Access = Read
		default:
			rule.Access = Read | Execute
		}
		r.Paths = append(r.Paths, rule)
	}
	return r
}
