package queue

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/connector"
)

// Bounds on the way to a server.
const (
	DialTimeout = 10 * time.Second
	maxServers  = 32
	keepAlive   = 15 * time.Second
)

// Link is how a server is reached: settings that connections have in common. Embed it.
type Link struct {
	Servers           []string `json:"servers"`           // host:port
	ServerName        string   `json:"serverName"`        // what the certificate must be for, when it is not the host
	Username          string   `json:"username"`          // with the secret password
	Plaintext         bool     `json:"plaintext"`         // no TLS, to this machine alone
	InsecurePlaintext bool     `json:"insecurePlaintext"` // no TLS, to anywhere
}

// TLSSecrets are the names of the secrets that TLS reads.
var TLSSecrets = []string{"ca", "cert", "key"}

// Check fails with a *connector.FieldError.
func (l *Link) Check() error {
	if len(l.Servers) == 0 || len(l.Servers) > maxServers {
		return &connector.FieldError{Field: "servers", Reason: fmt.Sprintf("must list 1 to %d of host:port", maxServers)}
	}
	for _, s := range l.Servers {
		if strings.ContainsAny(s, "@/") {
			return &connector.FieldError{Field: "servers", Reason: "must be host:port, without a scheme, a path or a user's name"}
		}
		host, port, err := net.SplitHostPort(s)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || bad != nil || n == 0 || !printable(s) {
			return &connector.FieldError{Field: "servers", Reason: "must be host:port"}
		}
		if l.Plaintext && !l.InsecurePlaintext && !Local(host) {
			return &connector.FieldError{Field: "plaintext", Reason: "is for servers on this machine: leave it out to use TLS, or say insecurePlaintext to have the network read along"}
		}
	}
	if !clean(l.Username) || !clean(l.ServerName) {
		return &connector.FieldError{Field: "username", Reason: "and serverName must be text"}
	}
	return nil
}

// Local says whether a host is this machine.
func Local(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Encrypted says whether TLS is used.
func (l *Link) Encrypted() bool { return !l.Plaintext && !l.InsecurePlaintext }

// TLS is a client's configuration from the secrets ca, cert and key, each of which may be
// missing. Certificates are always verified, without ca by the system's authorities.
func TLS(serverName string, secrets map[string][]byte) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if ca, ok := secrets["ca"]; ok {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("reading the secret ca: it holds no PEM certificate")
		}
	}
	cert, key := secrets["cert"], secrets["key"]
	if cert != nil || key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, errors.New("reading the secrets cert and key: they are not a PEM certificate and its key")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// Dial makes a connection without TLS. With onlyLocal it leads nowhere but to this machine,
// whatever a name stands for.
func Dial(ctx context.Context, network, address string, onlyLocal bool) (net.Conn, error) {
	d := net.Dialer{Timeout: DialTimeout, KeepAlive: keepAlive}
	if onlyLocal {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
				return errors.New("it is not on this machine, and the connection is without TLS")
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, address)
}

// Dialer gives what makes connections, with TLS unless the settings say otherwise.
func (l *Link) Dialer(secrets map[string][]byte) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	if !l.Encrypted() {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			return Dial(ctx, network, address, !l.InsecurePlaintext)
		}, nil
	}
	conf, err := TLS(l.ServerName, secrets)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, DialTimeout)
		defer cancel()
		plain, err := Dial(ctx, network, address, false)
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

// Read reads settings into a struct and refuses unknown fields. Credentials, which are
// named, are refused with the remedy. It fails with a *connector.FieldError.
func Read(raw json.RawMessage, into any, credentials ...string) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return &connector.FieldError{Field: "settings", Reason: "must be a JSON object"}
	}
	for f := range fields {
		if slices.Contains(credentials, f) || f == "password" || f == "token" || f == "secret" {
			return &connector.FieldError{Field: f, Reason: "is a credential: store it as a secret of the connection"}
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &kind) && kind.Field != "":
		return &connector.FieldError{Field: kind.Field, Reason: "must be a " + kind.Type.String()}
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return &connector.FieldError{Field: strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`), Reason: "is not a setting of this kind"}
	default:
		return &connector.FieldError{Field: "settings", Reason: "must be a JSON object"}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &connector.FieldError{Field: "settings", Reason: "must be one JSON object"}
	}
	return nil
}

// Pair refuses a certificate without its key. It fails with a *connector.FieldError.
func Pair(secrets []string) error {
	if slices.Contains(secrets, "cert") != slices.Contains(secrets, "key") {
		return &connector.FieldError{Field: "secret cert", Reason: "goes with the secret key: both or neither are needed"}
	}
	return nil
}
