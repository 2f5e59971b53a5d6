package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are an authority's, and a server's and a client's that it issued, as PEM.
// The server's is for localhost and 127.0.0.1.
type Certificates struct {
	CA, ServerCert, ServerKey, ClientCert, ClientKey []byte
	// The same in files of a directory: ca.pem, server.pem, server.key, client.pem, client.key.
	Directory string
}

// NewCertificates makes some that are good for a day. client is the client's common name.
func NewCertificates(t testing.TB, client string) *Certificates {
	t.Helper()
	now := time.Now() //nolint:forbidigo // real clients and servers check dates by the real clock
	key := newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c := &Certificates{Directory: t.TempDir()}
	c.CA = sign(t, ca, ca, &key.PublicKey, key)
	issue := func(serial int64, name string, usage x509.ExtKeyUsage) (cert, private []byte) {
		own := newKey(t)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		der, err := x509.MarshalPKCS8PrivateKey(own)
		if err != nil {
			t.Fatal(err)
		}
		return sign(t, template, ca, &own.PublicKey, key), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	c.ServerCert, c.ServerKey = issue(2, "localhost", x509.ExtKeyUsageServerAuth)
	c.ClientCert, c.ClientKey = issue(3, client, x509.ExtKeyUsageClientAuth)
	if err := os.Chmod(c.Directory, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.pem": c.CA, "server.pem": c.ServerCert, "server.key": c.ServerKey, "client.pem": c.ClientCert, "client.key": c.ClientKey,
	} {
		if err := os.WriteFile(filepath.Join(c.Directory, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Server is the server's configuration; it demands a client's certificate if strict.
func (c *Certificates) Server(t testing.TB, strict bool) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(c.ServerCert, c.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	conf.ClientCAs.AppendCertsFromPEM(c.CA)
	if strict {
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return conf
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, template, parent *x509.Certificate, public, private any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
