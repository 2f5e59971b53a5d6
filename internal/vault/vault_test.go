package vault

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CASEMATE_VAULT_TEST_LOCK"); dir != "" {
		if _, err := Lock(dir); err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString("held\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "data") }

// refused checks that err is a *KeyError which says each of the words and shows
// nothing of the key.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	var ke *KeyError
	if !errors.As(err, &ke) || ke.Remedy == "" {
		t.Fatalf("got %v, want a KeyError with a remedy", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestFirstBootMakesAKeyAndTheSecondReadsIt(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	v, err := Open(dir, "")
	ok(t, err)
	sealed, err := v.Seal("ca/key", []byte("secret"))
	ok(t, err)
	again, err := Open(dir, "")
	ok(t, err)
	if got, err := again.Open("ca/key", sealed); err != nil || string(got) != "secret" {
		t.Fatalf("%q, %v", got, err)
	}
	if !bytes.Equal(v.Derive("bus"), again.Derive("bus")) {
		t.Fatal("the derived key changed")
	}
	for file, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, KeyFile): 0o600, filepath.Join(dir, CanaryFile): 0o600} {
		info, err := os.Stat(file)
		ok(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", file, info.Mode().Perm(), want)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, KeyFile))
	ok(t, err)
	if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "copy") {
		t.Errorf("the key file does not say what it is: %.60q", text)
	}
}

func TestKeyKeptElsewhere(t *testing.T) {
	t.Parallel()
	dir, file := newDir(t), filepath.Join(t.TempDir(), "key")
	_, err := Open(dir, file)
	refused(t, err, file, "missing")
	ok(t, os.WriteFile(file, formatKey(bytes.Repeat([]byte{3}, KeySize)), 0o600))
	_, err = Open(dir, file)
	ok(t, err)
	if _, err := os.Stat(filepath.Join(dir, KeyFile)); err == nil {
		t.Fatal("a second key was made")
	}
	_, err = Open(dir, file)
	ok(t, err)
	_, err = Open(dir, "") // forgot where it is
	refused(t, err, "missing", "backup")
}

func TestWrongKeyRefusesTheBoot(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	_, err := Open(dir, "")
	ok(t, err)
	wrong := bytes.Repeat([]byte{5}, KeySize)
	ok(t, os.WriteFile(filepath.Join(dir, KeyFile), formatKey(wrong), 0o600))
	_, err = Open(dir, "")
	refused(t, err, "not the root key", "backup", "empty data directory")
	if strings.Contains(err.Error(), hex.EncodeToString(wrong)) {
		t.Error("the error shows the key")
	}
}

func TestMissingKeyRefusesTheBootAndMakesNone(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	_, err := Open(dir, "")
	ok(t, err)
	ok(t, os.Remove(filepath.Join(dir, KeyFile)))
	_, err = Open(dir, "")
	refused(t, err, "missing", "restore it from your backup", "empty data directory")
	if _, err := os.Stat(filepath.Join(dir, KeyFile)); err == nil {
		t.Fatal("a new key was made over old data")
	}
}

func TestMissingCanaryOverDataRefusesTheBoot(t *testing.T) {
	t.Parallel()
	for _, keepKey := range []bool{true, false} {
		dir := newDir(t)
		_, err := Open(dir, "")
		ok(t, err)
		ok(t, os.Mkdir(filepath.Join(dir, "bus"), 0o700))
		ok(t, os.Remove(filepath.Join(dir, CanaryFile)))
		if !keepKey {
			ok(t, os.Remove(filepath.Join(dir, KeyFile)))
		}
		_, err = Open(dir, "")
		refused(t, err, "bus", CanaryFile, "backup")
	}
}

// TestConnectorsMayBeInstalledBeforeTheFirstStart is about the one folder that its
// operator fills.
func TestConnectorsMayBeInstalledBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	ok(t, os.Mkdir(dir, 0o700))
	ok(t, os.Mkdir(filepath.Join(dir, "connectors"), 0o755))
	_, err := Open(dir, "")
	ok(t, err)
	ok(t, os.Mkdir(filepath.Join(dir, "bus"), 0o700))
	ok(t, os.Remove(filepath.Join(dir, CanaryFile)))
	_, err = Open(dir, "")
	refused(t, err, "bus", CanaryFile, "backup")
}

func TestDamagedCanaryRefusesTheBoot(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	_, err := Open(dir, "")
	ok(t, err)
	file := filepath.Join(dir, CanaryFile)
	whole, err := os.ReadFile(file)
	ok(t, err)
	for _, text := range []string{"", "\n", "#\n", "x\n", canaryHeader + " \n", canaryHeader + " !!\n", string(whole[:len(whole)-9]), string(whole) + string(whole)} {
		ok(t, os.WriteFile(file, []byte(text), 0o600))
		_, err = Open(dir, "")
		refused(t, err, "backup")
	}
}

func TestKeyOthersCanReachIsRefusedWithTheCommand(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	_, err := Open(dir, "")
	ok(t, err)
	file := filepath.Join(dir, KeyFile)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601} {
		ok(t, os.Chmod(file, mode))
		_, err = Open(dir, "")
		refused(t, err, "chmod 600 "+file)
	}
	ok(t, os.Chmod(file, 0o600))
	ok(t, os.Chmod(dir, 0o750))
	if _, err = Open(dir, ""); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Fatal(err)
	}
}

func TestKeyFileThatIsNoFileIsRefused(t *testing.T) {
	t.Parallel()
	_, err := Open(newDir(t), t.TempDir())
	refused(t, err, "not a regular file")
	big := filepath.Join(t.TempDir(), "key")
	ok(t, os.WriteFile(big, append(bytes.Repeat([]byte("#\n"), maxKeyFile), formatKey(bytes.Repeat([]byte{3}, KeySize))...), 0o600))
	_, err = Open(newDir(t), big)
	refused(t, err, "too large")
}

// The machine stops anywhere in the first boot: the next one comes up.
func TestFirstBootInterruptedStartsAgain(t *testing.T) {
	t.Parallel()
	key := formatKey(bytes.Repeat([]byte{3}, KeySize))
	for state, files := range map[string]map[string]string{
		"nothing":                 {},
		"lock and node id":        {LockFile: "1\n", "node.id": "x"},
		"half a temporary key":    {".root.key.new": string(key[:20])},
		"key, no canary":          {KeyFile: string(key)},
		"key, half a temp canary": {KeyFile: string(key), ".root.canary.new": "# Cas"},
	} {
		dir := newDir(t)
		ok(t, os.MkdirAll(dir, 0o700))
		for name, content := range files {
			ok(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
		v, err := Open(dir, "")
		if err != nil {
			t.Errorf("%s: %v", state, err)
			continue
		}
		again, err := Open(dir, "")
		if err != nil || !bytes.Equal(v.Derive("x"), again.Derive("x")) {
			t.Errorf("%s, second boot: %v", state, err)
		}
	}
}

func TestDerivedKeysDiffer(t *testing.T) {
	t.Parallel()
	v, err := Open(newDir(t), "")
	ok(t, err)
	other, err := Open(newDir(t), "")
	ok(t, err)
	seen := map[string]bool{}
	for _, k := range [][]byte{v.Derive(""), v.Derive("bus"), v.Derive("journal"), v.Derive("bus "), other.Derive("bus"), v.root} {
		if len(k) != KeySize || seen[string(k)] {
			t.Fatalf("%d bytes, or not unique", len(k))
		}
		seen[string(k)] = true
	}
}

func TestSealedValueOpensOnlyAsItWasSealed(t *testing.T) {
	t.Parallel()
	v, err := Open(newDir(t), "")
	ok(t, err)
	other, err := Open(newDir(t), "")
	ok(t, err)
	sealed, err := v.Seal("ca/key", []byte("secret"))
	ok(t, err)
	if got, err := v.Open("ca/key", sealed); err != nil || string(got) != "secret" {
		t.Fatalf("%q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("secret")) || len(sealed) != 6+29 {
		t.Fatalf("%d bytes", len(sealed))
	}
	twice, err := v.Seal("ca/key", []byte("secret"))
	ok(t, err)
	if bytes.Equal(sealed, twice) {
		t.Fatal("the nonce repeats")
	}
	attempts := map[string]func() ([]byte, error){
		"other context": func() ([]byte, error) { return v.Open("ca/key2", sealed) },
		"other key":     func() ([]byte, error) { return other.Open("ca/key", sealed) },
		"longer":        func() ([]byte, error) { return v.Open("ca/key", append(bytes.Clone(sealed), 0)) },
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		attempts["bit in byte "+hex.EncodeToString([]byte{byte(i)})] = func() ([]byte, error) { return v.Open("ca/key", bad) }
		attempts["cut at "+hex.EncodeToString([]byte{byte(i)})] = func() ([]byte, error) { return v.Open("ca/key", sealed[:i]) }
	}
	for what, try := range attempts {
		if got, err := try(); !errors.Is(err, ErrSealed) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestLockKeepsASecondOneOut(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	release, err := Lock(dir)
	ok(t, err)
	if _, err := Lock(dir); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	ok(t, release())
	release, err = Lock(dir)
	ok(t, err)
	ok(t, release())
}

func TestLockNamesTheOtherProcessAndItsDeathFreesIt(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "CASEMATE_VAULT_TEST_LOCK="+dir)
	stdin, err := cmd.StdinPipe()
	ok(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	line := make([]byte, 5)
	_, err = io.ReadFull(out, line)
	ok(t, err)
	_, err = Lock(dir)
	var in *InUseError
	if !errors.As(err, &in) || in.PID != cmd.Process.Pid || !strings.Contains(err.Error(), "stop that one") {
		t.Fatalf("%v, want pid %d", err, cmd.Process.Pid)
	}
	ok(t, cmd.Process.Kill())
	_ = cmd.Wait()
	release, err := Lock(dir)
	ok(t, err)
	ok(t, release())
}

func TestLockFileThatIsASymlinkIsRefused(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	ok(t, os.MkdirAll(dir, 0o700))
	victim := filepath.Join(t.TempDir(), "victim")
	ok(t, os.WriteFile(victim, []byte("precious"), 0o600))
	ok(t, os.Symlink(victim, filepath.Join(dir, LockFile)))
	if _, err := Lock(dir); err == nil {
		t.Fatal("locked through a symlink")
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious" {
		t.Fatalf("%q", got)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(formatKey(bytes.Repeat([]byte{3}, KeySize)))
	f.Add([]byte(keyHeader + " " + strings.Repeat("0", 64)))
	f.Add([]byte(keyHeader + " " + strings.Repeat("G", 64) + "\n"))
	f.Add([]byte("# only a comment\n\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parseKey(text)
		if err != nil {
			if line, ok := onlyLine(text); ok && len(line) > 40 && strings.Contains(err.Error(), line[len(line)-20:]) {
				t.Fatal("the error quotes the input")
			}
			return
		}
		if len(key) != KeySize || bytes.Equal(key, make([]byte, KeySize)) {
			t.Fatalf("%d bytes", len(key))
		}
		if again, err := parseKey(formatKey(key)); err != nil || !bytes.Equal(again, key) {
			t.Fatal("not what was written", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	v, err := fromRoot(bytes.Repeat([]byte{3}, KeySize))
	if err != nil {
		f.Fatal(err)
	}
	// A fixed nonce: the fuzzer's processes must agree on what is good.
	good := append([]byte{sealVersion}, make([]byte, v.aead.NonceSize())...)
	good = v.aead.Seal(good, good[1:], []byte("plain"), []byte("context"))
	f.Add("context", good)
	f.Add("", []byte{})
	f.Add("context", good[:13])
	f.Add("context", make([]byte, 64))
	f.Fuzz(func(t *testing.T, context string, sealed []byte) {
		plain, err := v.Open(context, sealed)
		if err == nil && (context != "context" || !bytes.Equal(sealed, good) || string(plain) != "plain") {
			t.Fatal("opened what was not sealed here")
		}
	})
}
