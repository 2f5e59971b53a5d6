// Package nats is the source of kind "nats": subjects of NATS itself, and streams of its
// JetStream. It may be imported by node alone.
//
// # Settings of a trigger (and those of package queue)
//
// for NATS itself:
//
//	subject  the subject, perhaps with wildcards
//	group    the queue group; one of the trigger's own when left out
//
// or for JetStream:
//
//	stream    the stream's name; it must exist
//	subjects  only these of the stream's subjects; all when left out
//	from      "all" of the stream, or only what is "new" since the trigger first ran;
//	          "all" when left out
//	consumer  a durable pull consumer with explicit acknowledgement that exists already.
//	          When left out, the trigger makes one of its own
//
// # Settings of a connection are those of package queue. Its secrets are password or
// token, or creds (a credentials file), or nkey (a seed) with or without jwt, and ca, cert
// and key.
//
// # Promises
//
// NATS itself delivers at most once: what arrives while nobody listens is gone, and so is
// what does not fit into memory (a warning counts it) or waits there when the node ends.
// Ids are of this run; nothing comes twice. Replies are not sent.
//
// A message of JetStream is acknowledged after it is on disk. Until then it is reported as
// in progress, however long the function needs; it comes again when the node dies, with the
// same id, which is made of stream, sequence and time. At most prefetch messages are held.
package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Kind is a source.Kind and a source.ConnectionKind.
type Kind struct{}

const (
	maxSubjects  = 64
	pingInterval = 10 * time.Second
)

type settings struct {
	queue.Settings
	Subject  string   `json:"subject"`
	Group    string   `json:"group"`
	Stream   string   `json:"stream"`
	Subjects []string `json:"subjects"`
	From     string   `json:"from"`
	Consumer string   `json:"consumer"`
}

type connection struct {
	queue.Link
}

// Check implements source.Kind.
func (Kind) Check(t *function.Trigger) error {
	_, err := check(t)
	return err
}

func check(t *function.Trigger) (*settings, error) {
	var s settings
	if err := queue.Read(t, "nats", &s, &s.Settings); err != nil {
		return nil, err
	}
	if (s.Subject == "") == (s.Stream == "") {
		return nil, &source.FieldError{Field: "subject", Reason: "or stream must be set, and not both"}
	}
	if s.Subject != "" {
		return &s, s.checkCore()
	}
	return &s, s.checkStream()
}

func (s *settings) checkCore() error {
	switch {
	case !subject(s.Subject):
		return &source.FieldError{Field: "subject", Reason: "must be tokens between dots; * is a whole token, > the last one"}
	case s.Group != "" && !token(s.Group):
		return &source.FieldError{Field: "group", Reason: "must be a name without spaces, dots and wildcards"}
	case len(s.Subjects) > 0:
		return &source.FieldError{Field: "subjects", Reason: "goes with stream"}
	case s.From != "":
		return &source.FieldError{Field: "from", Reason: "goes with stream: a subject has only what is new"}
	case s.Consumer != "":
		return &source.FieldError{Field: "consumer", Reason: "goes with stream"}
	}
	return nil
}

func (s *settings) checkStream() error {
	own := s.Consumer == ""
	switch {
	case !token(s.Stream):
		return &source.FieldError{Field: "stream", Reason: "must be a stream's name, which has no spaces, dots and wildcards"}
	case s.Group != "":
		return &source.FieldError{Field: "group", Reason: "goes with subject: a stream's consumer is shared by itself"}
	case !own && !token(s.Consumer):
		return &source.FieldError{Field: "consumer", Reason: "must be a consumer's name, which has no spaces, dots and wildcards"}
	case !own && (s.From != "" || len(s.Subjects) > 0):
		return &source.FieldError{Field: "consumer", Reason: "has its own start and subjects: leave out from and subjects"}
	case s.From != "" && s.From != "all" && s.From != "new":
		return &source.FieldError{Field: "from", Reason: `must be "all" or "new"`}
	case len(s.Subjects) > maxSubjects:
		return &source.FieldError{Field: "subjects", Reason: fmt.Sprintf("must list at most %d", maxSubjects)}
	}
	s.From = cmp.Or(s.From, "all")
	for _, f := range s.Subjects {
		if !subject(f) {
			return &source.FieldError{Field: "subjects", Reason: fmt.Sprintf("holds %.40q, which is no subject: tokens between dots; * is a whole token, > the last one", f)}
		}
	}
	return nil
}

// token is a name that may stand in a subject of the JetStream API.
func token(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(".*>/\\", r)
	}) < 0
}

// subject checks the form of a subject with wildcards.
func subject(s string) bool {
	if len(s) > event.MaxAttribute {
		return false
	}
	tokens := strings.Split(s, ".")
	for i, t := range tokens {
		if t == "" || strings.IndexFunc(t, func(r rune) bool { return r <= ' ' || r == 0x7f }) >= 0 {
			return false
		}
		if strings.Contains(t, "*") && t != "*" || strings.Contains(t, ">") && (t != ">" || i != len(tokens)-1) {
			return false
		}
	}
	return true
}

// CheckConnection implements source.ConnectionKind.
func (Kind) CheckConnection(raw json.RawMessage, secrets []string) error {
	if err := queue.CheckSecrets(raw, secrets, "password", "token", "creds", "nkey", "jwt"); err != nil {
		return err
	}
	_, err := checkConnection(raw)
	return err
}

func checkConnection(raw json.RawMessage) (*connection, error) {
	var c connection
	if err := source.Settings(raw, &c); err != nil {
		return nil, err
	}
	return &c, c.Check()
}

// Run implements source.Kind.
func (Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := check(&b.Trigger)
	if err != nil {
		return err
	}
	c, err := checkConnection(b.Connection.Settings)
	if err != nil {
		return err
	}
	if s.Stream != "" {
		return queue.Run(ctx, b, (&streamReader{settings: s, connection: c}).listen)
	}
	var drawn [8]byte
	if _, err := rand.Read(drawn[:]); err != nil {
		return fmt.Errorf("drawing a name for this run: %v", err)
	}
	return queue.Run(ctx, b, (&coreReader{settings: s, connection: c, run: hex.EncodeToString(drawn[:])}).listen)
}

// connect makes one connection, which does not come back by itself: that is queue.Run's
// task. lost is called when it ends, complain with what goes wrong meanwhile.
func (c *connection) connect(ctx context.Context, s *queue.Session, lost func(error), complain func(error)) (*client.Conn, error) {
	conf, err := c.TLS(s.Connection)
	if err != nil {
		return nil, err
	}
	options := []client.Option{
		client.Name("Casemate " + s.Ref.Namespace + "/" + s.Ref.Name + "/" + s.Trigger.Name),
		client.NoReconnect(), client.IgnoreDiscoveredServers(), client.NoCallbacksAfterClientClose(),
		client.Timeout(queue.DialTimeout), client.PingInterval(pingInterval),
		client.SetCustomDialer(dialer{ctx, &c.Link}),
		client.ClosedHandler(func(n *client.Conn) {
			err := n.LastError()
			if err == nil {
				err = errors.New("the server closed the connection")
			}
			lost(err)
		}),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) { complain(err) }),
	}
	if conf != nil {
		options = append(options, client.Secure(conf))
	}
	who, err := c.authenticate(s.Connection)
	if err != nil {
		return nil, err
	}
	n, err := client.Connect(strings.Join(urls(c.Servers), ","), append(options, who...)...)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return n, nil
}

func urls(servers []string) []string {
	u := make([]string, len(servers))
	for i, s := range servers {
		u[i] = "nats://" + s
	}
	return u
}

// authenticate takes the first credential that there is.
func (c *connection) authenticate(from *source.Connection) ([]client.Option, error) {
	if creds := queue.Optional(from, "creds"); creds != nil {
		return []client.Option{client.UserCredentialBytes(creds)}, nil
	}
	if seed := queue.Optional(from, "nkey"); seed != nil {
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
		if err != nil {
			return nil, errors.New("reading the secret nkey: it is not the seed of a user")
		}
		if jwt := queue.Optional(from, "jwt"); jwt != nil {
			text := strings.TrimSpace(string(jwt))
			return []client.Option{client.UserJWT(func() (string, error) { return text, nil }, pair.Sign)}, nil
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, errors.New("reading the secret nkey: it is not the seed of a user")
		}
		return []client.Option{client.Nkey(public, pair.Sign)}, nil
	}
	if token := queue.Optional(from, "token"); token != nil {
		return []client.Option{client.Token(string(token))}, nil
	}
	if c.Username != "" {
		return []client.Option{client.UserInfo(c.Username, string(queue.Optional(from, "password")))}, nil
	}
	return nil, nil
}

// dialer holds the client to the link's rules.
type dialer struct {
	ctx  context.Context //nolint:containedctx // the client's interface has none
	link *queue.Link
}

// Dial implements the client's CustomDialer. The server speaks first and in the clear, and
// only then TLS begins, before any credential: the client does that.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.link.DialPlain(d.ctx, network, address)
}

// headers gives a message's headers as details, always in the same order.
func headers(h client.Header) []queue.Entry {
	var entries []queue.Entry
	for _, k := range sorted(h) {
		for _, v := range h[k] {
			entries = append(entries, queue.Text("header."+k, v))
		}
	}
	return entries
}
