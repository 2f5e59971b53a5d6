package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/casemate-dev/casemate/internal/durable"
)

// keyHeader precedes the key, as 64 hex digits, on the one line of a key file
// that is neither empty nor a comment.
const keyHeader = "casemate-root-key-1"

const keyComment = `# This is the root key of a Casemate node. Everything in its data directory is
# encrypted with it. Keep a copy somewhere safe: without it the data is lost, and
# whoever has it can read the data.
`

// maxKeyFile bounds what is read of a key or canary file.
const maxKeyFile = 4 << 10

var errKeyForm = errors.New("want one line, " + keyHeader + " and 64 hex digits, besides comments")

// parseKey reads the text form of a root key. Its errors never quote the input.
func parseKey(text []byte) ([]byte, error) {
	line, ok := onlyLine(text)
	if !ok {
		return nil, errKeyForm
	}
	digits, ok := strings.CutPrefix(line, keyHeader+" ")
	if !ok || len(digits) != 2*KeySize {
		return nil, errKeyForm
	}
	key, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errKeyForm // the cause would quote a digit of the key
	}
	if bytes.Equal(key, make([]byte, KeySize)) {
		return nil, errors.New("the key is all zeros")
	}
	return key, nil
}

func formatKey(key []byte) []byte {
	return []byte(keyComment + keyHeader + " " + hex.EncodeToString(key) + "\n")
}

// onlyLine returns the one line of text that is neither empty nor a comment.
func onlyLine(text []byte) (string, bool) {
	var found string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if found != "" {
			return "", false
		}
		found = line
	}
	return found, found != ""
}

// readKey loads a key file. A missing one is os.ErrNotExist; any other trouble
// with it is a *KeyError.
func readKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("opening the root key: %w", err)
	}
	if err != nil {
		return nil, &KeyError{file, err.Error(), "let the user that runs the node read it"}
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, so that no swap comes in between
	if err != nil {
		return nil, &KeyError{file, err.Error(), "check the file system"}
	}
	if !info.Mode().IsRegular() {
		return nil, &KeyError{file, "it is not a regular file", "give the path of a key file"}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, &KeyError{file, fmt.Sprintf("others than its owner can reach it (mode %04o)", perm), "run `chmod 600 " + file + "`"}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, &KeyError{file, err.Error(), "check the file system"}
	}
	if len(text) > maxKeyFile {
		return nil, &KeyError{file, "it is too large to be a root key", "restore the root key from your backup"}
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, &KeyError{file, err.Error(), "restore the root key from your backup"}
	}
	return key, nil
}

func createKey(file string) ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("drawing a root key: %v", err)
	}
	if err := durable.WriteFile(file, formatKey(key)); err != nil {
		return nil, fmt.Errorf("writing the root key: %v", err)
	}
	return key, nil
}

// refuseUsed refuses a directory that has data but no canary: taking whatever
// key is at hand there would make every value in it unreadable.
func refuseUsed(dir, keyFile string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the data directory: %v", err)
	}
	for _, e := range entries {
		// Connectors are installed before the first start, and are not sealed.
		if e.IsDir() && e.Name() != "lost+found" && e.Name() != "connectors" {
			return &KeyError{
				keyFile, fmt.Sprintf("%s holds data (%s) but no %s to check the key against", dir, e.Name(), CanaryFile),
				"restore " + CanaryFile + " from your backup, or start with an empty data directory",
			}
		}
	}
	return nil
}

func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %v", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("reading the data directory: %v", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("opening the vault: others than its owner can reach %s (mode %04o): run `chmod 700 %s`", dir, perm, dir)
	}
	return nil
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}
