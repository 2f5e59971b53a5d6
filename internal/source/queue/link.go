package queue

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
)

// Bounds on the way to a far side.
const (
	DialTimeout = 10 * time.Second
	maxServers  = 32
	keepAlive   = 15 * time.Second
)

// Link is how a far side is reached. Connections of every kind have these settings.
type Link struct {
	Servers           []string `json:"servers"`
	ServerName        string   `json:"serverName"`
	Username          string   `json:"username"`
	Plaintext         bool     `json:"plaintext"`
	InsecurePlaintext bool     `json:"insecurePlaintext"`
}

// CheckSecrets refuses what looks like a credential among settings, with the remedy, and
// names of secrets that the kind does not know. It fails with a *source.FieldError.
func CheckSecrets(settings json.RawMessage, secrets []string, known ...string) error {
	var fields map[string]json.RawMessage
	if len(settings) > 0 && json.Unmarshal(settings, &fields) != nil {
		return &source.FieldError{Field: "settings", Reason: "must be a JSON object"}
	}
	known = append([]string{"ca", "cert", "key"}, known...)
	for f := range fields {
		if slices.Contains(known, f) || f == "password" || f == "token" || f == "secret" {
			return &source.FieldError{Field: f, Reason: "is a credential: store it as a secret of the connection"}
		}
	}
	for _, s := range secrets {
		if !slices.Contains(known, s) {
			return &source.FieldError{Field: "secret " + s, Reason: "is not known to this kind, which has " + strings.Join(known, ", ")}
		}
	}
	if slices.Contains(secrets, "cert") != slices.Contains(secrets, "key") {
		return &source.FieldError{Field: "secret cert", Reason: "goes with the secret key: both or neither are needed"}
	}
	return nil
}

// Check fails with a *source.FieldError.
func (l *Link) Check() error {
	if len(l.Servers) == 0 || len(l.Servers) > maxServers {
		return &source.FieldError{Field: "servers", Reason: fmt.Sprintf("must list 1 to %d of host:port", maxServers)}
	}
	for _, s := range l.Servers {
		if strings.ContainsAny(s, "@/") {
			return &source.FieldError{Field: "servers", Reason: "must be host:port, without a scheme, a path or a user's name"}
		}
		host, port, err := net.SplitHostPort(s)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || bad != nil || n == 0 || !printable(s) {
			return &source.FieldError{Field: "servers", Reason: "must be host:port"}
		}
		if l.Plaintext && !l.InsecurePlaintext && !local(host) {
			return &source.FieldError{Field: "plaintext", Reason: "is for servers on this machine: leave it out to use TLS, or say insecurePlaintext to have the network read along"}
		}
	}
	if !clean(l.Username) || !clean(l.ServerName) {
		return &source.FieldError{Field: "username", Reason: "and serverName must be text"}
	}
	return nil
}

func local(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Encrypted says whether TLS is used.
func (l *Link) Encrypted() bool { return !l.Plaintext && !l.InsecurePlaintext }

// Optional reads a secret that need not be there.
func Optional(c *source.Connection, name string) []byte {
	v, err := c.Secret(name)
	if err != nil {
		return nil
	}
	return v
}

// TLS is nil when none is used. The server's name is set only if the settings have one.
func (l *Link) TLS(c *source.Connection) (*tls.Config, error) {
	if !l.Encrypted() {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: l.ServerName}
	if ca := Optional(c, "ca"); ca != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("reading the secret ca: it holds no PEM certificate")
		}
	}
	if cert := Optional(c, "cert"); cert != nil {
		key, err := c.Secret("key")
		if err != nil {
			return nil, fmt.Errorf("reading the secret key: %v", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, errors.New("reading the secrets cert and key: they are not a PEM certificate and its key")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// DialPlain makes a connection without TLS, for protocols that begin TLS later by
// themselves.
func (l *Link) DialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: DialTimeout, KeepAlive: keepAlive}
	if l.Plaintext && !l.InsecurePlaintext {
		// A name, or a broker that advertises another address, could lead off this machine.
		d.Control = func(_, address string, _ syscall.RawConn) error {
			if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
				return errors.New("it is not on this machine, and the connection is without TLS")
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, address)
}

// Dialer gives what makes connections, with TLS unless settings say otherwise.
func (l *Link) Dialer(c *source.Connection) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	conf, err := l.TLS(c)
	if err != nil || conf == nil {
		return l.DialPlain, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, DialTimeout)
		defer cancel()
		plain, err := l.DialPlain(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own := conf.Clone()
		if own.ServerName == "" {
			own.ServerName, _, _ = net.SplitHostPort(address)
		}
		conn := tls.Client(plain, own)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = plain.Close()
			return nil, err
		}
		return conn, nil
	}, nil
}
