package webhook

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/casemate-dev/casemate/internal/event"
)

// ---- Standard Webhooks

const (
	standardSettings = `{"path":"/in","provider":"standard"}`
	publishedSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	publishedID      = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	publishedBody    = `{"test": 2432232314}`
	publishedStamp   = "1614265330"
	// The module's own test TestWebhookSign.
	publishedSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var publishedTime = time.Unix(1614265330, 0)

func standard(id, stamp, signature, body string) Request {
	return post(body, "webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", signature, "content-type", "application/json")
}

func TestStandardPublishedVector(t *testing.T) {
	t.Parallel()
	for _, key := range []string{publishedSecret, strings.TrimPrefix(publishedSecret, "whsec_"), publishedSecret + "\n"} {
		v := verifier(t, standardSettings, map[string]string{"key": key})
		m := taken(t, v, publishedTime, standard(publishedID, publishedStamp, publishedSignature, publishedBody))
		if m.ID != publishedID || m.Type != "casemate.webhook.standard.received" || string(m.Data) != publishedBody ||
			m.DataContentType != "application/json" || !m.Time.Equal(publishedTime) || m.Detail["header.webhook-id"] != publishedID {
			t.Errorf("got %+v", m)
		}
	}
}

// TestStandardModuleCases goes through the cases of the module's own test table.
func TestStandardModuleCases(t *testing.T) {
	t.Parallel()
	v := verifier(t, standardSettings, map[string]string{"key": publishedSecret})
	const wrong = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
	good := func() Request { return standard(publishedID, publishedStamp, publishedSignature, publishedBody) }
	without := func(h string) Request { r := good(); delete(r.Header, h); return r }
	wantCode(t, v, publishedTime, without("webhook-id"), MissingHeader)
	wantCode(t, v, publishedTime, without("webhook-timestamp"), MissingHeader)
	wantCode(t, v, publishedTime, without("webhook-signature"), MissingHeader)
	wantCode(t, v, publishedTime, standard(publishedID, publishedStamp, wrong, publishedBody), BadSignature)
	wantCode(t, v, publishedTime, standard(publishedID, publishedStamp, "v1,", publishedBody), BadSignature)
	wantCode(t, v, publishedTime, standard(publishedID, publishedStamp, "v2"+publishedSignature[2:], publishedBody), BadSignature)
	wantCode(t, v, publishedTime.Add(DefaultTolerance+time.Second), good(), Stale)
	wantCode(t, v, publishedTime.Add(-DefaultTolerance-time.Second), good(), Future)
	taken(t, v, publishedTime.Add(DefaultTolerance), good())
	taken(t, v, publishedTime.Add(-DefaultTolerance), good())
	several := strings.Join([]string{wrong, "v2" + wrong[2:], publishedSignature, wrong}, " ")
	taken(t, v, publishedTime, standard(publishedID, publishedStamp, several, publishedBody))
}

func TestStandardAttacks(t *testing.T) {
	t.Parallel()
	v := verifier(t, standardSettings, map[string]string{"key": publishedSecret})
	w, err := standardwebhooks.NewWebhook(publishedSecret)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(id string, at int64, body string) string {
		s, err := w.Sign(id, time.Unix(at, 0), []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	now := instant.Unix()
	stamp := strconv.FormatInt(now, 10)
	// The body of a signed request begins with what looks like a time: id.time and time.body
	// are the same signed text.
	split := sign("msg", 5, stamp+".{}")
	wantCode(t, v, instant, standard("msg.5", stamp, split, "{}"), Malformed)
	// The module reads these as the time that was signed; no other reader need do so.
	good := sign("msg", now, "{}")
	wantCode(t, v, instant, standard("msg", "+"+stamp, good, "{}"), Malformed)
	wantCode(t, v, instant, standard("msg", "0"+stamp, good, "{}"), Malformed)
	wantCode(t, v, instant, standard("msg", stamp+" ", good, "{}"), Malformed)
	wantCode(t, v, instant, standard("msg", "99999999999999999999", good, "{}"), Malformed)
	wantCode(t, v, instant, standard("msg", stamp, strings.Repeat(good+" ", 17), "{}"), Malformed)
	wantCode(t, v, instant, standard("msg", stamp, good, "{} "), BadSignature)
	wantCode(t, v, instant, standard("msh", stamp, good, "{}"), BadSignature)
	two := standard("msg", stamp, good, "{}")
	two.Header["webhook-id"] = []string{"msg", "other"}
	wantCode(t, v, instant, two, Malformed)
	get := standard("msg", stamp, good, "{}")
	get.Method = "GET"
	wantCode(t, v, instant, get, BadMethod)
	// Only what is signed well is read at all.
	deep := strings.Repeat("[", 100_000)
	wantCode(t, v, instant, standard("msg", stamp, good, deep), BadSignature)
	wantCode(t, v, instant, standard("msg", stamp, sign("msg", now, deep), deep), Malformed)
	for _, body := range []string{"\xff", `{"type":"a","type":"b"}`, `{"type":"a b"}`, `{"type":"` + strings.Repeat("a", 201) + `"}`, `{`, `[]`} {
		wantCode(t, v, instant, standard("msg", stamp, sign("msg", now, body), body), Malformed)
	}
	large := strings.Repeat("x", event.MaxData+1)
	r := standard("msg", stamp, sign("msg", now, large), large)
	r.Header["content-type"] = []string{"text/plain"}
	wantCode(t, v, instant, r, Malformed)
}

func TestStandardTypeAndTimeAreTheBodys(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"standard","events":["invoice.*"]}`, map[string]string{"key": publishedSecret})
	w, _ := standardwebhooks.NewWebhook(publishedSecret)
	send := func(body string) Request {
		s, _ := w.Sign("msg_1", instant, []byte(body))
		return standard("msg_1", strconv.FormatInt(instant.Unix(), 10), s, body)
	}
	m := taken(t, v, instant, send(`{"type":"invoice.paid","timestamp":"2022-11-03T20:26:10.344522Z","Type":"other"}`))
	if m.Type != "casemate.webhook.standard.invoice.paid" || !m.Time.Equal(time.Date(2022, 11, 3, 20, 26, 10, 344522000, time.UTC)) {
		t.Errorf("got %+v", m)
	}
	if d, err := v.Verify(instant, send(`{"type":"user.created"}`)); err != nil || len(d.Messages) != 0 {
		t.Errorf("an event that the settings leave out: got %+v, %v", d, err)
	}
}

func TestStandardAsymmetric(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := "whpk_" + base64.StdEncoding.EncodeToString(public)
	v := verifier(t, standardSettings, map[string]string{"key": key, "key-previous": publishedSecret})
	stamp := strconv.FormatInt(instant.Unix(), 10)
	s := base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("msg_1."+stamp+".{}")))
	taken(t, v, instant, standard("msg_1", stamp, "v1,AAAA v1a,"+s, "{}"))
	wantCode(t, v, instant, standard("msg_1", stamp, "v1a,"+s, "{ }"), BadSignature)
	wantCode(t, v, instant, standard("msg_1", stamp, "v1,"+s, "{}"), BadSignature)
	// Whoever has the public key could make this if it were taken for a secret one.
	confused := base64.StdEncoding.EncodeToString(mac256(string(public), "msg_1."+stamp+".{}"))
	wantCode(t, v, instant, standard("msg_1", stamp, "v1,"+confused, "{}"), BadSignature)
	for _, bad := range []string{"whsk_" + base64.StdEncoding.EncodeToString(private), "whpk_AAAA", "whsec_AAAA", "whsec_!"} {
		wantCode(t, verifier(t, standardSettings, map[string]string{"key": bad}), instant, standard("m", stamp, "v1,x", "{}"), NotReady)
	}
}

// ---- keys

func TestTwoKeysAreActive(t *testing.T) {
	t.Parallel()
	const first, second, third = "0123456789abcdef-first", "0123456789abcdef-second", "0123456789abcdef-third"
	keys := map[string]string{"key": second, "key-previous": first}
	v := verifier(t, `{"path":"/in","provider":"github"}`, keys)
	taken(t, v, instant, github(first, "push", "d", `{}`))
	taken(t, v, instant, github(second, "push", "d", `{}`))
	wantCode(t, v, instant, github(third, "push", "d", `{}`), BadSignature)
	delete(keys, "key-previous") // the old one is taken away, and is of no use at once
	wantCode(t, v, instant, github(first, "push", "d", `{}`), BadSignature)
	taken(t, v, instant, github(second, "push", "d", `{}`))
	keys["key"] = third
	taken(t, v, instant, github(third, "push", "d", `{}`))
	keys["key"] = "too short"
	wantCode(t, v, instant, github("too short", "push", "d", `{}`), NotReady)
	keys["key"] = ""
	wantCode(t, v, instant, github("", "push", "d", `{}`), NotReady)
	delete(keys, "key")
	wantCode(t, v, instant, github("", "push", "d", `{}`), NotReady)
	named := verifier(t, `{"path":"/in","provider":"github","keys":["a","b","c"]}`, map[string]string{"a": first, "b": second, "c": third})
	taken(t, named, instant, github(third, "push", "d", `{}`))
	missing := verifier(t, `{"path":"/in","provider":"github","keys":["a","b"]}`, map[string]string{"a": first})
	wantCode(t, missing, instant, github(first, "push", "d", `{}`), NotReady)
}

// ---- GitHub

func github(key, name, delivery, body string) Request {
	return post(body, "x-hub-signature-256", "sha256="+hex.EncodeToString(mac256(key, body)),
		"x-github-event", name, "x-github-delivery", delivery, "content-type", "application/json", "user-agent", "GitHub-Hookshot/1")
}

// TestGitHubPublishedVector uses the values of GitHub's page "Validating webhook deliveries".
func TestGitHubPublishedVector(t *testing.T) {
	t.Parallel()
	const signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	r := post("Hello, World!", "x-hub-signature-256", signature)
	keys := [][]byte{[]byte("It's a Secret to Everybody")}
	if _, no := verifyGitHub(nil, instant, &r, keys); no != nil {
		t.Error(no)
	}
	// The same scheme by settings, and with them a body that is no JSON.
	v := verifier(t, `{"path":"/in","provider":"hmac","hmac":{"header":"x-hub-signature-256","prefix":"sha256="}}`, map[string]string{"key": string(keys[0])})
	if m := taken(t, v, instant, r); string(m.Data) != "Hello, World!" {
		t.Errorf("got %+v", m)
	}
	r.Body = []byte("Hello, World?")
	if _, no := verifyGitHub(nil, instant, &r, keys); no == nil || no.Code != BadSignature {
		t.Errorf("got %v", no)
	}
}

const testKey = "0123456789abcdef0123456789abcdef"

func TestGitHub(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"github","events":["push","pull_request"]}`, map[string]string{"key": testKey})
	const body = `{"action":"opened","repository":{"full_name":"octocat/hello"}}`
	m := taken(t, v, instant, github(testKey, "pull_request", "72d3162e", body))
	if m.Type != "casemate.webhook.github.pull_request" || m.Subject != "octocat/hello" || m.Detail["github.delivery"] != "72d3162e" ||
		m.Detail["github.action"] != "opened" || m.Detail["header.x-github-event"] != "pull_request" || string(m.Data) != body {
		t.Errorf("got %+v", m)
	}
	for name := range m.Detail {
		if strings.Contains(name, "signature") {
			t.Errorf("the function gets to see %s", name)
		}
	}
	// A recorded request under another delivery's id and another event's name is the same event.
	again := taken(t, v, instant, github(testKey, "push", "another", body))
	if again.ID != m.ID {
		t.Error("a copy under another delivery's id is another event")
	}
	if other := taken(t, v, instant, github(testKey, "push", "72d3162e", `{}`)); other.ID == m.ID {
		t.Error("another body under the same delivery's id is the same event")
	}
	if d, err := v.Verify(instant, github(testKey, "ping", "d", `{}`)); err != nil || d.Messages != nil {
		t.Errorf("got %+v, %v", d, err)
	}
	form := "payload=" + url.QueryEscape(body)
	r := github(testKey, "push", "d", form)
	r.Header["content-type"] = []string{"application/x-www-form-urlencoded"}
	if m := taken(t, v, instant, r); string(m.Data) != body || m.DataContentType != "application/json" || m.Subject != "octocat/hello" {
		t.Errorf("got %+v", m)
	}
	for _, h := range []string{"x-hub-signature-256", "x-github-event", "x-github-delivery"} {
		r := github(testKey, "push", "d", `{}`)
		delete(r.Header, h)
		wantCode(t, v, instant, r, MissingHeader)
	}
	// The older signature of SHA-1 alone is none.
	r = github(testKey, "push", "d", `{}`)
	r.Header["x-hub-signature"] = r.Header["x-hub-signature-256"]
	delete(r.Header, "x-hub-signature-256")
	wantCode(t, v, instant, r, MissingHeader)
	for _, s := range []string{"sha1=00", "sha256=", "sha256=zz", "sha256=" + strings.Repeat("0", 66)} {
		r := github(testKey, "push", "d", `{}`)
		r.Header["x-hub-signature-256"] = []string{s}
		wantCode(t, v, instant, r, Malformed)
	}
	r = github(testKey, "push", "d", `{}`)
	r.Header["content-type"] = []string{"text/plain"}
	wantCode(t, v, instant, r, Malformed)
	wantCode(t, v, instant, github(testKey, "pu sh", "d", `{}`), Malformed)
}

// ---- Stripe

const (
	stripeSettings = `{"path":"/in","provider":"stripe"}`
	stripeSecret   = "whsec_test_secret"
	stripeBody     = `{"id":"evt_test_webhook","object":"event","type":"charge.succeeded","created":1699999990,"data":{"object":{"id":"ch_1"}}}`
)

func stripe(header string) Request {
	return post(stripeBody, "stripe-signature", header, "content-type", "application/json; charset=utf-8")
}

func stripeHeader(key string, at time.Time, scheme string) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return "t=" + stamp + "," + scheme + "=" + hex.EncodeToString(mac256(key, stamp+"."+stripeBody))
}

// TestStripeKnownSignature was computed with openssl: printf '%s' "1700000000.$BODY" |
// openssl dgst -sha256 -hmac whsec_test_secret. Stripe publishes no vector; the cases of
// TestStripe are those of its Go client's test.
func TestStripeKnownSignature(t *testing.T) {
	t.Parallel()
	v := verifier(t, stripeSettings, map[string]string{"key": stripeSecret})
	m := taken(t, v, instant, stripe("t=1700000000,v1=17006b657a7c2bd2b817b02c5b9540015583b531024860daa02793f03cea4de7"))
	if m.ID != "evt_test_webhook" || m.Type != "casemate.webhook.stripe.charge.succeeded" || m.Subject != "ch_1" || m.Time.Unix() != 1699999990 {
		t.Errorf("got %+v", m)
	}
}

func TestStripe(t *testing.T) {
	t.Parallel()
	v := verifier(t, stripeSettings, map[string]string{"key": stripeSecret})
	good := stripeHeader(stripeSecret, instant, "v1")
	rolled := stripeHeader(stripeSecret+"_rolled_key", instant, "v1")
	taken(t, v, instant, stripe(good))
	taken(t, v, instant, stripe(good+",v1=bad_signature"))
	taken(t, v, instant, stripe(rolled+","+strings.SplitN(good, ",", 2)[1]))
	taken(t, v, instant, stripe(good+",v0=00"))
	wantCode(t, v, instant, stripe(rolled), BadSignature)
	wantCode(t, v, instant, stripe(stripeHeader(stripeSecret, instant, "v0")), BadSignature)
	wantCode(t, v, instant, stripe("t=1700000000"), BadSignature)
	wantCode(t, v, instant, stripe(""), MissingHeader)
	for _, h := range []string{"v1,t=1", "t=", "v1=00", "t=1700000000,t=1700000001,v1=00", good + ",t=1", "t=+1700000000," + good[13:], good + strings.Repeat(",v1="+strings.Repeat("00", 32), 17)} {
		wantCode(t, v, instant, stripe(h), Malformed)
	}
	wantCode(t, v, instant.Add(DefaultTolerance+time.Second), stripe(good), Stale)
	wantCode(t, v, instant.Add(-DefaultTolerance-time.Second), stripe(good), Future)
	narrow := verifier(t, `{"path":"/in","provider":"stripe","tolerance":"10s"}`, map[string]string{"key": stripeSecret})
	wantCode(t, narrow, instant.Add(15*time.Second), stripe(good), Stale)
	taken(t, narrow, instant.Add(10*time.Second), stripe(good))
	// Stripe tries again with another time: the same event.
	a, b := taken(t, v, instant, stripe(good)), taken(t, v, instant, stripe(stripeHeader(stripeSecret, instant.Add(time.Second), "v1")))
	if a.ID != b.ID {
		t.Errorf("got %s and %s", a.ID, b.ID)
	}
}

// ---- Slack

const (
	slackSettings = `{"path":"/in","provider":"slack"}`
	slackSecret   = "8f742231b10e8888abcd99yyyzzz85a5"
	slackCommand  = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)

// TestSlackPublishedVector uses the values of Slack's page "Verifying requests from Slack".
func TestSlackPublishedVector(t *testing.T) {
	t.Parallel()
	v := verifier(t, slackSettings, map[string]string{"key": slackSecret})
	r := post(slackCommand, "x-slack-request-timestamp", "1531420618", "content-type", "application/x-www-form-urlencoded",
		"x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503")
	m := taken(t, v, time.Unix(1531420618, 0), r)
	if m.Type != "casemate.webhook.slack.command" || m.Subject != "/webhook-collect" || string(m.Data) != slackCommand {
		t.Errorf("got %+v", m)
	}
	wantCode(t, v, instant, r, Stale)
}

func slack(at time.Time, contentType, body string) Request {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return post(body, "x-slack-request-timestamp", stamp, "content-type", contentType,
		"x-slack-signature", "v0="+hex.EncodeToString(mac256(slackSecret, "v0:"+stamp+":"+body)), "x-slack-retry-num", "1")
}

func TestSlack(t *testing.T) {
	t.Parallel()
	v := verifier(t, slackSettings, map[string]string{"key": slackSecret})
	const js = "application/json"
	m := taken(t, v, instant, slack(instant, js, `{"type":"event_callback","team_id":"T1","event_id":"Ev1","event_time":1699999999,"event":{"type":"message","channel":"C1"}}`))
	if m.ID != "Ev1" || m.Type != "casemate.webhook.slack.message" || m.Subject != "T1/C1" || m.Time.Unix() != 1699999999 || m.Detail["header.x-slack-retry-num"] != "1" {
		t.Errorf("got %+v", m)
	}
	if m := taken(t, v, instant, slack(instant, js, `{"type":"app_rate_limited","team_id":"T1"}`)); m.Type != "casemate.webhook.slack.app_rate_limited" {
		t.Errorf("got %+v", m)
	}
	const payload = `{"type":"block_actions","team":{"id":"T1"}}`
	m = taken(t, v, instant, slack(instant, "application/x-www-form-urlencoded", "payload="+url.QueryEscape(payload)))
	if m.Type != "casemate.webhook.slack.block_actions" || string(m.Data) != payload || m.DataContentType != js {
		t.Errorf("got %+v", m)
	}
	challenge := `{"type":"url_verification","challenge":"3eZbrw1aBm2r"}`
	d, err := v.Verify(instant, slack(instant, js, challenge))
	if err != nil || d.Answer == nil || d.Answer.Status != 200 || string(d.Answer.Body) != "3eZbrw1aBm2r" || len(d.Messages) != 0 {
		t.Errorf("got %+v, %v", d, err)
	}
	// A challenge by somebody else is not sent back.
	r := slack(instant, js, challenge)
	r.Header["x-slack-signature"] = []string{"v0=" + strings.Repeat("00", 32)}
	wantCode(t, v, instant, r, BadSignature)
	r.Header["x-slack-signature"] = []string{"v1=" + strings.Repeat("00", 32)}
	wantCode(t, v, instant, r, Malformed)
	wantCode(t, v, instant, slack(instant, js, `{"type":"url_verification","challenge":"`+strings.Repeat("x", 1025)+`"}`), Malformed)
	wantCode(t, v, instant, slack(instant, js, `{"type":"event_callback","event":{"type":"message"}}`), Malformed)
	wantCode(t, v, instant, slack(instant, "application/x-www-form-urlencoded", `payload={}&payload={}`), Malformed)
	wantCode(t, v, instant, slack(instant.Add(DefaultTolerance+time.Second), js, `{}`), Future)
}

// ---- generic HMAC

func TestHMAC(t *testing.T) {
	t.Parallel()
	stamp := strconv.FormatInt(instant.Unix(), 10)
	for name, tc := range map[string]struct {
		settings string
		key      string
		request  Request
		bad      Request // the same but for one thing that is signed
		id       string
	}{
		"sha512 in base64 with a prefix": {
			`"header":"x-sig","prefix":"hash ","encoding":"base64","algorithm":"sha512"`, testKey,
			post("b", "x-sig", "hash "+base64.StdEncoding.EncodeToString(mac(sha512.New, testKey, "b"))),
			post("c", "x-sig", "hash "+base64.StdEncoding.EncodeToString(mac(sha512.New, testKey, "b"))), "",
		},
		"sha384 in base64url": {
			`"header":"x-sig","encoding":"base64url","algorithm":"sha384"`, testKey,
			post("b", "x-sig", base64.RawURLEncoding.EncodeToString(mac(sha512.New384, testKey, "b"))),
			post("c", "x-sig", base64.RawURLEncoding.EncodeToString(mac(sha512.New384, testKey, "b"))), "",
		},
		"time and id": {
			`"header":"x-sig","signed":"v1:{timestamp}:{id}:{body}","timestampHeader":"x-time","idHeader":"x-id"`, testKey,
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, "v1:"+stamp+":one:b")), "x-time", stamp, "x-id", "one"),
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, "v1:"+stamp+":one:b")), "x-time", stamp, "x-id", "two"), "one",
		},
		"milliseconds": {
			`"header":"x-sig","signed":"{timestamp}.{body}","timestampHeader":"x-time","timestampForm":"milliseconds"`, testKey,
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, stamp+"123.b")), "x-time", stamp+"123"),
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, stamp+"123.b")), "x-time", stamp+"124"), "",
		},
		"rfc3339": {
			`"header":"x-sig","signed":"{timestamp}.{body}","timestampHeader":"x-time","timestampForm":"rfc3339"`, testKey,
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, "2023-11-14T22:13:20Z.b")), "x-time", "2023-11-14T22:13:20Z"),
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, "2023-11-14T22:13:20Z.b")), "x-time", "2023-11-14T22:13:21Z"), "",
		},
		"key in hex": {
			`"header":"x-sig","key":"hex"`, hex.EncodeToString([]byte(testKey)),
			post("b", "x-sig", hex.EncodeToString(mac256(testKey, "b"))),
			post("b", "x-sig", hex.EncodeToString(mac256(hex.EncodeToString([]byte(testKey)), "b"))), "",
		},
		"id of the body": {
			`"header":"x-sig","idField":"meta.id","eventField":"kind","subjectField":"who"`, testKey,
			post(`{"meta":{"id":"7"},"kind":"sold"}`, "x-sig", hex.EncodeToString(mac256(testKey, `{"meta":{"id":"7"},"kind":"sold"}`))),
			post(`{"meta":{"id":"8"},"kind":"sold"}`, "x-sig", hex.EncodeToString(mac256(testKey, `{"meta":{"id":"7"},"kind":"sold"}`))), "7",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t, fmt.Sprintf(`{"path":"/in","provider":"hmac","hmac":{%s}}`, tc.settings), map[string]string{"key": tc.key})
			m := taken(t, v, instant, tc.request)
			if tc.id != "" && m.ID != tc.id || !strings.HasPrefix(m.Type, "casemate.webhook.hmac.") {
				t.Errorf("got %+v", m)
			}
			wantCode(t, v, instant, tc.bad, BadSignature)
			missing := tc.request
			missing.Header = map[string][]string{}
			wantCode(t, v, instant, missing, MissingHeader)
		})
	}
}

func TestHMACTimeAndID(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"hmac","hmac":{"header":"x-sig","signed":"{id}.{timestamp}.{body}","timestampHeader":"x-time","idHeader":"x-id"}}`, map[string]string{"key": testKey})
	send := func(id, stamp, body string) Request {
		return post(body, "x-sig", hex.EncodeToString(mac256(testKey, id+"."+stamp+"."+body)), "x-time", stamp, "x-id", id)
	}
	stamp := strconv.FormatInt(instant.Unix(), 10)
	taken(t, v, instant, send("a", stamp, ""))
	wantCode(t, v, instant.Add(6*time.Minute), send("a", stamp, ""), Stale)
	wantCode(t, v, instant.Add(-6*time.Minute), send("a", stamp, ""), Future)
	wantCode(t, v, instant, send("a.1", stamp, ""), Malformed)
	wantCode(t, v, instant, send("a", "-"+stamp, ""), Malformed)
	wantCode(t, v, instant, send("a", stamp+".5", ""), Malformed)
	body := sha256.Sum256(nil)
	r := send("a", stamp, "")
	r.Header["x-sig"] = []string{hex.EncodeToString(body[:31])}
	wantCode(t, v, instant, r, Malformed)
}

// TestHMACWithoutIDTellsByTimeAndBody: a copy is the same event, and the same body at
// another time is another one.
func TestHMACWithoutIDTellsByTimeAndBody(t *testing.T) {
	t.Parallel()
	v := verifier(t, `{"path":"/in","provider":"hmac","hmac":{"header":"x-sig","signed":"{timestamp}.{body}","timestampHeader":"x-time"}}`, map[string]string{"key": testKey})
	send := func(at time.Time, body string) string {
		stamp := strconv.FormatInt(at.Unix(), 10)
		return taken(t, v, instant, post(body, "x-sig", hex.EncodeToString(mac256(testKey, stamp+"."+body)), "x-time", stamp)).ID
	}
	a := send(instant, "x")
	if send(instant, "x") != a || send(instant.Add(time.Second), "x") == a || send(instant, "y") == a {
		t.Error("ids do not tell requests apart as they should")
	}
}
