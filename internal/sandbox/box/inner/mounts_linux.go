package inner

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// newDir is where the root is put together; the broker made it.
const newDir = "/new"

// mountRoot puts the box's tree together. Nothing in it is reached by a path that could
// lead elsewhere: each place is opened below the root, without symbolic links.
func (i *initial) mountRoot() error {
	if err := unix.MoveMount(i.trees[0], "", unix.AT_FDCWD, newDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	root, err := unix.Open(newDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	if i.gate.Code {
		if err := put(i.trees[1], root, "var/task"); err != nil {
			return err
		}
	}
	if i.spec.Tmp > 0 {
		const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		err := mount("tmpfs", root, "tmp", attrs,
			"size", strconv.FormatInt(i.spec.Tmp, 10), "nr_inodes", strconv.Itoa(i.spec.TmpInodes), "mode", "1777")
		if err != nil {
			return err
		}
	}
	if i.spec.Proc {
		const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY
		if err := mount("proc", root, "proc", attrs, "subset", "pid", "hidepid", "invisible"); err != nil {
			return err
		}
	}
	return nil
}

// mount mounts a new file system of the kernel's.
func mount(kind string, root int, at string, attrs int, options ...string) error {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fs) }()
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(fs, options[i], options[i+1]); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	return put(tree, root, at)
}

// put attaches a tree to a directory below root.
func put(tree, root int, at string) error {
	to, err := unix.Openat2(root, at, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	return unix.MoveMount(tree, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// swapRoot makes the tree the root and lets go of everything else.
func (i *initial) swapRoot() error {
	if err := unix.Chdir(newDir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

func (i *initial) dir() string {
	if i.spec.Dir == "" {
		return "/"
	}
	return i.spec.Dir
}
