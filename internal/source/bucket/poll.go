package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/seen"
)

// ConnectionKind checks connections of the kind s3. Their credentials are accessKey and
// secretKey, and ca, certificates in PEM, when the server's is not a public one.
type ConnectionKind struct{}

// ConnectionSettings are those of a connection.
type ConnectionSettings struct {
	Endpoint  string `json:"endpoint"`         // https://HOST[:PORT]
	Region    string `json:"region,omitempty"` // "" means us-east-1
	PathStyle bool   `json:"pathStyle,omitempty"`
	Plain     bool   `json:"plain,omitempty"` // allow http: neither objects' names nor events are secret then
}

// CheckConnection validates settings.
func (ConnectionKind) CheckConnection(settings json.RawMessage, secrets []string) error {
	if _, _, err := connection(settings); err != nil {
		return err
	}
	for _, name := range []string{"accessKey", "secretKey"} {
		if !slices.Contains(secrets, name) {
			return &source.FieldError{Field: name, Reason: "must be given as a credential of the connection"}
		}
	}
	return nil
}

func connection(settings json.RawMessage) (*ConnectionSettings, *url.URL, error) {
	c := &ConnectionSettings{}
	if err := source.Settings(settings, c); err != nil {
		return nil, nil, err
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && u.Scheme != "http" {
		return nil, nil, &source.FieldError{Field: "endpoint", Reason: "must be of the form https://host[:port], without credentials and path"}
	}
	if u.Scheme == "http" && !c.Plain {
		return nil, nil, &source.FieldError{Field: "endpoint", Reason: "must be https; set plain to allow http"}
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	return c, u, nil
}

// Bounds of requests.
const (
	dialTime     = 10 * time.Second
	answerTime   = time.Minute
	saveEvery    = 16 // pages
	pageSize     = 1000
	maxAnswerHdr = 64 << 10
)

// client makes one for a connection, with the credentials as they are now.
func client(c *source.Connection) (*minio.Client, *http.Transport, error) {
	if c == nil {
		return nil, nil, errors.New("there is no connection")
	}
	settings, u, err := connection(c.Settings)
	if err != nil {
		return nil, nil, err
	}
	id, err := c.Secret("accessKey")
	if err != nil {
		return nil, nil, err
	}
	secret, err := c.Secret("secretKey")
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca, err := c.Secret("ca"); err == nil && len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, nil, errors.New("the credential ca holds no certificate in PEM")
		}
	}
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSHandshakeTimeout: dialTime, TLSClientConfig: config,
		ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: maxAnswerHdr, MaxIdleConns: 4, DisableCompression: true,
	}
	lookup := minio.BucketLookupDNS
	if settings.PathStyle {
		lookup = minio.BucketLookupPath
	}
	m, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(strings.TrimSpace(string(id)), strings.TrimSpace(string(secret)), ""),
		Secure: u.Scheme == "https", Transport: transport, Region: settings.Region, BucketLookup: lookup, MaxRetries: 1,
	})
	return m, transport, err
}

// poll lists the bucket again and again.
func poll(ctx context.Context, b source.Binding, s *Settings) error {
	c, transport, err := client(b.Connection)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	memory, err := seen.Load(ctx, b.Store)
	if err != nil {
		return err
	}
	known, err := b.Store.Get(ctx, cursorKey)
	if err != nil {
		return fmt.Errorf("reading the position: %w", err)
	}
	p := &poller{b: b, s: s, c: c, seen: memory, quiet: known == nil && !s.Existing}
	for {
		if err := p.round(ctx); err != nil {
			return err
		}
		if known == nil {
			known = []byte("1") // the first round is over: what is there now is no news any more
			if err := b.Store.Put(ctx, cursorKey, known); err != nil {
				return fmt.Errorf("writing the position: %w", err)
			}
		}
		p.quiet = false
		b.Report(source.Health{State: source.Running, Lag: -1})
		t := time.NewTimer(time.Duration(s.Interval))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

type poller struct {
	b     source.Binding
	s     *Settings
	c     *minio.Client
	seen  *seen.Set
	quiet bool // remember only
}

// round looks at the whole bucket once.
func (p *poller) round(ctx context.Context) error {
	there := map[uint64]struct{}{}
	var batch []event.Message
	var states [][2]string // of the batch: key and state
	pages := 0
	flush := func() error {
		if len(batch) > 0 {
			if err := p.b.Sink.Accept(ctx, batch); err != nil {
				return err
			}
		}
		for _, s := range states {
			if err := p.seen.Set(s[0], seen.Digest(s[1])); err != nil {
				return err
			}
		}
		batch, states = nil, nil
		if pages++; pages%saveEvery == 0 {
			return p.seen.Save(ctx)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing, too
	for o := range p.c.ListObjects(ctx, p.s.Bucket, minio.ListObjectsOptions{Prefix: p.s.Prefix, Recursive: true, MaxKeys: pageSize}) {
		if o.Err != nil {
			return fmt.Errorf("listing: %v", o.Err)
		}
		if strings.HasSuffix(o.Key, "/") && o.Size == 0 {
			continue // what stands for a folder
		}
		there[seen.Digest(o.Key)] = struct{}{}
		etag := strings.Trim(o.ETag, `"`)
		state := etag + "/" + strconv.FormatInt(o.LastModified.UnixMilli(), 10)
		if was, known := p.seen.Get(o.Key); known && was == seen.Digest(state) {
			continue
		}
		states = append(states, [2]string{o.Key, state})
		object := Object{
			Bucket: p.s.Bucket, Key: o.Key, Size: o.Size, ETag: etag, Time: o.LastModified.UTC(),
			Operation: "ObjectCreated", ID: state,
		}
		if !p.quiet {
			m, err := p.event(ctx, &object)
			if err != nil {
				return err
			}
			if m != nil {
				batch = append(batch, *m)
			}
		}
		if len(states) >= pageSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	p.seen.Only(there)
	return p.seen.Save(ctx)
}

// event makes the event of an object, or none when a filter leaves it out.
func (p *poller) event(ctx context.Context, o *Object) (*event.Message, error) {
	if len(p.s.Types) > 0 && (&Settings{Prefix: p.s.Prefix, Suffix: p.s.Suffix, MinSize: p.s.MinSize, MaxSize: p.s.MaxSize}).wants(o, false) {
		st, err := p.c.StatObject(ctx, p.s.Bucket, o.Key, minio.StatObjectOptions{})
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return nil, nil // it has gone
		}
		if err != nil {
			return nil, fmt.Errorf("asking for the type of an object: %v", err)
		}
		o.ContentType, o.VersionID = st.ContentType, st.VersionID
	}
	if !p.s.wants(o, false) {
		return nil, nil
	}
	m, err := message(o, false)
	return &m, err
}
