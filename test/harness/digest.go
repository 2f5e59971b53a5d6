package harness

import (
	"crypto/sha256"
	"encoding/hex"
)

// Digest names content as the control plane does.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
