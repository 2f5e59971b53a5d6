//go:build linux

package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
)

// Landlock stands behind other layers, and what they refuse says nothing of it. What it
// alone refuses, in a box without the filter, shows that it is there.
func TestLandlockHoldsWithoutTheFilter(t *testing.T) {
	m := fortress(t, box.Config{})
	m.lacks(t, box.MeasureLandlock)
	if abi, err := landlock.ABI(); err != nil || abi < 5 {
		t.Skipf("this kernel's Landlock, version %d, leaves devices alone", abi)
	}
	if v := m.attack(t, func(s *box.Spec) { s.Filter = nil }, "device"); v.Errno != "EACCES" {
		t.Errorf("ended with %q, want EACCES, by: landlock", v.Errno)
	}
	if v := onHost(t, "device"); v.Errno != "" {
		t.Errorf("even on the host it ended with %s", v.Errno)
	}
}

// No two boxes have a namespace in common, nor one with this process: what holds a box
// apart from the node need not hold it apart from its neighbour.
func TestBoxesShareNoNamespace(t *testing.T) {
	m := fortress(t, box.Config{})
	holders := map[string]int{"this process": os.Getpid()}
	for _, name := range []string{"one box", "another"} {
		holders[name] = m.start(t, m.spec(t, "probe", "forever")).Program()
	}
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		seen := map[string]string{}
		for name, pid := range holders {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if err != nil {
				t.Fatal(err)
			}
			if other, shared := seen[ns]; shared {
				t.Errorf("%s and %s share %s", name, other, ns)
			}
			seen[ns] = name
		}
	}
}

// What a box may use is written into its control groups, behind its resource limits: the
// kernel's own files say so.
func TestLimitsAreThoseOfTheControlGroups(t *testing.T) {
	m := fortress(t, box.Config{})
	for _, measure := range []string{box.MeasureMemory, box.MeasureProcesses, box.MeasureCPU} {
		m.lacks(t, measure)
	}
	s := m.spec(t, "probe", "forever")
	s.CPUPercent = 50
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.start(t, s).Program()))
	if err != nil {
		t.Fatal(err)
	}
	// The first of each that there is, by version 1 or 2.
	for what, files := range map[string]map[string]string{
		"memory":    {"memory.limit_in_bytes": strconv.Itoa(memory), "memory.max": strconv.Itoa(memory)},
		"processes": {"pids.max": strconv.Itoa(processes + 1)}, // and its init
		"processor": {"cpu.cfs_quota_us": "half", "cpu.max": "half"},
	} {
		found := false
		for line := range strings.Lines(string(groups)) {
			hierarchy := strings.SplitN(strings.TrimSpace(line), ":", 3)
			for file, want := range files {
				for mounted := range strings.SplitSeq(hierarchy[1], ",") {
					dir := filepath.Join("/sys/fs/cgroup", mounted, hierarchy[2])
					got, err := os.ReadFile(filepath.Join(dir, file))
					if err != nil {
						continue
					}
					found = true
					value := strings.TrimSpace(string(got))
					if want == "half" {
						period, _ := os.ReadFile(filepath.Join(dir, "cpu.cfs_period_us"))
						parts := strings.Fields(value + " " + string(period))
						quota, err1 := strconv.Atoi(parts[0])
						of, err2 := strconv.Atoi(parts[1])
						if err1 != nil || err2 != nil || 2*quota != of {
							t.Errorf("%s of the box is %v, want half", file, parts)
						}
					} else if value != want {
						t.Errorf("%s of the box is %s, want %s", file, value, want)
					}
				}
			}
		}
		if !found {
			t.Errorf("the box has no group for %s:\n%s", what, groups)
		}
	}
}

// Whoever takes over a box's init finds one capability in it: to send signals.
func TestInitKeepsOneCapability(t *testing.T) {
	const kill = "0000000000000020"
	m := fortress(t, box.Config{})
	x := m.start(t, m.spec(t, "probe", "forever"))
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", x.PID))
	if err != nil || len(threads) == 0 {
		t.Fatalf("the init's threads: %v, %v", threads, err)
	}
	for _, name := range threads {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t" + kill, "CapEff:\t" + kill, "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Groups:\t \n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s lacks %q:\n%s", name, want, status)
			}
		}
	}
}
