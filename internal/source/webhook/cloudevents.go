package webhook

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/event/cloudevent"
)

// CloudEvents over web hooks 1.0. A token in the query, which section 3.2 of the
// specification has targets take as well, is not taken: addresses are written to logs.

// reserved are extensions that the platform gives a meaning to. What a sender puts there
// is shown in the detail, under claimed., and is believed by nobody.
var reserved = []string{"principal", "claimedsource", "replayof", "attempt", "chainid", "chaindepth"}

func bearerToken(header string) (string, *Refusal) {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || token == "" || strings.Contains(token, " ") {
		return "", refuse(Malformed, "authorization is no Bearer token")
	}
	return token, nil
}

func verifyBearer(_ *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	header, no := r.only("authorization")
	if no != nil {
		return nil, no
	}
	token, no := bearerToken(header)
	if no != nil {
		return nil, no
	}
	// Digests have one length, so that nothing is told about the key's.
	got := sha256.Sum256([]byte(token))
	good := 0
	for _, k := range keys {
		want := sha256.Sum256(k)
		good |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	if good != 1 {
		return nil, refuse(BadSignature, "no active key is the token")
	}
	return &proof{}, nil
}

func (v *Verifier) hands() *cloudevent.Handshake {
	c := v.settings.CloudEvents
	return &cloudevent.Handshake{Origins: c.Origins, Rate: c.Rate}
}

// handshake answers OPTIONS. It authenticates nobody: permission to send is not
// permission to be believed.
func (v *Verifier) handshake(r *Request) (*Delivery, *Refusal) {
	header, granted := v.hands().Answer(r.Header)
	if !granted {
		return nil, refuse(WrongOrigin, "the sender is not one that the handshake grants")
	}
	return &Delivery{Answer: &Answer{Status: 200, Header: header}}, nil
}

// readCloudEvents makes messages of events. An event is told apart by source and id
// (CloudEvents 1.0, section 3.1.1), while the platform stamps a source of its own; the
// sender's is therefore a part of the id, and an extension.
func (v *Verifier) readCloudEvents(r *Request, p *proof, d *Delivery) *Refusal {
	if !v.hands().Allows(r.Header) {
		return refuse(WrongOrigin, "the sender is not one that the handshake grants")
	}
	signed := v.settings.auth() != bearer && !(v.settings.auth() == JWT && v.settings.JWT.Body == "unsigned")
	if signed && r.Header["ce-specversion"] != nil {
		return refuse(BadSignature, "attributes in headers are not signed")
	}
	all, err := cloudevent.Read(r.Header, r.Body)
	if err != nil {
		return unread(err)
	}
	seen := make(map[string]bool, len(all))
	for i := range all {
		m := &all[i]
		if !v.settings.admits(m.Type) {
			continue
		}
		ext := maps.Clone(m.Extensions)
		if ext == nil {
			ext = make(map[string]string, 1)
		}
		if m.Detail == nil {
			m.Detail = make(map[string]string)
		}
		for _, name := range reserved {
			if value, ok := ext[name]; ok {
				m.Detail["claimed."+name] = value
				delete(ext, name)
			}
		}
		ext["claimedsource"] = m.Source
		m.Extensions = ext
		m.Detail["cloudevents.id"] = m.ID
		m.ID += "@" + digest([]byte(m.Source))[:16]
		if m.Time.IsZero() {
			m.Time = p.at
		}
		v.show(r, m)
		if err := m.Validate(); err != nil {
			return refuse(Malformed, err.Error())
		}
		// The same source and id twice are one event that was sent twice, in a batch too.
		if !seen[m.ID] {
			seen[m.ID] = true
			d.Messages = append(d.Messages, *m)
		}
	}
	return nil
}

// unread says why events cannot be read.
func unread(err error) *Refusal {
	var e *cloudevent.Error
	if !errors.As(err, &e) {
		return refuse(Malformed, err.Error())
	}
	switch e.Code {
	case cloudevent.TooLarge:
		return refuse(TooLarge, e.Error())
	case cloudevent.NotCloudEvent, cloudevent.Unsupported:
		return refuse(Unsupported, e.Error())
	default:
		return refuse(Malformed, e.Error())
	}
}
