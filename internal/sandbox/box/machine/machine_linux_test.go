package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run executes a list, which is sent with descriptors beside it, and gives the machine's
// exit code and what it wrote to its standard output.
func run(t *testing.T, p *Program, fds ...int) (int, string) {
	t.Helper()
	packet, err := p.Packet()
	if err != nil {
		t.Fatal(err)
	}
	return execute(t, packet, fds...)
}

func execute(t *testing.T, packet []byte, fds ...int) (int, string) {
	t.Helper()
	image, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/machine"
	if err := os.WriteFile(path, image, 0o700); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	if packet != nil {
		if err := unix.Sendmsg(pair[0], packet, unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Close(pair[0])
	var out bytes.Buffer
	c := exec.Command(path)
	c.Stdout, c.ExtraFiles = &out, []*os.File{theirs}
	err = c.Run()
	var ended *exec.ExitError
	if err != nil && (!errors.As(err, &ended) || !ended.Exited()) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String()
}

func say(p *Program, text string) Place {
	return p.Want("saying", uintptr(len(text)), unix.SYS_WRITE, 1, p.Text(text), uintptr(len(text)))
}

func exit(p *Program, code uintptr) Place { return p.Do("ending", unix.SYS_EXIT_GROUP, code) }

func TestCallsAreMadeInOrder(t *testing.T) {
	p := new(Program)
	say(p, "a")
	p.Try("nothing", unix.SYS_CLOSE, ^uintptr(0))
	p.Succeed("nothing", unix.SYS_GETPID)
	say(p, "b")
	exit(p, 7)
	if code, out := run(t, p); code != 7 || out != "ab" {
		t.Errorf("%d, %q", code, out)
	}
}

// A call that does not go well is noted down, and the handler of failures is next.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		add    func(*Program)
		result int64
	}{
		"an error":               {func(p *Program) { p.Do("this", unix.SYS_CLOSE, ^uintptr(0)) }, -int64(unix.EBADF)},
		"an error of any result": {func(p *Program) { p.Succeed("this", unix.SYS_CLOSE, ^uintptr(0)) }, -int64(unix.EBADF)},
		"another result":         {func(p *Program) { p.Want("this", 99, unix.SYS_CLOSE, 0) }, 0},
		"another number":         {func(p *Program) { p.Check("this", p.Numbers(5), 4) }, 5},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(Program)
			handler := p.Numbers(0)
			p.Copy("handling", handler, Handler)
			c.add(p)
			say(p, "still there")
			binary.NativeEndian.PutUint64(p.data, uint64(p.Here().At()))
			p.Want("telling", 16, unix.SYS_WRITE, 1, Failed, 16)
			exit(p, 3)
			code, out := run(t, p)
			if code != 3 || len(out) != 16 {
				t.Fatalf("%d, %q", code, out)
			}
			step, ok := p.Steps().Of(uintptr(binary.NativeEndian.Uint64([]byte(out))))
			if result := int64(binary.NativeEndian.Uint64([]byte(out[8:]))); !ok || step != "this" || result != c.result {
				t.Errorf("%q failed with %d, want %d", step, result, c.result)
			}
		})
	}
	p := new(Program)
	for _, at := range []uintptr{0, Failed, Place(0).At(), Place(1).At()} {
		if step, ok := p.Steps().Of(at); ok {
			t.Errorf("%#x of an empty list is %q", at, step)
		}
	}
}

// Without a handler, or without a list, the machine ends.
func TestWithoutAList(t *testing.T) {
	p := new(Program)
	p.Do("this", unix.SYS_CLOSE, ^uintptr(0))
	say(p, "still there")
	if code, out := run(t, p); code != 1 || out != "" {
		t.Errorf("%d, %q", code, out)
	}
	for name, packet := range map[string][]byte{"nobody": nil, "short": []byte("short")} {
		if code, out := execute(t, packet); code != 1 || out != "" {
			t.Errorf("%s: %d, %q", name, code, out)
		}
	}
}

// A loop that stores results: it reads until there is nothing more, a byte at a time, and
// says what it read, until it finds an x.
func TestBranchesAndResults(t *testing.T) {
	for in, want := range map[string]string{"ab": "ab!", "": "!", "axb": "a?"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString(in); err != nil {
			t.Fatal(err)
		}
		p := new(Program)
		buf := p.Numbers(0)
		where := p.Numbers(0)
		again := p.Here()
		// The descriptor that came beside the list is the lowest that was free.
		n := p.Succeed("reading", unix.SYS_READ, Connection+1, buf, 1)
		end := p.If("looking for the end", where, 0)
		found := p.If("looking for an x", buf, 'x')
		p.Want("saying", 1, unix.SYS_WRITE, 1, buf, 1)
		p.Jump("reading on", again)
		p.Store(n, where)
		p.Goto(end, say(p, "!"))
		exit(p, 0)
		p.Goto(found, say(p, "?"))
		exit(p, 0)
		fd := int(r.Fd())
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if code, out := run(t, p, fd); code != 0 || out != want {
			t.Errorf("%q: %d, %q", in, code, out)
		}
	}
}

// A result may be another call's argument, and what another's is compared with.
func TestResultsInCalls(t *testing.T) {
	p := new(Program)
	kept := p.Numbers(0)
	p.Store(p.Succeed("opening", unix.SYS_DUP, 1), kept)
	write := p.Here() + 4
	p.Copy("copying", kept, write.Arg(0))
	check := p.Here() + 1
	p.Copy("copying", kept, check.Wanted())
	p.Check("comparing", kept, 0)
	p.Try("nothing", unix.SYS_GETPID)
	text := p.Text("x")
	p.Want("saying", 1, unix.SYS_WRITE, 0, text, 1)
	exit(p, 0)
	if code, out := run(t, p); code != 0 || out != "x" {
		t.Errorf("%d, %q", code, out)
	}
}

func TestWhatDoesNotFit(t *testing.T) {
	p := new(Program)
	p.Text("a\x00b")
	if _, err := p.Packet(); !errors.Is(err, errZero) {
		t.Error(err)
	}
	p = new(Program)
	p.Text(strings.Repeat("x", dataLen))
	if _, err := p.Packet(); !errors.Is(err, unix.E2BIG) {
		t.Error(err)
	}
	p = new(Program)
	for range callLen/callSize + 1 {
		p.Do("this", unix.SYS_GETPID)
	}
	if _, err := p.Packet(); !errors.Is(err, unix.E2BIG) {
		t.Error(err)
	}
}

// What nobody sends must fit where the machine puts it.
func TestTheImageIsAsLaidOut(t *testing.T) {
	code, err := machineCode()
	if err != nil {
		t.Fatal(err)
	}
	if n := codeOffset + len(code); n > 4<<10 {
		t.Errorf("headers and code have %d bytes", n)
	}
	if n := len(boot()); n > bootLen {
		t.Errorf("what the machine begins with has %d bytes", n)
	}
	image, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of code, an image of %d", len(code), len(image))
}
