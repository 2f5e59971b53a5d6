package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate-dev/casemate/internal/durable"
)

// Files in the data directory.
const (
	KeyFile    = "root.key"    // the root key, unless it is kept elsewhere
	CanaryFile = "root.canary" // a known text, sealed under the root key
)

// KeySize is the length of the root key and of every derived key, in bytes.
const KeySize = 32

// Labels of the derived keys. A purpose given to Derive can never meet the key
// that seals, because the labels differ before it begins.
const (
	deriveLabel   = "casemate/1 derive "
	sealLabel     = "casemate/1 seal"
	canaryContext = "casemate/1 canary"
	canaryText    = "this data directory belongs to this root key"
	canaryHeader  = "casemate-canary-1"
)

// sealVersion begins every sealed value: version, 12 bytes of nonce, ciphertext
// and tag.
const sealVersion = 1

// ErrSealed means that a sealed value did not open: it was changed, or was
// sealed for another context or under another key.
var ErrSealed = errors.New("sealed value does not open")

// KeyError says why the root key cannot be used and what to do about it.
type KeyError struct {
	File   string
	Reason string
	Remedy string
}

// Error gives reason and remedy; it never holds key material.
func (e *KeyError) Error() string {
	return fmt.Sprintf("opening the root key %s: %s: %s", e.File, e.Reason, e.Remedy)
}

// Vault seals values and derives keys from one root key.
type Vault struct {
	root []byte
	aead cipher.AEAD
}

// Open reads the root key from keyFile and checks it against the canary in dir.
// With keyFile "", the key is dir/root.key, made on the first boot. Every
// refusal that concerns the key is a *KeyError.
func Open(dir, keyFile string) (*Vault, error) {
	if dir == "" {
		return nil, errors.New("opening the vault: no data directory given")
	}
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	own := keyFile == ""
	if own {
		keyFile = filepath.Join(dir, KeyFile)
	}
	canaryFile := filepath.Join(dir, CanaryFile)
	canary, err := readLimited(canaryFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the canary: %v", err)
	}
	fresh := err != nil
	if fresh {
		if err := refuseUsed(dir, keyFile); err != nil {
			return nil, err
		}
	}
	root, err := readKey(keyFile)
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	case !fresh:
		return nil, &KeyError{
			keyFile, "the file is missing, but the data directory was written with a root key",
			"restore it from your backup, or start with an empty data directory",
		}
	case !own:
		return nil, &KeyError{keyFile, "the file is missing", "put the root key there, or give no key file to have one made"}
	default:
		if root, err = createKey(keyFile); err != nil {
			return nil, err
		}
	}
	v, err := fromRoot(root)
	if err != nil {
		return nil, err
	}
	if !fresh {
		return v, v.checkCanary(keyFile, canary)
	}
	return v, v.writeCanary(dir, canaryFile)
}

func fromRoot(root []byte) (*Vault, error) {
	key, err := hkdf.Key(sha256.New, root, nil, sealLabel, KeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the sealing key: %v", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("preparing the cipher: %v", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("preparing the cipher: %v", err)
	}
	return &Vault{root: root, aead: aead}, nil
}

// Derive returns the 32-byte key for a purpose: the same one each time, and
// unrelated to that of any other purpose.
func (v *Vault) Derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, v.root, nil, deriveLabel+purpose, KeySize)
	if err != nil {
		panic("vault: HKDF refused a 32-byte key: " + err.Error()) // only a length above 8160 does that
	}
	return key
}

// Seal encrypts plaintext for a context, which names what the value is and where
// it belongs. The result is 29 bytes longer.
func (v *Vault) Seal(context string, plaintext []byte) ([]byte, error) {
	n := v.aead.NonceSize()
	out := make([]byte, 1+n, 1+n+len(plaintext)+v.aead.Overhead())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, fmt.Errorf("drawing a nonce: %v", err)
	}
	return v.aead.Seal(out, out[1:], plaintext, []byte(context)), nil
}

// Open decrypts what Seal returned for the same context, or fails with ErrSealed.
func (v *Vault) Open(context string, sealed []byte) ([]byte, error) {
	n := 1 + v.aead.NonceSize()
	if len(sealed) < n+v.aead.Overhead() || sealed[0] != sealVersion {
		return nil, ErrSealed
	}
	plain, err := v.aead.Open(nil, sealed[1:n], sealed[n:], []byte(context))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func (v *Vault) writeCanary(dir, file string) error {
	sealed, err := v.Seal(canaryContext, []byte(canaryText))
	if err != nil {
		return err
	}
	text := "# Casemate uses this file to recognise its root key. It holds no secret; do not remove it.\n" +
		canaryHeader + " " + base64.StdEncoding.EncodeToString(sealed) + "\n"
	if err := durable.WriteFile(file, []byte(text)); err != nil {
		return fmt.Errorf("writing the canary: %v", err)
	}
	return nil
}

func (v *Vault) checkCanary(keyFile string, text []byte) error {
	damaged := &KeyError{
		keyFile, "the file " + CanaryFile + " in the data directory is damaged, so the key cannot be checked",
		"restore " + CanaryFile + " from your backup",
	}
	line, ok := onlyLine(text)
	if !ok {
		return damaged
	}
	enc, ok := strings.CutPrefix(line, canaryHeader+" ")
	if !ok {
		return damaged
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(enc)
	if err != nil {
		return damaged
	}
	plain, err := v.Open(canaryContext, sealed)
	if err != nil || string(plain) != canaryText {
		return &KeyError{
			keyFile, "this is not the root key that the data directory was written with",
			"restore the right root key from your backup, or start with an empty data directory",
		}
	}
	return nil
}
