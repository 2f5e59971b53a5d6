package broker

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// image is a tree in the broker's mounts, and nowhere else.
type image struct {
	path string
	dir  int // O_PATH
}

// emptyRoot is the image of a box that was given no root: it has the directories on
// which things are mounted, and nothing else.
const emptyRoot = 0

func (b *broker) emptyImage() *message.Failure {
	img, f := makeImage(emptyRoot, 4<<10, 16)
	if f != nil {
		return f
	}
	for _, d := range []string{"tmp", "proc", "dev", "var", "var/task"} {
		if err := unix.Mkdirat(img.dir, d, 0o755); err != nil {
			return failure("making the empty root", err)
		}
	}
	b.images[emptyRoot] = img
	return b.seal(emptyRoot)
}

func makeImage(id uint64, size int64, inodes int) (*image, *message.Failure) {
	path := imagesDir + "/" + strconv.FormatUint(id, 10)
	if err := unix.Mkdir(path, 0o755); err != nil {
		return nil, failure("making the image's directory", err)
	}
	options := "mode=0755,size=" + strconv.FormatInt(size, 10) + ",nr_inodes=" + strconv.Itoa(inodes)
	if err := unix.Mount("casemate", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Rmdir(path)
		return nil, failure("mounting the image", err)
	}
	if err := unix.Mount("", path, "", unix.MS_PRIVATE, ""); err != nil {
		return nil, failure("separating the image", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failure("opening the image", err)
	}
	return &image{path: path, dir: fd}, nil
}

// newImage makes an empty image and gives a descriptor of its root.
func (b *broker) newImage(r *message.Request, reply *message.Reply) []int {
	b.mu.Lock()
	b.next++
	id := b.next
	b.mu.Unlock()
	img, f := makeImage(id, r.Size, r.Inodes)
	if f != nil {
		reply.Failure = f
		return nil
	}
	fd, err := unix.Openat(img.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		reply.Failure = failure("opening the image", err)
		return nil
	}
	b.mu.Lock()
	b.images[id] = img
	b.mu.Unlock()
	reply.Image = id
	return []int{fd}
}

func (b *broker) image(id uint64) *image {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.images[id]
}

// bind puts files of the host into an image. Neither side may be reached by way of a
// symbolic link: the node has resolved the host's, and who puts another in its place
// meanwhile makes the request fail. The attributes are set on a tree that nobody can
// see yet.
func (b *broker) bind(r *message.Request) *message.Failure {
	img := b.image(r.Image)
	if img == nil || r.Image == emptyRoot {
		return failure("finding the image", unix.ENOENT)
	}
	for _, one := range r.Binds {
		if err := b.bindOne(img, one); err != nil {
			return failure("binding "+one.From, err)
		}
	}
	return nil
}

func (b *broker) bindOne(img *image, one message.Bind) error {
	const strict = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	base, name := b.host, one.From
	if name == "" { // a mask
		b.mu.Lock()
		base, name = b.images[emptyRoot].dir, "proc"
		b.mu.Unlock()
	}
	from, err := unix.Openat2(base, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: strict | unix.RESOLVE_IN_ROOT,
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	to, err := unix.Openat2(img.dir, one.To, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: strict | unix.RESOLVE_BENEATH,
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(to) }()
	if err := kindsMatch(from, to, one.Device); err != nil {
		return err
	}
	// Not recursively: what else is mounted below a directory was not asked for.
	tree, err := unix.OpenTree(from, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if one.Device {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// kindsMatch refuses what has no place in an image: devices that were not asked for,
// sockets and pipes, through which a guest would reach a process of the host.
func kindsMatch(from, to int, device bool) error {
	var f, t unix.Stat_t
	if err := unix.Fstat(from, &f); err != nil {
		return err
	}
	if err := unix.Fstat(to, &t); err != nil {
		return err
	}
	want := uint32(unix.S_IFREG)
	switch {
	case device:
		if f.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(f.Rdev) != memMajor {
			return unix.EINVAL
		}
	case f.Mode&unix.S_IFMT == unix.S_IFDIR:
		want = unix.S_IFDIR
	case f.Mode&unix.S_IFMT != unix.S_IFREG:
		return unix.EINVAL
	}
	if t.Mode&unix.S_IFMT != want {
		return unix.ENOTDIR
	}
	return nil
}

// memMajor is the number of the kernel's own memory devices: null, zero, full, random,
// urandom (Documentation/admin-guide/devices.txt).
const memMajor = 1

// seal makes an image read-only: the file system itself, so that the descriptor which
// the node has cannot write either.
func (b *broker) seal(id uint64) *message.Failure {
	img := b.image(id)
	if img == nil {
		return failure("finding the image", unix.ENOENT)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", img.path, "", flags, ""); err != nil {
		return failure("sealing the image", err)
	}
	return nil
}

// release lets an image go. Boxes that run on it keep it until they end.
func (b *broker) release(id uint64) *message.Failure {
	b.mu.Lock()
	img := b.images[id]
	if id != emptyRoot {
		delete(b.images, id)
	}
	b.mu.Unlock()
	if img == nil || id == emptyRoot {
		return failure("finding the image", unix.ENOENT)
	}
	_ = unix.Close(img.dir)
	if err := unix.Unmount(img.path, unix.MNT_DETACH); err != nil {
		return failure("unmounting the image", err)
	}
	if err := unix.Rmdir(img.path); err != nil {
		return failure("removing the image's directory", err)
	}
	return nil
}

// tree gives a copy of an image that nobody sees, for a box to put where it likes.
func (i *image) tree() (int, error) {
	return unix.OpenTree(i.dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
}
