// Package database is how sources reach a database server: the settings of a connection
// of kind postgres or mysql, its TLS and its credentials.
//
// Settings, all of them but host, database and user optional:
//
//	host               a name or an address; no socket, no URL
//	port               5432 for postgres, 3306 for mysql
//	database, user
//	tls                "verify-full" (the default) or "off", which only a loopback address may have
//	serverName         the name in the server's certificate, when it is not host
//	insecurePlaintext  true: without TLS to any address; who listens on the way reads every row
//
// Credentials: password; ca (PEM; the system's authorities when there is none); cert and
// key (PEM; a client certificate). Towards PostgreSQL a password is used by SCRAM-SHA-256
// alone, so a false server cannot ask for it as text. Nothing is taken from the node's
// environment or from files such as .pgpass.
//
// The sources of databases and node may import it. It holds no state.
package database

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate-dev/casemate/internal/source"
)

// The kinds of connections.
const (
	KindPostgres = "postgres"
	KindMySQL    = "mysql" // MariaDB too
)

// ConnectTimeout is how long a connection may take to be made.
const ConnectTimeout = 15 * time.Second

// maxPacket bounds what MySQL may send as one packet: a row with the largest data of an
// event and room for what stands around it.
const maxPacket = 16 << 20

// settings are a connection's, as the package's documentation has them.
type settings struct {
	Host              string `json:"host"`
	Port              int    `json:"port"`
	Database          string `json:"database"`
	User              string `json:"user"`
	TLS               string `json:"tls"`
	ServerName        string `json:"serverName"`
	InsecurePlaintext bool   `json:"insecurePlaintext"`
}

// Connections checks the connections of one kind. It is a source.ConnectionKind.
type Connections struct{ Kind string }

// CheckConnection is documented in source.ConnectionKind.
func (c Connections) CheckConnection(raw json.RawMessage, secrets []string) error {
	if _, err := read(raw); err != nil {
		return err
	}
	for _, s := range secrets {
		switch s {
		case "password", "ca", "cert", "key":
		default:
			return &source.FieldError{Field: "secrets", Reason: fmt.Sprintf("has %.40q, which this kind does not know: password, ca, cert and key are possible", s)}
		}
	}
	if slices.Contains(secrets, "cert") != slices.Contains(secrets, "key") {
		return &source.FieldError{Field: "secrets", Reason: "must have both cert and key, or neither"}
	}
	return nil
}

// read reads and checks settings.
func read(raw json.RawMessage) (settings, error) {
	var named map[string]json.RawMessage
	if json.Unmarshal(raw, &named) == nil {
		for k := range named {
			switch strings.ToLower(k) {
			case "password", "passwd", "secret", "key", "cert", "ca", "url", "dsn":
				return settings{}, &source.FieldError{Field: k, Reason: "may hold a credential and is refused: give password, ca, cert and key as secrets of the connection"}
			}
		}
	}
	var s settings
	if err := source.Settings(raw, &s); err != nil {
		return s, err
	}
	for _, f := range []struct{ name, value string }{{"host", s.Host}, {"database", s.Database}, {"user", s.User}} {
		if f.value == "" {
			return s, &source.FieldError{Field: f.name, Reason: "must be set"}
		}
	}
	if strings.ContainsAny(s.Host, "/@?, \t\r\n\x00") {
		return s, &source.FieldError{Field: "host", Reason: "must be one name or address, without port, path or user"}
	}
	for _, f := range []struct{ name, value string }{{"database", s.Database}, {"user", s.User}, {"serverName", s.ServerName}} {
		if strings.ContainsRune(f.value, 0) || len(f.value) > 255 {
			return s, &source.FieldError{Field: f.name, Reason: "must be a name of at most 255 bytes"}
		}
	}
	if s.Port < 0 || s.Port > 65535 {
		return s, &source.FieldError{Field: "port", Reason: "must be between 1 and 65535"}
	}
	switch s.TLS {
	case "", "verify-full":
		if s.InsecurePlaintext && s.TLS != "" {
			return s, &source.FieldError{Field: "insecurePlaintext", Reason: "contradicts tls"}
		}
	case "off":
		if !s.InsecurePlaintext && !loopbackName(s.Host) {
			return s, &source.FieldError{Field: "tls", Reason: `can be "off" only for a loopback address; say insecurePlaintext: true if everybody on the way may read every row`}
		}
	default:
		return s, &source.FieldError{Field: "tls", Reason: `must be "verify-full" or "off"`}
	}
	return s, nil
}

func loopbackName(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// plaintext says whether the connection goes without TLS.
func (s settings) plaintext() bool { return s.TLS == "off" || s.InsecurePlaintext }

// dial connects. A name that says loopback and resolves elsewhere gets no plain text.
func (s settings) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: ConnectTimeout, KeepAlive: 15 * time.Second}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if s.plaintext() && !s.InsecurePlaintext {
		if a, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			c.Close()
			return nil, errors.New("the host is not a loopback address, and tls is off")
		}
	}
	return c, nil
}

// tlsConfig gives nil for plain text.
func (s settings) tlsConfig(c *source.Connection) (*tls.Config, error) {
	if s.plaintext() {
		return nil, nil
	}
	conf := &tls.Config{ServerName: s.ServerName, MinVersion: tls.VersionTLS12}
	if conf.ServerName == "" {
		conf.ServerName = s.Host
	}
	if ca := secret(c, "ca"); len(ca) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("connection %s: its secret ca holds no certificate in PEM form", c.Name)
		}
	}
	if cert, key := secret(c, "cert"), secret(c, "key"); len(cert) > 0 || len(key) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil { // the cause could quote what it read
			return nil, fmt.Errorf("connection %s: its secrets cert and key are not a certificate and its key in PEM form", c.Name)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// secret gives nil when there is none. Without a credential the server refuses us, and
// that error says more than ours could.
func secret(c *source.Connection, name string) []byte {
	if c.Secret == nil {
		return nil
	}
	b, err := c.Secret(name)
	if err != nil {
		return nil
	}
	return b
}

// open reads a connection's settings, of the kind that is wanted.
func open(c *source.Connection, kind string) (settings, *tls.Config, error) {
	if c == nil {
		return settings{}, nil, errors.New("no connection is named")
	}
	if c.Kind != kind {
		return settings{}, nil, fmt.Errorf("connection %s is of kind %s, not %s", c.Name, c.Kind, kind)
	}
	s, err := read(c.Settings)
	if err != nil {
		return s, nil, fmt.Errorf("connection %s: %w", c.Name, err)
	}
	conf, err := s.tlsConfig(c)
	return s, conf, err
}

// Postgres gives what a connection to PostgreSQL is made with. params are settings of
// the session.
func Postgres(c *source.Connection, params map[string]string) (*pgconn.Config, error) {
	s, conf, err := open(c, KindPostgres)
	if err != nil {
		return nil, err
	}
	// A configuration must come from here, and this takes over much of the environment:
	// everything that matters is set again below.
	pc, err := pgconn.ParseConfig("host=localhost sslmode=disable user=x dbname=x passfile=/dev/null target_session_attrs=any")
	if err != nil {
		return nil, fmt.Errorf("preparing to connect: %w", err)
	}
	pc.Host, pc.Port, pc.Database, pc.User = s.Host, uint16(s.Port), s.Database, s.User //nolint:gosec // checked in read
	if s.Port == 0 {
		pc.Port = 5432
	}
	pc.Password, pc.RequireAuth = "", "none"
	if p := secret(c, "password"); len(p) > 0 {
		pc.Password, pc.RequireAuth = strings.TrimRight(string(p), "\r\n"), "scram-sha-256"
	}
	pc.TLSConfig, pc.Fallbacks, pc.SSLNegotiation, pc.SSLCertMode = conf, nil, "postgres", ""
	pc.KerberosSrvName, pc.KerberosSpn, pc.OAuthTokenProvider = "", "", nil
	pc.ChannelBinding, pc.MinProtocolVersion, pc.MaxProtocolVersion = "prefer", "3.0", "3.0"
	pc.ConnectTimeout, pc.DialFunc = ConnectTimeout, s.dial
	pc.ValidateConnect, pc.AfterConnect = nil, nil
	pc.RuntimeParams = map[string]string{"client_encoding": "UTF8", "application_name": "casemate"}
	for k, v := range params {
		pc.RuntimeParams[k] = v
	}
	return pc, nil
}

// silent drops what the driver would write to the node's standard error.
type silent struct{}

func (silent) Print(...any) {}

// MySQL gives what a connection to MySQL or MariaDB is made with.
func MySQL(c *source.Connection) (*mysql.Config, error) {
	s, conf, err := open(c, KindMySQL)
	if err != nil {
		return nil, err
	}
	mc := mysql.NewConfig()
	if s.Port == 0 {
		s.Port = 3306
	}
	mc.Net, mc.Addr = "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	mc.DBName, mc.User = s.Database, s.User
	mc.Passwd = strings.TrimRight(string(secret(c, "password")), "\r\n")
	mc.TLS, mc.DialFunc, mc.Logger = conf, s.dial, silent{}
	mc.Timeout, mc.ReadTimeout, mc.WriteTimeout = ConnectTimeout, time.Minute, time.Minute
	mc.MaxAllowedPacket = maxPacket
	mc.Collation = "utf8mb4_general_ci"
	mc.Params = map[string]string{"time_zone": "'+00:00'"}
	mc.AllowCleartextPasswords, mc.AllowFallbackToPlaintext, mc.AllowOldPasswords = false, false, false
	return mc, nil
}
