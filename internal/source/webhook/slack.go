package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
	"time"
)

// Slack signs v0:timestamp:body, with one secret for an app. It sends three kinds of
// body: events of the Events API as JSON, which it repeats under the same event_id;
// interactions as JSON in a form; commands as a form. The last two are not repeated and
// have no id of their own: theirs is made from what was signed.

// maxChallenge is the most of a challenge that is sent back, in bytes.
const maxChallenge = 1024

func verifySlack(_ *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	signature, no := r.only("x-slack-signature")
	if no != nil {
		return nil, no
	}
	stamp, no := r.only("x-slack-request-timestamp")
	if no != nil {
		return nil, no
	}
	encoded, ok := strings.CutPrefix(signature, "v0=")
	if !ok {
		return nil, refuse(Malformed, "x-slack-signature does not begin with v0=")
	}
	sum, err := hex.DecodeString(encoded)
	if err != nil || len(sum) != sha256.Size {
		return nil, refuse(Malformed, "x-slack-signature holds no digest in hexadecimal")
	}
	at, err := seconds(stamp)
	if err != nil {
		return nil, refuse(Malformed, "x-slack-request-timestamp is no time in seconds")
	}
	if !macs(sha256.New, keys, [][]byte{sum}, []byte("v0:"), []byte(stamp), []byte(":"), r.Body) {
		return nil, refuse(BadSignature, "no active key made the signature")
	}
	return &proof{at: at, id: digest([]byte(stamp), r.Body)}, nil
}

// readSlack answers the challenge by which Slack sees who owns an address; the request
// that holds it is signed like all others.
func readSlack(r *Request, p *proof) (reading, *Answer, *Refusal) {
	is := reading{id: p.id}
	if isForm(r) {
		return readSlackForm(r, is)
	}
	d, no := object(r.Body)
	if no != nil {
		return is, nil, no
	}
	switch kind := d.text("type"); kind {
	case "url_verification":
		c := d.text("challenge")
		if c == "" || len(c) > maxChallenge {
			return is, nil, refuse(Malformed, "the challenge is missing or too long")
		}
		return is, &Answer{
			Status: 200, Body: []byte(c),
			Header: map[string]string{"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"},
		}, nil
	case "event_callback":
		if is.id, is.name = d.text("event_id"), d.text("event", "type"); is.id == "" {
			return is, nil, refuse(Malformed, "the event has no event_id")
		}
		is.at = d.time("event_time")
		is.subject = d.text("team_id")
		if c := d.text("event", "channel"); c != "" {
			is.subject += "/" + c
		}
	default:
		is.name, is.subject = kind, d.text("team_id")
	}
	return is, nil, nil
}

func readSlackForm(r *Request, is reading) (reading, *Answer, *Refusal) {
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return is, nil, refuse(Malformed, "the form cannot be read")
	}
	if payload, ok := form["payload"]; ok {
		if len(payload) != 1 {
			return is, nil, refuse(Malformed, "the form holds more than one payload")
		}
		d, no := object([]byte(payload[0]))
		if no != nil {
			return is, nil, no
		}
		is.name, is.subject = d.text("type"), d.text("team", "id")
		is.data, is.media = []byte(payload[0]), "application/json"
		return is, nil, nil
	}
	is.name, is.subject = "command", form.Get("command")
	return is, nil, nil
}
