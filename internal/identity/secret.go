package identity

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what a secret looks like wherever it is printed.
const redacted = "[redacted]"

// fingerprint is the digest of a key's secret. It cannot be turned back, but it
// would tell whether a guess is right, so it is not shown either.
type fingerprint [32]byte

// Format shows nothing, whatever the verb.
func (fingerprint) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// LogValue shows nothing.
func (fingerprint) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText shows nothing; what is stored is written by encodeKey alone.
func (fingerprint) MarshalText() ([]byte, error) { return []byte(redacted), nil }
