package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// aead is a Sealer as the vault is one.
type aead struct{ cipher.AEAD }

func newSealer(t testing.TB) aead {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead{g}
}

func (a aead) Seal(context string, plain []byte) ([]byte, error) {
	return a.AEAD.Seal(nil, nil, plain, []byte(context)), nil
}

func (a aead) Open(context string, sealed []byte) ([]byte, error) {
	return a.AEAD.Open(nil, nil, sealed, []byte(context))
}

type caBench struct {
	t     testing.TB
	dir   string
	seal  aead
	clock *fakeClock
}

func newCABench(t testing.TB) *caBench {
	return &caBench{t, filepath.Join(t.TempDir(), "ca"), newSealer(t), newClock()}
}

func (b *caBench) try(names ...string) (*Authority, error) {
	return OpenAuthority(b.dir, b.seal, names, b.clock.Now, rand.Reader)
}

func (b *caBench) open(names ...string) *Authority {
	b.t.Helper()
	a, err := b.try(names...)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func (b *caBench) pool(pem []byte) *x509.CertPool {
	b.t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		b.t.Fatal("the CA's PEM holds no certificate")
	}
	return p
}

// dial makes one TLS connection to the config over a pipe.
func dial(server, client *tls.Config) (cs tls.ConnectionState, err error) {
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(s, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		done <- err
	}()
	conn := tls.Client(c, client)
	if err := conn.Handshake(); err != nil {
		c.Close()
		<-done
		return cs, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // and with it session tickets
		return cs, err
	}
	return conn.ConnectionState(), <-done
}

func (b *caBench) client(a *Authority, name string) *tls.Config {
	return &tls.Config{RootCAs: b.pool(a.CAPEM()), ServerName: name, Time: b.clock.Now, NextProtos: []string{"h2"}}
}

func TestClientsAcceptTheServedChain(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open("casemate.example", "10.1.2.3", "Box.")
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "casemate.example", "10.1.2.3", "box"} {
		cs, err := dial(a.ServerConfig(0), b.client(a, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "h2" {
			t.Errorf("%s: version %x, protocol %q", name, cs.Version, cs.NegotiatedProtocol)
		}
		if life := cs.PeerCertificates[0].NotAfter.Sub(b.clock.Now()); life > ServerLifetime {
			t.Errorf("the server certificate lives for %v", life)
		}
	}
	for _, name := range []string{"example.com", "10.1.2.4", "other.example"} {
		if _, err := dial(a.ServerConfig(0), b.client(a, name)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// A bucket's name is a label before a host's: only the listener that was given domains
// vouches for it, and for nothing else.
func TestLabelsBelowADomain(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	hosts := []string{"S3.Casemate.Example.", "10.1.2.3", "::2", "box", "localhost", "my.localhost", "s3.casemate.example"}
	domains := Domains(hosts)
	if !slices.Equal(domains, []string{"s3.casemate.example"}) {
		t.Fatalf("the domains of %q are %q", hosts, domains)
	}
	// The authority was made before anybody asked for this: it is kept, the certificate is not.
	b.open(hosts...)
	a := b.open(hosts...)
	server := a.ServerConfig(0, domains...)
	for name, want := range map[string]bool{
		"photos.s3.casemate.example": true, "s3.casemate.example": true, "box": true, "localhost": true, "10.1.2.3": true,
		"a.photos.s3.casemate.example": false, "casemate.example": false, "other.casemate.example": false,
		"photos.localhost": false, "photos.my.localhost": false, "photos.box": false,
	} {
		if _, err := dial(server, b.client(a, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"photos.s3.casemate.example", "photos.localhost"} {
		if _, err := dial(a.ServerConfig(0), b.client(a, name)); err == nil {
			t.Errorf("a listener without domains vouches for %s", name)
		}
	}
	first, err := server.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.clock.advance(ServerLifetime)
	next, err := server.GetCertificate(nil)
	if err != nil || next == first || !slices.Contains(next.Leaf.DNSNames, "*.s3.casemate.example") {
		t.Errorf("after its time: %v, %q", err, next.Leaf.DNSNames)
	}
}

func TestTLSVersionsAndSuites(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	client := func(version uint16, suites ...uint16) *tls.Config {
		c := b.client(a, "localhost")
		c.MinVersion, c.MaxVersion, c.CipherSuites = version, version, suites
		return c
	}
	for _, least := range []uint16{0, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS13} {
		if _, err := dial(a.ServerConfig(least), client(tls.VersionTLS12)); err == nil {
			t.Errorf("TLS 1.2 was accepted when asked for %x", least)
		}
	}
	old := a.ServerConfig(tls.VersionTLS12)
	if cs, err := dial(old, client(tls.VersionTLS12)); err != nil || cs.Version != tls.VersionTLS12 {
		t.Errorf("TLS 1.2: %v", err)
	}
	if cs, err := dial(old, client(0)); err != nil || cs.Version != tls.VersionTLS13 {
		t.Errorf("TLS 1.3 is not preferred: %v", err)
	}
	if _, err := dial(old, client(tls.VersionTLS11)); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	for _, s := range []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA,
	} {
		if _, err := dial(old, client(tls.VersionTLS12, s)); err == nil {
			t.Errorf("suite %s was accepted", tls.CipherSuiteName(s))
		}
	}
	for _, id := range old.CipherSuites {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == id })
		if i < 0 || !strings.HasPrefix(tls.CipherSuiteName(id), "TLS_ECDHE_") || strings.Contains(tls.CipherSuiteName(id), "CBC") {
			t.Errorf("suite %s is offered", tls.CipherSuiteName(id))
		}
	}
}

func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	server, client := a.ServerConfig(0), b.client(a, "localhost")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		cs, err := dial(server, client)
		if err != nil || cs.DidResume != (i == 1) {
			t.Errorf("connection %d: resumed %v, error %v", i, cs.DidResume, err)
		}
	}
}

// sign has the authority's own key sign what it must not be able to vouch for.
func (b *caBench) sign(template *x509.Certificate) *x509.Certificate {
	b.t.Helper()
	cert, caKey, err := authorityFiles{b.dir, b.seal}.load()
	if err != nil {
		b.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(7), pkix.Name{CommonName: "forged"}
	template.NotBefore, template.NotAfter = b.clock.Now().Add(-time.Hour), b.clock.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, cert, key.Public(), caKey)
	if err != nil {
		b.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		b.t.Fatal(err)
	}
	return leaf
}

// The attacker has the CA's key; those who trust the CA are safe elsewhere.
func TestAttackStolenCAKeyVouchesForNobodyElse(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open("casemate.example", "10.1.2.3")
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	ip := func(s string) []net.IP { return []net.IP{net.ParseIP(s)} }
	for name, c := range map[string]struct {
		template x509.Certificate
		host     string
		usage    x509.ExtKeyUsage
		good     bool
	}{
		"its own name":             {x509.Certificate{DNSNames: []string{"casemate.example"}, ExtKeyUsage: server}, "casemate.example", x509.ExtKeyUsageServerAuth, true},
		"its own address":          {x509.Certificate{IPAddresses: ip("10.1.2.3"), ExtKeyUsage: server}, "10.1.2.3", x509.ExtKeyUsageServerAuth, true},
		"another loopback address": {x509.Certificate{IPAddresses: ip("127.9.9.9"), ExtKeyUsage: server}, "127.9.9.9", x509.ExtKeyUsageServerAuth, true},
		"example.com":              {x509.Certificate{DNSNames: []string{"example.com"}, ExtKeyUsage: server}, "example.com", x509.ExtKeyUsageServerAuth, false},
		"beside its own":           {x509.Certificate{DNSNames: []string{"localhost", "example.com"}, ExtKeyUsage: server}, "example.com", x509.ExtKeyUsageServerAuth, false},
		"the parent of its own":    {x509.Certificate{DNSNames: []string{"example"}, ExtKeyUsage: server}, "example", x509.ExtKeyUsageServerAuth, false},
		"ending alike":             {x509.Certificate{DNSNames: []string{"evilcasemate.example"}, ExtKeyUsage: server}, "evilcasemate.example", x509.ExtKeyUsageServerAuth, false},
		"wildcard":                 {x509.Certificate{DNSNames: []string{"*.com"}, ExtKeyUsage: server}, "example.com", x509.ExtKeyUsageServerAuth, false},
		"another address":          {x509.Certificate{IPAddresses: ip("10.1.2.4"), ExtKeyUsage: server}, "10.1.2.4", x509.ExtKeyUsageServerAuth, false},
		"a public address":         {x509.Certificate{IPAddresses: ip("2606:4700::1111"), ExtKeyUsage: server}, "2606:4700::1111", x509.ExtKeyUsageServerAuth, false},
		"a client":                 {x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "localhost", x509.ExtKeyUsageClientAuth, false},
		"software":                 {x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}, "localhost", x509.ExtKeyUsageCodeSigning, false},
	} {
		leaf := b.sign(&c.template)
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: b.pool(a.CAPEM()), DNSName: c.host, CurrentTime: b.clock.Now(), KeyUsages: []x509.ExtKeyUsage{c.usage},
		})
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAttackAuthorityBelowTheAuthority(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := b.clock.Now().Add(time.Hour)
	ca, caKey, err := authorityFiles{b.dir, b.seal}.load()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) *x509.Certificate {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(8), b.clock.Now().Add(-time.Hour), end
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	middle := issue(&x509.Certificate{Subject: pkix.Name{CommonName: "middle"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, ca, caKey)
	leaf := issue(&x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, middle, key)
	between := x509.NewCertPool()
	between.AddCert(middle)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: b.pool(a.CAPEM()), Intermediates: between, DNSName: "localhost", CurrentTime: b.clock.Now()})
	if e := new(x509.CertificateInvalidError); !errors.As(err, e) || e.Reason != x509.TooManyIntermediates {
		t.Errorf("an authority below the authority: %v", err)
	}
}

func TestCertificateIsReissuedWhileRunning(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	server, client := a.ServerConfig(0), b.client(a, "localhost")
	serial := func() string {
		t.Helper()
		cs, err := dial(server, client)
		if err != nil {
			t.Fatalf("at %s: %v", b.clock.Now(), err)
		}
		return cs.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if serial() != first {
		t.Error("a certificate for each connection")
	}
	b.clock.advance(ServerLifetime - renewBefore - time.Minute)
	if serial() != first {
		t.Error("reissued too early")
	}
	b.clock.advance(2 * time.Minute)
	second := serial()
	if second == first {
		t.Error("not reissued near its end")
	}
	b.clock.advance(10 * ServerLifetime) // the machine slept
	if serial() == second {
		t.Error("an expired certificate is served")
	}
	b.clock.advance(-300 * 24 * time.Hour) // and its clock was wrong
	if serial() == second {
		t.Error("a certificate of the future is served")
	}
}

func TestReissueIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	b.clock.advance(ServerLifetime)
	got := make([]*tls.Certificate, 16)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			c, err := a.certificate(&a.own)
			if err != nil {
				t.Error(err)
			}
			got[i] = c
		})
	}
	wg.Wait()
	for _, c := range got {
		if c != got[0] {
			t.Fatal("several certificates were issued at once")
		}
	}
}

// failingRand gives randomness until it is told to stop.
type failingRand struct{ broken bool }

func (r *failingRand) Read(p []byte) (int, error) {
	if r.broken {
		return 0, errInjected
	}
	return rand.Read(p)
}

func TestFailedReissueServesTheOldOneToItsEnd(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	r := &failingRand{}
	a, err := OpenAuthority(b.dir, b.seal, nil, b.clock.Now, r)
	if err != nil {
		t.Fatal(err)
	}
	old, err := a.certificate(&a.own)
	if err != nil {
		t.Fatal(err)
	}
	r.broken = true
	b.clock.advance(ServerLifetime - time.Minute)
	if c, err := a.certificate(&a.own); err != nil || c != old {
		t.Errorf("%v, %v", c, err)
	}
	b.clock.advance(time.Minute)
	if c, err := a.certificate(&a.own); err == nil {
		t.Errorf("an expired certificate is served: %v", c.Leaf.NotAfter)
	}
	r.broken = false
	if _, err := a.certificate(&a.own); err != nil {
		t.Error(err)
	}
}

func TestAuthorityIsKept(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	first := b.open("casemate.example").CAPEM()
	if !bytes.Equal(b.open("casemate.example").CAPEM(), first) || !bytes.Equal(b.open().CAPEM(), first) {
		t.Error("another authority after opening again")
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, caFile: 0o644, caSealed: 0o600} {
		if fi, err := os.Stat(filepath.Join(b.dir, name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, fi.Mode(), err)
		}
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.open()
	if fi, err := os.Stat(b.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder stayed open to others: %v, %v", fi.Mode(), err)
	}
}

func TestNameOutsideTheConstraintsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	b.open("casemate.example")
	for _, name := range []string{"other.example", "10.0.0.1", "example"} {
		_, err := b.try("casemate.example", name)
		var ne *NameError
		if !errors.As(err, &ne) || !slices.Equal(ne.Names, []string{name}) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, word := range []string{name, b.dir, "leave these names out", "trust the new ca.pem"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	b.open("sub.casemate.example", "127.3.3.3") // within them
}

func TestBadNamesAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "*", "*.example.com", "a b", "a..b", "-a", "a-", "a:8443", "https://a", "a/b", "0.0.0.0", "::", "fe80::1%eth0", "224.0.0.1", "ä.example", strings.Repeat("a", 64), "a\x00b", "a_b"} {
		b := newCABench(t)
		if _, err := b.try(name); err == nil {
			t.Errorf("%q was taken", name)
		}
		if _, err := os.Stat(b.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q left something on disk", name)
		}
	}
}

func TestAttackTamperedAuthorityFile(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	b.open()
	path := filepath.Join(b.dir, caSealed)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := b.seal.Open(sealContext, good)
	if err != nil {
		t.Fatal(err)
	}
	reseal := func(context string, plain []byte) []byte {
		sealed, err := b.seal.Seal(context, plain)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	other := newCABench(t)
	other.open()
	theirs, err := os.ReadFile(filepath.Join(other.dir, caSealed))
	if err != nil {
		t.Fatal(err)
	}
	theirPlain, err := other.seal.Open(sealContext, theirs)
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Index(plain, []byte("-----BEGIN PRIVATE"))
	theirCut := bytes.Index(theirPlain, []byte("-----BEGIN PRIVATE"))
	for name, content := range map[string][]byte{
		"one bit":              append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1),
		"truncated":            good[:len(good)/2],
		"empty":                nil,
		"huge":                 make([]byte, maxAuthorityFile+1),
		"sealed by another":    theirs,
		"sealed for other use": reseal("something/else", plain),
		"no key":               reseal(sealContext, plain[:cut]),
		"another one's key":    reseal(sealContext, slices.Concat(plain[:cut], theirPlain[theirCut:])),
		"something after it":   reseal(sealContext, append(bytes.Clone(plain), 'x')),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := b.try()
		if err == nil || !strings.Contains(err.Error(), "restore") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("the key is gone and the authority was quietly replaced: %v", err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
}

// Clients of the machine read ca.pem: what somebody else wrote there must not last.
func TestAttackTamperedCAFileIsPutRight(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	path := filepath.Join(b.dir, caFile)
	for _, content := range [][]byte{nil, []byte("x"), newCABench(t).open().CAPEM()} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		b.open()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, a.CAPEM()) {
			t.Errorf("it holds %.40q, %v", got, err)
		}
	}
}

// A crash can only fall between the steps; each state that it leaves opens.
func TestCrashWhileMakingTheAuthority(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	if err := os.MkdirAll(b.dir, 0o755); err != nil { // after the folder
		t.Fatal(err)
	}
	litter := filepath.Join(b.dir, caSealed+".123.tmp") // half of the first file
	if err := os.WriteFile(litter, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := b.open().CAPEM()
	if _, err := os.Stat(litter); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what the crash left is still there")
	}
	if err := os.Remove(filepath.Join(b.dir, caFile)); err != nil { // after the first file
		t.Fatal(err)
	}
	if !bytes.Equal(b.open().CAPEM(), first) {
		t.Error("another authority")
	}
	if got, err := os.ReadFile(filepath.Join(b.dir, caFile)); err != nil || !bytes.Equal(got, first) {
		t.Errorf("ca.pem: %v", err)
	}
}

func TestAuthorityWithoutTimeLeftSaysSo(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	b.clock.advance(CALifetime - time.Hour)
	c, err := a.certificate(&a.own)
	if err != nil || c.Leaf.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("%v, %v", c, err)
	}
	b.clock.advance(2 * time.Hour)
	if _, err := b.try(); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("error %v", err)
	}
	b.clock.advance(-2 * CALifetime)
	if _, err := b.try(); err == nil {
		t.Error("opened before its time")
	}
}

func TestCAKeyIsNeverOnDiskOrPrinted(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	a := b.open()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(b.dir, e.Name()))
		if err != nil || bytes.Contains(content, der) || bytes.Contains(content, d) || bytes.Contains(content, []byte("PRIVATE")) {
			t.Errorf("%s shows the key (error %v)", e.Name(), err)
		}
	}
	shown := fmt.Sprintf("%v %+v %#v %s %x", a, a, a, a, a)
	if strings.Contains(shown, hex.EncodeToString(d)) || strings.Contains(shown, new(big.Int).SetBytes(d).String()) || strings.Contains(shown, "0x") {
		t.Error("printing the authority shows its key")
	}
}

func TestOpenAuthorityNeedsAllItsParts(t *testing.T) {
	t.Parallel()
	b := newCABench(t)
	if _, err := OpenAuthority("", b.seal, nil, b.clock.Now, rand.Reader); err == nil {
		t.Error("no folder")
	}
	if _, err := OpenAuthority(b.dir, nil, nil, b.clock.Now, rand.Reader); err == nil {
		t.Error("no sealer")
	}
	if _, err := OpenAuthority(b.dir, b.seal, nil, nil, rand.Reader); err == nil {
		t.Error("no clock")
	}
	if _, err := OpenAuthority(b.dir, b.seal, nil, b.clock.Now, nil); err == nil {
		t.Error("no randomness")
	}
}

func BenchmarkHandshake(b *testing.B) {
	cb := newCABench(b)
	a := cb.open()
	server, client := a.ServerConfig(0), cb.client(a, "localhost")
	for b.Loop() {
		if _, err := dial(server, client); err != nil {
			b.Fatal(err)
		}
	}
}
