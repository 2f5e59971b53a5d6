package fault

import (
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// diskSize leaves some megabytes above what the bus keeps free.
const diskSize = "72m"

// mount gives a history a small disk of its own, where that is allowed.
func (h *making) mount() {
	bus := filepath.Join(h.dir, "bus")
	if os.Mkdir(bus, 0o700) != nil {
		return
	}
	h.mounted = syscall.Mount("casemate-test", bus, "tmpfs", 0, "mode=0700,size="+diskSize) == nil
}

func (h *making) unmount() {
	if h.mounted {
		_ = syscall.Unmount(filepath.Join(h.dir, "bus"), syscall.MNT_DETACH)
	}
}

// fill fills the disk for a time while a life is under way: up to what the bus keeps free,
// or to the last byte in one go.
func (h *making) fill(ended chan error) {
	pause(time.Duration(h.rnd.IntN(400)) * time.Millisecond)
	size := int64(20 << 20)
	if h.rnd.IntN(2) == 0 {
		size = 200 << 20
	}
	f, err := os.Create(filepath.Join(h.dir, "bus", filler))
	if err != nil {
		return
	}
	chunk := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(chunk)) {
		if _, err := f.Write(chunk); err != nil {
			break // that is the end of the disk
		}
	}
	_ = f.Close()
	h.filled++
	timer := time.NewTimer(time.Duration(100+h.rnd.IntN(500)) * time.Millisecond)
	defer timer.Stop()
	select {
	case err := <-ended:
		ended <- err
	case <-timer.C:
	}
	h.empty()
}

// filler is what fills a disk.
const filler = "filler"

// empty makes room again.
func (h *making) empty() {
	if h.mounted {
		_ = os.Remove(filepath.Join(h.dir, "bus", filler))
	}
}
