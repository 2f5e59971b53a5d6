package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of an authority. caSealed holds the sealed key and, within the seal,
// the certificate: one file, so that no crash can leave half of an authority.
const (
	caFile   = "ca.pem"
	caSealed = "ca.sealed"

	sealContext      = "identity/authority"
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

// maxAuthorityFile bounds what is read back, in bytes.
const maxAuthorityFile = 64 << 10

// errNoAuthority means that none has been made in the folder yet.
var errNoAuthority = errors.New("no authority")

type authorityFiles struct {
	dir  string
	seal Sealer
}

func (f authorityFiles) load() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	path := filepath.Join(f.dir, caSealed)
	sealed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// ca.sealed is made first and ca.pem from it, so ca.pem alone means that the
		// key was lost. A new authority in its place would be one that clients, who
		// trust this ca.pem, take for an attacker.
		if _, err := os.Stat(filepath.Join(f.dir, caFile)); err == nil {
			return nil, nil, fmt.Errorf("%s is missing and %s is not: restore it from a backup, or remove %s too to have a new authority made, which clients must trust anew",
				path, caFile, caFile)
		}
		return nil, nil, errNoAuthority
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the authority: %v", err)
	}
	if len(sealed) > maxAuthorityFile {
		return nil, nil, f.spoilt("it is too large")
	}
	plain, err := f.seal.Open(sealContext, sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%v)", f.spoilt("it was changed, or sealed with another root key"), err)
	}
	defer clear(plain)
	cert, key, err := decodeCA(plain)
	if err != nil {
		return nil, nil, f.spoilt(err.Error())
	}
	return cert, key, nil
}

func (f authorityFiles) spoilt(why string) error {
	return fmt.Errorf("the authority's key in %s cannot be used: %s: restore the file or the root key from a backup, or move %s away to have a new authority made, which clients must trust anew",
		filepath.Join(f.dir, caSealed), why, f.dir)
}

func decodeCA(plain []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	first, rest := pem.Decode(plain)
	second, end := pem.Decode(rest)
	if first == nil || second == nil || len(end) != 0 || first.Type != certificateBlock || second.Type != keyBlock {
		return nil, nil, errors.New("it does not hold a certificate and a key")
	}
	cert, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, nil, errors.New("its certificate cannot be read")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, nil, errors.New("its key cannot be read")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("its key is not the certificate's")
	}
	if !cert.IsCA || !cert.PermittedDNSDomainsCritical || len(cert.PermittedDNSDomains) == 0 || len(cert.PermittedIPRanges) == 0 {
		return nil, nil, errors.New("its certificate is not that of an authority with name constraints")
	}
	return cert, key, nil
}

func (f authorityFiles) save(cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the CA key: %v", err)
	}
	plain := pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw})
	plain = append(plain, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})...)
	clear(der)
	defer clear(plain)
	sealed, err := f.seal.Seal(sealContext, plain)
	if err != nil {
		return fmt.Errorf("sealing the CA key: %v", err)
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("making the authority's folder: %v", err)
	}
	return f.write(caSealed, sealed, 0o600)
}

// publish makes ca.pem what the sealed certificate says, and the folder private.
func (f authorityFiles) publish(caPEM []byte) error {
	if err := os.Chmod(f.dir, 0o700); err != nil {
		return fmt.Errorf("making the authority's folder private: %v", err)
	}
	// What a crash left of an unfinished write.
	for _, name := range []string{caFile, caSealed} {
		litter, err := filepath.Glob(filepath.Join(f.dir, name+".*.tmp"))
		if err != nil {
			continue // dir holds characters of a pattern: the litter stays
		}
		for _, path := range litter {
			_ = os.Remove(path) // it is only litter
		}
	}
	there, err := os.ReadFile(filepath.Join(f.dir, caFile))
	if err == nil && bytes.Equal(there, caPEM) {
		return nil
	}
	return f.write(caFile, caPEM, 0o644)
}

// write replaces a file at once: whoever reads it, after a crash too, finds the
// old content or the new.
func (f authorityFiles) write(name string, content []byte, mode fs.FileMode) (err error) {
	tmp, err := os.CreateTemp(f.dir, name+".*.tmp")
	if err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()           // closed already, or of no use
			_ = os.Remove(tmp.Name()) // renamed already, or litter at worst
		}
	}()
	if err := tmp.Chmod(mode); err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	if _, err := tmp.Write(content); err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(f.dir, name)); err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	d, err := os.Open(f.dir)
	if err != nil {
		return fmt.Errorf("writing %s: %v", name, err)
	}
	defer func() { _ = d.Close() }() // it was only read
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing %s: flushing the folder: %v", name, err)
	}
	return nil
}
