package output

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func clockAt(t time.Time) func() time.Time { return func() time.Time { return t } }

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func printer(o Options) (*Printer, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	o.Out, o.Err = &out, &err
	if o.Clock == nil {
		o.Clock = clockAt(noon)
	}
	return New(o), &out, &err
}

// Attack: a function logs sequences that set the window title, clear the
// screen, write the clipboard, or turn the text's direction.
func TestEscapeSequencesAreDisarmed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"plain\ttext\n", "plain\ttext\n"},
		{"grüße 日本", "grüße 日本"},
		{"\x1b]0;owned\x07", `\x1b]0;owned\x07`},
		{"\x1b[2J\x1b[H", `\x1b[2J\x1b[H`},
		{"a\rb\b\x7f", `a\x0db\x08\x7f`},
		{"\u009b31m", `\x9b31m`},
		{"\x9b31m", `\x9b31m`},
		{"abc\u202edef", `abc\u202edef`},
		{"\xff\xfe", `\xff\xfe`},
		{"", ""},
	} {
		if got := Safe(tc.in); got != tc.want {
			t.Errorf("Safe(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
	p, out, _ := printer(Options{OutTerminal: true})
	tab := NewTable("NAME")
	tab.Row("x\x1b[2Jy\nz")
	if err := p.Table(tab); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("table let it through: %q", out.String())
	}
	for name, f := range map[string]func(string) string{"bold": p.out.Bold, "name": p.out.Name, "plain": p.out.Plain} {
		if strings.Contains(f("\x1b[1m"), "\x1b") {
			t.Errorf("%s let it through", name)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("a\x1b[0m")
	f.Add("\u009d\x9c\xc2")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Safe(s) {
			if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
				t.Fatalf("%q keeps %U", s, r)
			}
		}
	})
}

func TestColorOnlyWhereATerminalReads(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		o        Options
		out, err bool
	}{
		{Options{Color: true, OutTerminal: true}, true, false},
		{Options{Color: true, ErrTerminal: true}, false, true},
		{Options{Color: true}, false, false},
		{Options{OutTerminal: true, ErrTerminal: true}, false, false},
	} {
		p, _, _ := printer(tc.o)
		if got := strings.Contains(p.Out().Good("x"), "\x1b"); got != tc.out {
			t.Errorf("%+v: out coloured: %v", tc.o, got)
		}
		if got := strings.Contains(p.Err().Good("x"), "\x1b"); got != tc.err {
			t.Errorf("%+v: err coloured: %v", tc.o, got)
		}
	}
}

func TestTableFitsTheTerminalAndKeepsAllInAPipe(t *testing.T) {
	t.Parallel()
	build := func() *Table {
		tab := NewTable("NAME", "URL")
		tab.Flex = 1
		tab.Row("hello", strings.Repeat("u", 80))
		tab.Row("日本", "short")
		return tab
	}
	p, out, _ := printer(Options{OutTerminal: true, Width: 40})
	if err := p.Table(build()); err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSpace(l))); n > 40 {
			t.Errorf("line of %d cells: %q", n, l)
		}
	}
	if !strings.Contains(out.String(), "日本   short") {
		t.Errorf("wide characters are not lined up:\n%s", out)
	}
	p, out, _ = printer(Options{Width: 40})
	if err := p.Table(build()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), strings.Repeat("u", 80)) {
		t.Errorf("a pipe lost text:\n%s", out)
	}
}

func TestTimesAndIDs(t *testing.T) {
	t.Parallel()
	id := "sha256:" + strings.Repeat("ab", 32)
	pretty, _, _ := printer(Options{OutTerminal: true})
	plain, _, _ := printer(Options{})
	if got := pretty.Time(noon.Add(-90 * time.Second)); got != "1m30s ago" {
		t.Error(got)
	}
	if got := plain.Time(noon); got != "2030-01-02T12:00:00Z" {
		t.Error(got)
	}
	if pretty.ID(id) != "abababababab" || plain.ID(id) != id {
		t.Error(pretty.ID(id), plain.ID(id))
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 42 * time.Microsecond: "42 µs", 1500 * time.Microsecond: "1.5 ms",
		250 * time.Millisecond: "250 ms", 1234 * time.Millisecond: "1.2 s", 2 * time.Minute: "2m", 25 * time.Hour: "1d",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 627_000: "612.3 KiB", 128 << 20: "128 MiB", 3 << 30: "3 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	if got := Ago(noon.Add(time.Hour), noon); got != "in 1h" {
		t.Error(got)
	}
}

func TestStepsPlain(t *testing.T) {
	t.Parallel()
	p, _, err := printer(Options{})
	s := p.Steps()
	a, b := s.Start("build hello (go)"), s.Start("build other (c)")
	b.Fail("no compiler")
	a.Done("12 KiB")
	s.Close()
	want := "failed: build other (c): no compiler (0 µs)\nbuild hello (go): 12 KiB (0 µs)\n"
	if err.String() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestStepsOnATerminalEndWithTheirResults(t *testing.T) {
	t.Parallel()
	p, _, err := printer(Options{ErrTerminal: true, Width: 60})
	s := p.Steps()
	a, b := s.Start("first"), s.Start(strings.Repeat("long ", 40))
	a.Done("ok")
	b.Done("")
	s.Close()
	got := err.String()
	if !strings.Contains(got, "✓ first  ok") || !strings.HasSuffix(got, "0 µs\n") {
		t.Errorf("got %q", got)
	}
	// Two lines were drawn; before the first result is written, both are taken back.
	if !strings.Contains(got, "\x1b[1A\x1b[1A\r\x1b[J  ✓ first") {
		t.Errorf("spinners were not taken back: %q", got)
	}
}

func TestJSONForms(t *testing.T) {
	t.Parallel()
	p, out, err := printer(Options{JSON: true, OutTerminal: true, Color: true})
	v := map[string]string{"a": "<b>"}
	if e := p.Value(v); e != nil {
		t.Fatal(e)
	}
	if e := p.Record(v); e != nil {
		t.Fatal(e)
	}
	p.Problem(func() {})
	if got, want := out.String(), "{\n  \"a\": \"<b>\"\n}\n{\"a\":\"<b>\"}\n"; got != want {
		t.Errorf("got %q", got)
	}
	if p.Pretty() || !strings.Contains(err.String(), "cannot be shown") {
		t.Error(p.Pretty(), err)
	}
}
