package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Lifetimes of certificates.
const (
	// CALifetime is long because everybody who trusts the authority must be told
	// when it changes.
	CALifetime = 10 * 365 * 24 * time.Hour
	// ServerLifetime is short because a server certificate costs nobody anything
	// to renew and bounds what its stolen key is worth.
	ServerLifetime = 30 * 24 * time.Hour
	// renewBefore is how long before its end a server certificate is replaced.
	renewBefore = 10 * 24 * time.Hour
	// backdate lets clients whose clocks are slow accept a new certificate.
	backdate = time.Hour
)

// Sealer encrypts the authority's key for the disk. The context is bound to what
// is sealed: it opens only under the same one.
type Sealer interface {
	Seal(context string, plaintext []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Authority is the node's own certificate authority and the server certificate
// that it issues to the node. It may be used from many goroutines.
type Authority struct {
	clock func() time.Time
	names serverNames
	cert  *x509.Certificate
	caPEM []byte

	own served // what every listener shows that has no domains

	// mu is held while a server certificate is issued, and guards rand and key.
	mu   sync.Mutex
	rand io.Reader
	key  *ecdsa.PrivateKey
}

// served is a server certificate that is shown, and what it vouches for besides the
// authority's names.
type served struct {
	domains []string // any one label below them
	current atomic.Pointer[tls.Certificate]
}

// serverNames are what the node is reached by.
type serverNames struct {
	dns []string
	ips []netip.Addr
}

// OpenAuthority opens the authority kept in dir, or makes one there, and issues a
// server certificate. names are host names and IP addresses; localhost, 127.0.0.1
// and ::1 are always among them. An authority can vouch only for what it was made
// for, so an existing one fails with a *NameError when names holds anything else.
//
// dir is made, or set, to be its owner's alone (0700). In it, ca.pem is for
// everybody to read and ca.sealed holds the key, sealed; ca.sealed decides, and
// ca.pem is written anew from it when it differs.
func OpenAuthority(dir string, seal Sealer, names []string, clock func() time.Time, rand io.Reader) (*Authority, error) {
	if dir == "" || seal == nil || clock == nil || rand == nil {
		return nil, errors.New("opening the authority: dir, seal, clock and rand are all needed")
	}
	sn, err := parseNames(names)
	if err != nil {
		return nil, fmt.Errorf("opening the authority: %w", err)
	}
	files := authorityFiles{dir, seal}
	cert, key, err := files.load()
	if errors.Is(err, errNoAuthority) {
		if cert, key, err = makeCA(sn, clock().UTC(), rand); err == nil {
			err = files.save(cert, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the authority: %w", err)
	}
	if outside := sn.outside(cert); len(outside) > 0 {
		return nil, fmt.Errorf("opening the authority: %w", &NameError{Names: outside, Dir: dir})
	}
	a := &Authority{
		clock: clock, names: sn, cert: cert, key: key, rand: rand,
		caPEM: pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: cert.Raw}),
	}
	if err := files.publish(a.caPEM); err != nil {
		return nil, fmt.Errorf("opening the authority: %w", err)
	}
	if _, err := a.certificate(&a.own); err != nil {
		return nil, fmt.Errorf("opening the authority: %w", err)
	}
	return a, nil
}

// NameError says that the authority was not made for some of the names asked for.
type NameError struct {
	Names []string
	Dir   string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("the certificate authority in %s cannot vouch for %s, which it was not made for: leave these names out, or move that folder away, start again to have a new authority made, and have its clients trust the new ca.pem",
		e.Dir, strings.Join(e.Names, ", "))
}

func parseNames(names []string) (serverNames, error) {
	sn := serverNames{
		dns: []string{"localhost"},
		ips: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()},
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			if ip = ip.Unmap(); ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
				return sn, fmt.Errorf("the address %s cannot be in a certificate; name the addresses that clients connect to", name)
			}
			if !slices.Contains(sn.ips, ip) {
				sn.ips = append(sn.ips, ip)
			}
			continue
		}
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !validHost(name) {
			return sn, fmt.Errorf("%.100q is neither a host name nor an IP address; wildcards and ports do not belong here", name)
		}
		if !slices.Contains(sn.dns, name) {
			sn.dns = append(sn.dns, name)
		}
	}
	return sn, nil
}

// Domains gives those of hosts below which a certificate may vouch for any label: DNS
// names of two labels or more. What is below localhost is everybody's own machine, an
// address has nothing below it, and *.NAME with a NAME of one label is not believed by
// clients (RFC 6125, section 7.2).
func Domains(hosts []string) []string {
	var out []string
	for _, name := range hosts {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		_, err := netip.ParseAddr(name)
		if err == nil || !validHost(name) || !strings.Contains(name, ".") || strings.HasSuffix(name, ".localhost") || slices.Contains(out, name) {
			continue
		}
		out = append(out, name)
	}
	return out
}

// validHost checks the preferred name syntax (RFC 1123, section 2.1).
func validHost(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// outside lists the names that the authority's constraints do not permit.
func (sn serverNames) outside(ca *x509.Certificate) []string {
	var out []string
	for _, name := range sn.dns {
		if !slices.ContainsFunc(ca.PermittedDNSDomains, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) }) {
			out = append(out, name)
		}
	}
	for _, ip := range sn.ips {
		if !slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip.AsSlice()) }) {
			out = append(out, ip.String())
		}
	}
	return out
}

func makeCA(sn serverNames, now time.Time, rand io.Reader) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, nil, fmt.Errorf("making the CA key: %v", err)
	}
	serial, err := newSerial(rand)
	if err != nil {
		return nil, nil, err
	}
	ranges := []*net.IPNet{{IP: net.IP{127, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}}
	for _, ip := range sn.ips {
		if !ip.IsLoopback() || ip.Is6() {
			ranges = append(ranges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
		}
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The number tells the authorities of several nodes apart in a trust store.
		Subject:   pkix.Name{CommonName: "Casemate node " + hex.EncodeToString(serial.Bytes()[:4]), Organization: []string{"Casemate"}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(CALifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, // no authority below this one
		KeyUsage:    x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, // nor certificates for people or code

		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         sn.dns,
		PermittedIPRanges:           ranges,
	}
	der, err := x509.CreateCertificate(rand, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the CA certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the CA certificate: %v", err)
	}
	return cert, key, nil
}

// newSerial makes a positive number of 127 random bits (RFC 5280, section
// 4.1.2.2) whose first byte is not zero.
func newSerial(rand io.Reader) (*big.Int, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("reading randomness: %v", err)
	}
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// CAPEM is the certificate that clients trust, in PEM.
func (a *Authority) CAPEM() []byte { return bytes.Clone(a.caPEM) }

// Format shows nothing of the keys that the authority holds.
func (a *Authority) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "identity.Authority") }

// ServerConfig is how a listener of this node speaks TLS: version 1.3, or also 1.2
// when minVersion is tls.VersionTLS12, with HTTP/2. Any other minVersion means 1.3.
// The certificate is reissued when it nears its end, also while the listener runs.
//
// domains are what Domains gives of the authority's names: the listener then has a
// certificate of its own, which vouches for any one label below each of them as well. Only
// a listener that tells such names apart should have one: browsers take what vouches for
// two names as leave to use a connection to one for the other.
func (a *Authority) ServerConfig(minVersion uint16, domains ...string) *tls.Config {
	show := &a.own
	if len(domains) > 0 {
		show = &served{domains: domains}
	}
	if minVersion != tls.VersionTLS12 {
		minVersion = tls.VersionTLS13
	}
	return &tls.Config{
		MinVersion: minVersion,
		// For 1.2 only; 1.3 has none to choose from. Forward secrecy and AEAD
		// (RFC 9325, section 4.2), with the certificate's kind of key.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     []string{"h2", "http/1.1"},
		Time:           a.clock,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate(show) },
	}
}

// certificate answers the certificate to be shown, a new one when the clock has left
// the time in which the current one is good. If no new one can be made, the
// current one serves to its end.
func (a *Authority) certificate(show *served) (*tls.Certificate, error) {
	now := a.clock()
	if c := show.current.Load(); fresh(c, now) {
		return c, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := show.current.Load()
	if fresh(c, now) {
		return c, nil // somebody else was faster
	}
	next, err := a.issue(now.UTC(), show.domains)
	if err != nil {
		if c != nil && now.Before(c.Leaf.NotAfter) {
			return c, nil
		}
		return nil, err
	}
	show.current.Store(next)
	return next, nil
}

func fresh(c *tls.Certificate, now time.Time) bool {
	return c != nil && now.Add(renewBefore).Before(c.Leaf.NotAfter) && !now.Before(c.Leaf.NotBefore)
}

// issue makes a server certificate with a key of its own, which is never on disk.
func (a *Authority) issue(now time.Time, domains []string) (*tls.Certificate, error) {
	end := now.Add(ServerLifetime)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	if !now.Before(end) || now.Before(a.cert.NotBefore) {
		return nil, fmt.Errorf("issuing the server certificate: the authority is good from %s to %s and the clock says %s: set the clock, or move the authority's folder away to have a new one made",
			a.cert.NotBefore.Format(time.DateOnly), a.cert.NotAfter.Format(time.DateOnly), now.Format(time.DateTime))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), a.rand)
	if err != nil {
		return nil, fmt.Errorf("issuing the server certificate: making its key: %v", err)
	}
	serial, err := newSerial(a.rand)
	if err != nil {
		return nil, fmt.Errorf("issuing the server certificate: %v", err)
	}
	begin := now.Add(-backdate)
	if begin.Before(a.cert.NotBefore) {
		begin = a.cert.NotBefore
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Casemate node"},
		NotBefore:    begin, NotAfter: end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              slices.Clone(a.names.dns),
	}
	for _, d := range domains {
		template.DNSNames = append(template.DNSNames, "*."+d)
	}
	for _, ip := range a.names.ips {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	der, err := x509.CreateCertificate(a.rand, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issuing the server certificate: %v", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the server certificate: %v", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
