package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
	"time"
)

// GitHub signs the body and nothing else: neither the time nor X-GitHub-Event nor
// X-GitHub-Delivery. Who has recorded a request could send it again under another
// delivery's id, so an event's id is made from the body. Two deliveries with the same
// body, byte for byte, are one event; GitHub's bodies say what happened and when. The
// event's name is the header's: on a first delivery TLS vouches for it, and a copy under
// another name is a copy.

func verifyGitHub(_ *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	signature, no := r.only("x-hub-signature-256")
	if no != nil {
		return nil, no
	}
	encoded, ok := strings.CutPrefix(signature, "sha256=")
	if !ok {
		return nil, refuse(Malformed, "x-hub-signature-256 does not begin with sha256=")
	}
	sum, err := hex.DecodeString(encoded)
	if err != nil || len(sum) != sha256.Size {
		return nil, refuse(Malformed, "x-hub-signature-256 holds no digest in hexadecimal")
	}
	if !macs(sha256.New, keys, [][]byte{sum}, r.Body) {
		return nil, refuse(BadSignature, "no active key made the signature")
	}
	return &proof{}, nil
}

func readGitHub(r *Request) (reading, *Refusal) {
	is := reading{id: digest(r.Body)}
	var no *Refusal
	if is.name, no = r.only("x-github-event"); no != nil {
		return is, no
	}
	delivery, no := r.only("x-github-delivery")
	if no != nil {
		return is, no
	}
	is.detail = map[string]string{"github.delivery": delivery}
	body := r.Body
	if isForm(r) {
		// Web hooks with the older content type carry the same JSON in a form.
		form, err := url.ParseQuery(string(r.Body))
		if err != nil || len(form["payload"]) != 1 {
			return is, refuse(Malformed, "the form holds no payload")
		}
		body = []byte(form["payload"][0])
		is.data, is.media = body, "application/json"
	} else if !isJSON(r) {
		return is, refuse(Malformed, "the content type is neither JSON nor a form")
	}
	d, no := object(body)
	if no != nil {
		return is, no
	}
	if a := d.text("action"); a != "" {
		is.detail["github.action"] = a
	}
	if is.subject = d.text("repository", "full_name"); is.subject == "" {
		is.subject = d.text("organization", "login")
	}
	return is, nil
}
