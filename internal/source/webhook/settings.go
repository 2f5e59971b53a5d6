package webhook

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
)

// Providers.
const (
	Standard    = "standard"
	GitHub      = "github"
	Stripe      = "stripe"
	Slack       = "slack"
	HMAC        = "hmac"
	JWT         = "jwt"
	CloudEvents = "cloudevents"
	bearer      = "bearer" // a way for CloudEvents to authenticate, not a provider
)

// Defaults and bounds.
const (
	DefaultTolerance = 5 * time.Minute // of a signed time, to both sides
	MaxTolerance     = time.Hour
	DefaultKeep      = 24 * time.Hour // how long an id is remembered when there is room
	MaxKeep          = 7 * 24 * time.Hour
	MaxKeys          = 8  // active at once
	minKey           = 16 // bytes: fewer are guessed
)

// Settings of a trigger of kind webhook, as they stand in casemate.yaml.
type Settings struct {
	// Path is where the request goes, below the namespace: /hooks/orders.
	Path     string `json:"path"`
	Provider string `json:"provider"`
	// Keys are names of the connection's secrets, all of them active: to rotate, add the
	// new one, have the sender change, take the old one away. Without it they are key and,
	// where there is one, key-previous.
	Keys []string `json:"keys,omitempty"`
	// Tolerance is how far a signed time may be from ours (a duration such as 5m).
	Tolerance string `json:"tolerance,omitempty"`
	// Keep is how long an id is remembered (a duration such as 24h).
	Keep string `json:"keep,omitempty"`
	// Events are the provider's names of what is let in, such as push or invoice.*; an
	// asterisk stands at the end. Without it all are. What is left out is answered as taken.
	Events []string `json:"events,omitempty"`
	// Headers are names of more headers that the function gets to see. No provider signs
	// them.
	Headers []string `json:"headers,omitempty"`
	// Rate is how many verified requests a second are let in. Before they are verified, an
	// address that nothing verified came from yet may send half as many, and all of those
	// together four times as many; one of more than 64 KiB counts as several. What comes
	// beyond is told to come later. Without it the rate is DefaultRate.
	Rate int `json:"rate,omitempty"`

	HMAC        *HMACSettings       `json:"hmac,omitempty"`
	JWT         *JWTSettings        `json:"jwt,omitempty"`
	CloudEvents *CloudEventSettings `json:"cloudevents,omitempty"`

	tolerance, keep time.Duration
	keysByDefault   bool
	template        template
}

// CloudEventSettings are settings of the provider cloudevents.
type CloudEventSettings struct {
	// Auth is bearer (the key is the token; the default), standard, hmac or jwt. What signs
	// the body alone takes no binary form, whose attributes are headers.
	Auth string `json:"auth,omitempty"`
	// Origins are senders that the handshake grants, and the only ones that may deliver;
	// "*" is everybody and the default.
	Origins []string `json:"origins,omitempty"`
	// Rate is how many requests a minute the handshake grants; 0 is no bound.
	Rate int `json:"rate,omitempty"`
}

var (
	pathForm   = regexp.MustCompile(`^(/[A-Za-z0-9][A-Za-z0-9_-]*){1,8}$`)
	headerForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)
	secretForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	filterForm = regexp.MustCompile(`^([A-Za-z0-9._:/-]+\*?|\*)$`)
)

func field(name, reason string, a ...any) error {
	return &source.FieldError{Field: name, Reason: fmt.Sprintf(reason, a...)}
}

// readSettings reads and checks settings, and fills defaults in.
func readSettings(raw json.RawMessage) (*Settings, error) {
	s := &Settings{}
	if err := source.Settings(raw, s); err != nil {
		return nil, err
	}
	if len(s.Path) > 128 || !pathForm.MatchString(s.Path) {
		return nil, field("path", "must be words of letters, digits, _ and -, with a / before each, such as /hooks/orders")
	}
	providers := []string{Standard, GitHub, Stripe, Slack, HMAC, JWT, CloudEvents}
	if !slices.Contains(providers, s.Provider) {
		return nil, field("provider", "must be one of %s", strings.Join(providers, ", "))
	}
	if err := s.checkCommon(); err != nil {
		return nil, err
	}
	if err := s.checkProvider(); err != nil {
		return nil, err
	}
	return s, s.checkTimes()
}

func (s *Settings) checkCommon() error {
	if s.Rate == 0 {
		s.Rate = DefaultRate
	}
	if s.Rate < 1 || s.Rate > MaxRate {
		return field("rate", "must be 1 to %d requests a second", MaxRate)
	}
	if len(s.Keys) == 0 {
		s.Keys, s.keysByDefault = []string{"key", "key-previous"}, true
	}
	if len(s.Keys) > MaxKeys {
		return field("keys", "must be at most %d", MaxKeys)
	}
	for i, k := range s.Keys {
		if !secretForm.MatchString(k) || slices.Contains(s.Keys[:i], k) {
			return field("keys", "must be different names of the connection's secrets")
		}
	}
	for _, e := range s.Events {
		if len(e) > maxName || !filterForm.MatchString(e) {
			return field("events", "must be the provider's names, such as push or invoice.*")
		}
	}
	if len(s.Events) > 100 {
		return field("events", "must be at most 100 names")
	}
	if len(s.Headers) > 32 {
		return field("headers", "must be at most 32 names")
	}
	for _, h := range s.Headers {
		if !headerForm.MatchString(h) {
			return field("headers", "must be names in lower case")
		}
		if secretHeader(h) {
			return field("headers", "must not name %s, which carries a credential", h)
		}
	}
	return nil
}

// secretHeader says whether a header carries what nobody but us should see.
func secretHeader(name string) bool {
	return name == "authorization" || name == "proxy-authorization" || name == "cookie" || strings.Contains(name, "signature")
}

// auth is how requests are authenticated.
func (s *Settings) auth() string {
	if s.Provider == CloudEvents {
		return s.CloudEvents.Auth
	}
	return s.Provider
}

func (s *Settings) checkProvider() error {
	if s.Provider == CloudEvents {
		if s.CloudEvents == nil {
			s.CloudEvents = &CloudEventSettings{}
		}
		if err := s.CloudEvents.check(); err != nil {
			return err
		}
	} else if s.CloudEvents != nil {
		return field("cloudevents", "is only for the provider cloudevents")
	}
	if s.auth() == HMAC {
		if s.HMAC == nil {
			return field("hmac", "must say in which header the signature is")
		}
		if err := s.HMAC.check(s.Provider == CloudEvents, &s.template); err != nil {
			return err
		}
	} else if s.HMAC != nil {
		return field("hmac", "is only for what is signed with hmac")
	}
	if s.auth() == JWT {
		if s.JWT == nil {
			return field("jwt", "must name issuer, audience and algorithms")
		}
		return s.JWT.check(s.Provider == CloudEvents)
	} else if s.JWT != nil {
		return field("jwt", "is only for what is signed with jwt")
	}
	return nil
}

func (c *CloudEventSettings) check() error {
	if c.Auth == "" {
		c.Auth = bearer
	}
	if !slices.Contains([]string{bearer, Standard, HMAC, JWT}, c.Auth) {
		return field("cloudevents.auth", "must be bearer, standard, hmac or jwt")
	}
	if len(c.Origins) == 0 {
		c.Origins = []string{"*"}
	}
	if len(c.Origins) > 100 {
		return field("cloudevents.origins", "must be at most 100 names")
	}
	for _, o := range c.Origins {
		if o == "" || len(o) > 253 || strings.ContainsAny(o, " /:\r\n") {
			return field("cloudevents.origins", "must be DNS names, or *")
		}
	}
	if c.Rate < 0 {
		return field("cloudevents.rate", "must be a number of requests a minute")
	}
	return nil
}

// signsTime says whether requests carry a signed time.
func (s *Settings) signsTime() bool {
	switch s.auth() {
	case GitHub, bearer:
		return false
	case HMAC:
		return s.HMAC.TimestampHeader != ""
	default:
		return true
	}
}

func (s *Settings) checkTimes() error {
	s.tolerance, s.keep = DefaultTolerance, DefaultKeep
	if s.Tolerance != "" {
		if !s.signsTime() {
			return field("tolerance", "is of no use here: the sender signs no time")
		}
		d, err := time.ParseDuration(s.Tolerance)
		if err != nil || d < time.Second || d > MaxTolerance {
			return field("tolerance", "must be a duration from 1s to %s", MaxTolerance)
		}
		s.tolerance = d
	}
	if s.Keep != "" {
		d, err := time.ParseDuration(s.Keep)
		if err != nil || d < 2*s.tolerance || d > MaxKeep {
			return field("keep", "must be a duration from %s, twice the tolerance, to %s", 2*s.tolerance, MaxKeep)
		}
		s.keep = d
	}
	return nil
}

// admits says whether an event of the provider's name is let in.
func (s *Settings) admits(name string) bool {
	if len(s.Events) == 0 {
		return true
	}
	return slices.ContainsFunc(s.Events, func(f string) bool {
		prefix, open := strings.CutSuffix(f, "*")
		return f == name || open && strings.HasPrefix(name, prefix)
	})
}

// ConnectionSettings are settings of a connection of kind webhook.
type ConnectionSettings struct {
	// URL is where a destination posts to. A trigger needs none.
	URL string `json:"url,omitempty"`
}

// CheckConnection implements source.ConnectionKind.
func (*Hooks) CheckConnection(settings json.RawMessage, secrets []string) error {
	var c ConnectionSettings
	if err := source.Settings(settings, &c); err != nil {
		return err
	}
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
			return field("url", "must be an address that begins with https://")
		}
		if u.User != nil {
			return field("url", "must hold no credential")
		}
	}
	if len(secrets) == 0 {
		return field("secrets", "must hold a key, under the name key")
	}
	return nil
}
