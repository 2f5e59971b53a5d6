package keyvalue

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/function"
)

// CheckBucket refuses names of buckets and namespaces that are not well formed.
func CheckBucket(namespace, bucket string) error {
	if !function.ValidName(namespace) || !function.ValidName(bucket) {
		return ErrBucket
	}
	return nil
}

// CheckKey accepts 1 to MaxKey bytes of UTF-8, in segments joined by slashes. No segment
// may be empty, "." or "..", also with a semicolon and more behind it, so that a key means
// the same to all that read it as a path; and there are no control characters and no
// backslashes. It fails with ErrKey.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("it must have 1 to %d bytes: %w", MaxKey, ErrKey)
	}
	if err := checkText(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		name, _, _ := strings.Cut(segment, ";")
		switch {
		case segment == "":
			return fmt.Errorf("it must have no empty segment: %w", ErrKey)
		case name == "." || name == "..":
			return fmt.Errorf("it must have no dot segment: %w", ErrKey)
		}
	}
	return nil
}

// CheckPrefix accepts what a key can begin with, and "" for all of them.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKey {
		return fmt.Errorf("a prefix must have at most %d bytes: %w", MaxKey, ErrKey)
	}
	return checkText(prefix)
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("it must be UTF-8: %w", ErrKey)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\\' {
			return fmt.Errorf("it must have no control characters and no backslashes: %w", ErrKey)
		}
	}
	return nil
}

// checkType accepts what can be the value of a header.
func checkType(t string) error {
	if len(t) > MaxType {
		return fmt.Errorf("a content type must have at most %d bytes: %w", MaxType, ErrValue)
	}
	for i := range len(t) {
		if t[i] < ' ' || t[i] > '~' {
			return fmt.Errorf("a content type must be printable ASCII: %w", ErrValue)
		}
	}
	return nil
}
