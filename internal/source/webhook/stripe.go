package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Stripe signs timestamp.body. Its header is t=…,v1=…,v1=…: one time, and a signature for
// each secret while one is rolled. Other schemes (v0 is for test mode) are passed over, as
// are signatures that cannot be read, which is what Stripe's own clients do. When Stripe
// tries again the time is new and the event's id is the same.

func verifyStripe(_ *Settings, _ time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	header, no := r.only("stripe-signature")
	if no != nil {
		return nil, no
	}
	var stamp string
	var sums [][]byte
	for part := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, refuse(Malformed, "stripe-signature is no list of names and values")
		}
		switch name {
		case "t":
			if stamp != "" || value == "" {
				return nil, refuse(Malformed, "stripe-signature does not hold one time")
			}
			stamp = value
		case "v1":
			if len(sums) == maxSignatures {
				return nil, refuse(Malformed, "stripe-signature holds too many signatures")
			}
			if sum, err := hex.DecodeString(value); err == nil && len(sum) == sha256.Size {
				sums = append(sums, sum)
			}
		}
	}
	at, err := seconds(stamp)
	if err != nil {
		return nil, refuse(Malformed, "stripe-signature holds no time in seconds")
	}
	if !macs(sha256.New, keys, sums, []byte(stamp), []byte("."), r.Body) {
		return nil, refuse(BadSignature, "no active key made a signature of scheme v1")
	}
	return &proof{at: at}, nil
}

func readStripe(r *Request, _ *proof) (reading, *Refusal) {
	d, no := object(r.Body)
	if no != nil {
		return reading{}, no
	}
	is := reading{id: d.text("id"), name: d.text("type"), at: d.time("created")}
	if is.id == "" || is.name == "" {
		return is, refuse(Malformed, "the body has no id and type")
	}
	if is.subject = d.text("data", "object", "id"); is.subject == "" {
		is.subject = d.text("related_object", "id")
	}
	return is, nil
}
