package webhook

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// check is what holds for whatever comes: a delivery whose events can be carried, or a
// refusal with a status of its own.
func check(t *testing.T, v *Verifier, r Request) bool {
	t.Helper()
	d, err := v.Verify(instant, r)
	if err != nil {
		var no *Refusal
		if !errors.As(err, &no) || no.Status() < 400 || no.Code == NotReady {
			t.Fatalf("got %v", err)
		}
		return false
	}
	for _, m := range d.Messages {
		if m.Source == "" {
			m.Source = "/stamped"
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("an event that cannot be carried: %v", err)
		}
		if m.ID == "" {
			t.Fatal("an event without an id")
		}
	}
	if d.Until.Before(instant) {
		t.Fatal("let in, and not to be remembered")
	}
	return true
}

// FuzzHeaders gives every provider headers that nobody signed: none may be let in.
func FuzzHeaders(f *testing.F) {
	f.Add("msg_1", "1700000000", "v1,AAAA v1a,AAAA", []byte("{}"))
	f.Add("a.b", "t=1700000000", "t=1700000000,v1=00,v0=00", []byte("{"))
	f.Add("", "+1", "sha256="+strings.Repeat("0", 64), []byte("payload=%7B%7D"))
	f.Add("x", "2023-11-14T22:13:20Z", "v0="+strings.Repeat("f", 64), []byte("\xff"))
	f.Add("x", "x", "Bearer eyJhbGciOiJub25lIn0.e30.", []byte{})
	key := map[string]string{"key": publishedSecret}
	var all []*Verifier
	for _, s := range []string{
		standardSettings, stripeSettings, slackSettings, `{"path":"/in","provider":"github"}`, timedSettings,
		`{"path":"/in","provider":"cloudevents"}`,
	} {
		all = append(all, verifier(f, s, key))
	}
	f.Fuzz(func(t *testing.T, id, stamp, signature string, body []byte) {
		for _, v := range all {
			r := post(string(body), "webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", signature,
				"stripe-signature", signature, "x-slack-signature", signature, "x-slack-request-timestamp", stamp,
				"x-hub-signature-256", signature, "x-github-event", id, "x-github-delivery", id,
				"x-id", id, "x-time", stamp, "x-sig", signature, "authorization", signature)
			if check(t, v, r) {
				t.Fatalf("%s let in what nobody signed", v.settings.Provider)
			}
		}
	})
}

// FuzzSigned gives every provider bodies that are signed well, whatever they hold.
func FuzzSigned(f *testing.F) {
	f.Add([]byte(`{"type":"a","id":"b","timestamp":"2022-11-03T20:26:10Z"}`), "push", "application/json")
	f.Add([]byte(stripeBody), "", "application/json")
	f.Add([]byte(slackCommand), "x", "application/x-www-form-urlencoded")
	f.Add([]byte(`payload={"type":"block_actions"}`), "x", "application/x-www-form-urlencoded")
	f.Add([]byte(`{"type":"url_verification","challenge":"x"}`), "a b", "text/plain")
	f.Add([]byte(ceEvent), "x", "application/cloudevents+json")
	key := map[string]string{"key": testKey}
	make1 := func(settings string) *Verifier { return verifier(f, settings, key) }
	git, pay, chat := make1(`{"path":"/in","provider":"github"}`), make1(stripeSettings), make1(slackSettings)
	own := make1(`{"path":"/in","provider":"hmac","hmac":{"header":"x-sig","idField":"id","eventField":"a.type","subjectField":"b"}}`)
	events := make1(`{"path":"/in","provider":"cloudevents","cloudevents":{"auth":"hmac"},"hmac":{"header":"x-sig"}}`)
	stamp := strconv.FormatInt(instant.Unix(), 10)
	f.Fuzz(func(t *testing.T, body []byte, name, contentType string) {
		plain, b := hex.EncodeToString(mac256(testKey, string(body))), string(body)
		check(t, git, post(b, "x-hub-signature-256", "sha256="+plain, "x-github-event", name, "x-github-delivery", name, "content-type", contentType))
		check(t, own, post(b, "x-sig", plain, "content-type", contentType, "user-agent", name))
		check(t, events, post(b, "x-sig", plain, "content-type", contentType))
		check(t, pay, post(b, "stripe-signature", "t="+stamp+",v1="+hex.EncodeToString(mac256(testKey, stamp+"."+b)), "content-type", contentType))
		check(t, chat, post(b, "x-slack-request-timestamp", stamp, "x-slack-signature", "v0="+hex.EncodeToString(mac256(testKey, "v0:"+stamp+":"+b)), "content-type", contentType))
	})
}

// FuzzTemplate looks for a signed text that two different requests have in common.
func FuzzTemplate(f *testing.F) {
	f.Add("{timestamp}.{body}", "1", "x", "a", "2", "y", "b")
	f.Add("{id}.{timestamp}:{body}", "1", "x", "a", "1", "x", "a")
	f.Add("v0:{timestamp}:{id}|{body}", "1", "x", "a", "12", "", "a")
	f.Fuzz(func(t *testing.T, text, stamp1, id1, body1, stamp2, id2, body2 string) {
		h := &HMACSettings{Header: "x", Signed: text}
		if strings.Contains(text, "{timestamp}") {
			h.TimestampHeader = "t"
		}
		if strings.Contains(text, "{id}") {
			h.IDHeader = "i"
		}
		var parts template
		if h.check(false, &parts) != nil {
			return
		}
		signed := func(stamp, id, body string) (string, bool) {
			out := ""
			for _, p := range parts {
				switch p.hole {
				case "timestamp":
					if _, err := seconds(stamp); err != nil {
						return "", false
					}
					out += stamp
				case "id":
					if id == "" || strings.Trim(id, idChars) != "" {
						return "", false
					}
					out += id
				default:
					out += p.literal
				}
			}
			return out + body, true
		}
		a, ok1 := signed(stamp1, id1, body1)
		b, ok2 := signed(stamp2, id2, body2)
		if !ok1 || !ok2 || a != b {
			return
		}
		if parts.has("timestamp") && stamp1 != stamp2 || parts.has("id") && id1 != id2 || body1 != body2 {
			t.Fatalf("%q is signed for two requests: %q", text, a)
		}
	})
}

func FuzzJWT(f *testing.F) {
	v := verifier(f, `{"path":"/in","provider":"jwt","jwt":{"issuer":"https://bank","audience":["us"],"algorithms":["HS256"],"body":"unsigned"}}`, map[string]string{"key": testKey})
	f.Add(claims("", nil), "")
	f.Add(`{"iss":"https://bank","aud":"us","iat":1e9,"nbf":-1,"exp":1e300}`, "a.b.c")
	f.Add(`{"aud":{}}`, token(f, "HS256", []byte(testKey), "{}", nil))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(testKey)}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, claims, raw string) {
		check(t, v, bear(raw, ""))
		s, err := signer.Sign([]byte(claims))
		if err != nil {
			return
		}
		text, err := s.CompactSerialize()
		if err != nil || len(text) > maxSignature {
			return
		}
		r := bear(text, "")
		delete(r.Header, "content-type")
		check(t, v, r)
	})
}

func FuzzSettings(f *testing.F) {
	for _, s := range []string{timedSettings, ceSettings, standardSettings, `{"path":"/in","provider":"jwt","jwt":{"algorithms":[]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSettings(b)
		if err == nil && (s.tolerance <= 0 || s.tolerance > MaxTolerance || s.keep < 2*s.tolerance) {
			t.Fatalf("%s gives a tolerance of %s and a memory of %s", b, s.tolerance, s.keep)
		}
	})
}

func FuzzReplayStore(f *testing.F) {
	f.Add(make([]byte, 16), make([]byte, 8+rememberedSize))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}, []byte{})
	f.Fuzz(func(t *testing.T, head, first []byte) {
		r, err := OpenReplays(t.Context(), &memory{values: map[string][]byte{"replay": head, "replay-0": first}}, time.Hour)
		if err != nil {
			return
		}
		if err := r.Record(t.Context(), instant, instant, []string{"a"}); err == nil && !r.Taken(instant, "a") {
			t.Fatal("what was recorded is not known")
		}
	})
}
