package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Bounds on requests.
const (
	maxSignature = 16 << 10 // bytes of a header that holds signatures or a token
	maxName      = 200      // bytes of a provider's name for an event
	maxShown     = 1024     // bytes of a header that the function gets to see
)

// Request is a request as the gateway has it: names of headers in lower case, the body
// as it came.
type Request struct {
	Method string
	Header map[string][]string
	Body   []byte
	From   netip.Addr // invalid when it is not known; then it stays a stranger's
}

// Delivery is what a verified request holds.
type Delivery struct {
	// Messages has one event, or a batch, or none when the settings let none of them in.
	Messages []event.Message
	// Answer is set when the request is answered at once and holds no event.
	Answer *Answer
	// Until is how long a copy of the request would be let in by its signed time. Its ids
	// must be remembered until then.
	Until time.Time
}

// Verifier verifies the requests of one trigger.
type Verifier struct {
	settings   *Settings
	connection *source.Connection
	scheme     scheme
}

// scheme says whether a request was made by who has a key. It reads nothing of the body.
// It is given every active key and uses all of them.
type scheme func(s *Settings, now time.Time, r *Request, keys [][]byte) (*proof, *Refusal)

// proof is what the sender signed besides the body.
type proof struct {
	id     string    // "" when it signs none
	at     time.Time // zero when it signs none
	claims []byte    // JSON of a token, nil when there is none
}

// New makes a verifier from a trigger's settings and its connection. It fails with a
// *source.FieldError.
func New(t *function.Trigger, c *source.Connection) (*Verifier, error) {
	s, err := readSettings(t.Settings)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, field("connection", "must name a connection of kind webhook")
	}
	v := &Verifier{settings: s, connection: c}
	switch s.auth() {
	case Standard:
		v.scheme = verifyStandard
	case GitHub:
		v.scheme = verifyGitHub
	case Stripe:
		v.scheme = verifyStripe
	case Slack:
		v.scheme = verifySlack
	case HMAC:
		v.scheme = verifyHMAC
	case JWT:
		v.scheme = verifyJWT
	default:
		v.scheme = verifyBearer
	}
	return v, nil
}

// Verify verifies a request that came at now and reads its events. It fails with a
// *Refusal. It does not know which requests came before; that is for Replays to say.
func (v *Verifier) Verify(now time.Time, r Request) (*Delivery, error) {
	d, no := v.verify(now, r)
	if no != nil {
		return nil, no
	}
	return d, nil
}

func (v *Verifier) verify(now time.Time, r Request) (*Delivery, *Refusal) {
	if r.Method == "OPTIONS" && v.settings.Provider == CloudEvents {
		return v.handshake(&r)
	}
	if r.Method != "POST" {
		return nil, refuse(BadMethod, "only POST delivers")
	}
	if len(r.Body) > cloudevent.MaxBody {
		return nil, refuse(TooLarge, "the body is too large")
	}
	keys, err := v.keys()
	if err != nil {
		return nil, refuse(NotReady, err.Error())
	}
	p, no := v.scheme(v.settings, now, &r, keys)
	if no != nil {
		return nil, no
	}
	d := &Delivery{Until: now.Add(v.settings.tolerance)}
	if !p.at.IsZero() {
		switch {
		case now.Sub(p.at) > v.settings.tolerance:
			return nil, refuse(Stale, "it was signed too long ago")
		case p.at.Sub(now) > v.settings.tolerance:
			return nil, refuse(Future, "it was signed for a time that has not come")
		}
		d.Until = p.at.Add(v.settings.tolerance)
	}
	if no := v.read(&r, p, d); no != nil {
		return nil, no
	}
	return d, nil
}

// keys reads the active keys as they are now, so that a new one is in force at once.
func (v *Verifier) keys() ([][]byte, error) {
	var all [][]byte
	for i, name := range v.settings.Keys {
		k, err := v.connection.Secret(name)
		if err != nil {
			if v.settings.keysByDefault && i > 0 {
				continue // there need not be a previous one
			}
			return nil, fmt.Errorf("reading key %s: %v", name, err)
		}
		k = bytes.TrimRight(k, "\r\n") // editors and echo add it
		if err := v.usable(k); err != nil {
			return nil, fmt.Errorf("key %s %v", name, err)
		}
		all = append(all, k)
	}
	return all, nil
}

// usable says, before a request comes, what a key lacks.
func (v *Verifier) usable(key []byte) error {
	var err error
	switch v.settings.auth() {
	case Standard:
		_, err = standardKey(key)
	case JWT:
		_, err = v.settings.JWT.keys(key)
	case HMAC:
		key, err = v.settings.HMAC.key(key)
	}
	if err == nil && len(key) < minKey {
		err = fmt.Errorf("must have at least %d bytes", minKey)
	}
	return err
}

// reading is what a provider's reader makes of a verified request.
type reading struct {
	id      string // for dedup; a digest when the provider names none that can be trusted
	name    string // the provider's name for the event
	subject string
	at      time.Time
	data    []byte // nil for the body
	media   string // of data
	detail  map[string]string
}

// read makes messages of a verified request.
func (v *Verifier) read(r *Request, p *proof, d *Delivery) *Refusal {
	var is reading
	var no *Refusal
	switch v.settings.Provider {
	case CloudEvents:
		return v.readCloudEvents(r, p, d)
	case Standard:
		is, no = readStandard(r, p)
	case GitHub:
		is, no = readGitHub(r)
	case Stripe:
		is, no = readStripe(r, p)
	case Slack:
		var challenge *Answer
		if is, challenge, no = readSlack(r, p); challenge != nil {
			d.Answer = challenge
			return nil
		}
	case JWT:
		is, no = readJWT(v.settings.JWT, r, p)
	default:
		is, no = readHMAC(v.settings.HMAC, r, p)
	}
	if no != nil {
		return no
	}
	if !nameForm.MatchString(is.name) {
		return refuse(Malformed, "the event's name is no name")
	}
	if !v.settings.admits(is.name) {
		return nil
	}
	m := event.Message{
		Event: event.Event{
			ID: is.id, Source: "/webhook", Type: "casemate.webhook." + v.settings.Provider + "." + is.name,
			Subject: is.subject, Time: is.at, DataContentType: first(r.Header["content-type"]),
		},
		Data: r.Body, Detail: is.detail,
	}
	if is.data != nil {
		m.Data, m.DataContentType = is.data, is.media
	}
	if m.Time.IsZero() {
		m.Time = p.at
	}
	v.show(r, &m)
	if err := m.Validate(); err != nil {
		return refuse(Malformed, err.Error())
	}
	m.Source = "" // stamped by who takes it in
	d.Messages = []event.Message{m}
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$`)

// show puts the headers that the function gets to see into the message's detail.
func (v *Verifier) show(r *Request, m *event.Message) {
	put := func(name string) {
		for _, value := range r.Header[name] {
			if len(value) <= maxShown && utf8.ValidString(value) {
				if m.Detail == nil {
					m.Detail = make(map[string]string)
				}
				m.Detail["header."+name] = value
			}
		}
	}
	put("user-agent")
	for _, name := range v.settings.Headers {
		put(name)
	}
	for name := range r.Header {
		if (strings.HasPrefix(name, "x-github-") || strings.HasPrefix(name, "x-slack-") || strings.HasPrefix(name, "webhook-")) && !secretHeader(name) {
			put(name)
		}
	}
}

// only gives the one value of a header. Two of them are refused: which one was meant
// would be for each reader to choose.
func (r *Request) only(name string) (string, *Refusal) {
	v := r.Header[name]
	switch {
	case len(v) == 0 || v[0] == "":
		return "", refuse(MissingHeader, "there is no "+name)
	case len(v) > 1:
		return "", refuse(Malformed, "there is more than one "+name)
	case len(v[0]) > maxSignature:
		return "", refuse(Malformed, name+" is too long")
	}
	return v[0], nil
}

func first(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

var errNoTime = errors.New("no time")

// seconds reads a Unix time in seconds: digits and nothing else, so that nothing else is
// ever signed in their place.
func seconds(s string) (time.Time, error) {
	if len(s) == 0 || len(s) > 12 || strings.Trim(s, "0123456789") != "" {
		return time.Time{}, errNoTime
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, errNoTime
	}
	return time.Unix(n, 0), nil
}

// digest names something by what it holds.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		for i := range n {
			n[i] = byte(len(p) >> (8 * i))
		}
		h.Write(n[:])
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// object checks that a verified body is a JSON object, within bounds, and takes it apart.
func object(body []byte) (document, *Refusal) {
	if err := strictjson.Check(body, cloudevent.MaxDepth); err != nil {
		return nil, refuse(Malformed, "the body "+err.Error())
	}
	m, err := strictjson.Members(body)
	if err != nil {
		return nil, refuse(Malformed, "the body is no JSON object")
	}
	return m, nil
}

// document is a JSON object. Names are exact: nothing is found by another case of letters.
type document []strictjson.Member

func (d document) raw(path ...string) []byte {
	for _, m := range d {
		if m.Name != path[0] {
			continue
		}
		if len(path) == 1 {
			return m.Value
		}
		inner, err := strictjson.Members(m.Value)
		if err != nil {
			return nil
		}
		return document(inner).raw(path[1:]...)
	}
	return nil
}

// text is the string at a path, "" when there is none.
func (d document) text(path ...string) string {
	s, err := strictjson.String(d.raw(path...))
	if err != nil {
		return ""
	}
	return s
}

// time is the time at a path, in seconds or as RFC 3339, zero when there is none.
func (d document) time(path ...string) time.Time {
	raw := d.raw(path...)
	if t, err := seconds(string(raw)); err == nil {
		return t
	}
	t, err := time.Parse(time.RFC3339Nano, d.text(path...))
	if err != nil {
		return time.Time{}
	}
	return t
}
