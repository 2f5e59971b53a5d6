package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Standard Webhooks 1.0.0. The signed text is id.timestamp.body, so neither of the first
// two may hold a full stop: otherwise a part of one could be read as the other.

// maxSignatures is how many signatures of one header are looked at.
const maxSignatures = 16

// standardSecret is a key of Standard Webhooks: one of the two is set.
type standardSecret struct {
	symmetric []byte            // whsec_
	public    ed25519.PublicKey // whpk_
}

// standardKey reads a key as senders show it.
func standardKey(text []byte) (standardSecret, error) {
	s := string(text)
	if strings.HasPrefix(s, "whsk_") {
		return standardSecret{}, errors.New("is the sender's private key; the one to verify with begins with whpk_")
	}
	public, asymmetric := strings.CutPrefix(s, "whpk_")
	if asymmetric {
		k, err := base64.StdEncoding.DecodeString(public)
		if err != nil || len(k) != ed25519.PublicKeySize {
			return standardSecret{}, errors.New("is no Ed25519 key in base64 after whpk_")
		}
		return standardSecret{public: k}, nil
	}
	k, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
	if err != nil {
		return standardSecret{}, errors.New("is no base64 after whsec_")
	}
	if len(k) < minKey {
		return standardSecret{}, errors.New("is too short: Standard Webhooks asks for 24 bytes")
	}
	return standardSecret{symmetric: k}, nil
}

func verifyStandard(_ *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	id, no := r.only("webhook-id")
	if no != nil {
		return nil, no
	}
	stamp, no := r.only("webhook-timestamp")
	if no != nil {
		return nil, no
	}
	signatures, no := r.only("webhook-signature")
	if no != nil {
		return nil, no
	}
	if strings.Contains(id, ".") {
		return nil, refuse(Malformed, "webhook-id holds a full stop")
	}
	at, err := seconds(stamp)
	if err != nil || stamp[0] == '0' {
		return nil, refuse(Malformed, "webhook-timestamp is no time in seconds")
	}
	if strings.Count(signatures, " ") >= maxSignatures {
		return nil, refuse(Malformed, "webhook-signature holds too many signatures")
	}
	good := false
	for _, text := range keys {
		k, err := standardKey(text)
		if err != nil {
			return nil, refuse(NotReady, "a key "+err.Error())
		}
		if k.public != nil {
			good = verifyPublic(k.public, id, stamp, signatures, r.Body) || good
			continue
		}
		// The window is checked by who called us, with the clock that it was given.
		w, err := standardwebhooks.NewWebhookRaw(k.symmetric)
		if err != nil {
			return nil, refuse(NotReady, "a key cannot be used")
		}
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signatures}}
		good = w.VerifyIgnoringTimestamp(r.Body, h) == nil || good
	}
	if !good {
		return nil, refuse(BadSignature, "no active key made the signature")
	}
	return &proof{id: id, at: at}, nil
}

// verifyPublic looks for a signature of version v1a.
func verifyPublic(key ed25519.PublicKey, id, stamp, signatures string, body []byte) bool {
	text := append([]byte(id+"."+stamp+"."), body...)
	good := false
	for s := range strings.SplitSeq(signatures, " ") {
		encoded, ok := strings.CutPrefix(s, "v1a,")
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		good = err == nil && ed25519.Verify(key, text, raw) || good
	}
	return good
}

// readStandard takes type and timestamp from the body, where the specification
// recommends them; a body of another shape is an event called received.
func readStandard(r *Request, p *proof) (reading, *Refusal) {
	is := reading{id: p.id, name: unnamed}
	if !isJSON(r) {
		return is, nil
	}
	d, no := object(r.Body)
	if no != nil {
		return is, no
	}
	if t := d.text("type"); t != "" {
		is.name = t
	}
	is.at = d.time("timestamp")
	return is, nil
}

// unnamed is the name of an event whose sender gives it none.
const unnamed = "received"
