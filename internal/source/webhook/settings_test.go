package webhook

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/source"
)

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ settings, field string }{
		"unknown":                {`{"path":"/in","provider":"github","secret":"x"}`, "secret"},
		"no path":                {`{"provider":"github"}`, "path"},
		"path that climbs":       {`{"path":"../in","provider":"github"}`, "path"},
		"path with empty part":   {`{"path":"/a//b","provider":"github"}`, "path"},
		"no provider":            {`{"path":"/in"}`, "provider"},
		"unknown provider":       {`{"path":"/in","provider":"bearer"}`, "provider"},
		"too many keys":          {`{"path":"/in","provider":"github","keys":["a","b","c","d","e","f","g","h","i"]}`, "keys"},
		"key twice":              {`{"path":"/in","provider":"github","keys":["a","a"]}`, "keys"},
		"key that climbs":        {`{"path":"/in","provider":"github","keys":["../a"]}`, "keys"},
		"tolerance of no use":    {`{"path":"/in","provider":"github","tolerance":"1m"}`, "tolerance"},
		"tolerance too wide":     {`{"path":"/in","provider":"stripe","tolerance":"2h"}`, "tolerance"},
		"tolerance of none":      {`{"path":"/in","provider":"stripe","tolerance":"0s"}`, "tolerance"},
		"kept too short":         {`{"path":"/in","provider":"stripe","keep":"9m"}`, "keep"},
		"kept too long":          {`{"path":"/in","provider":"stripe","keep":"200h"}`, "keep"},
		"filter of no form":      {`{"path":"/in","provider":"github","events":["a*b"]}`, "events"},
		"credential shown":       {`{"path":"/in","provider":"github","headers":["authorization"]}`, "headers"},
		"signature shown":        {`{"path":"/in","provider":"github","headers":["x-hub-signature-256"]}`, "headers"},
		"hmac for github":        {`{"path":"/in","provider":"github","hmac":{"header":"x"}}`, "hmac"},
		"hmac without":           {`{"path":"/in","provider":"hmac"}`, "hmac"},
		"no header":              {`{"path":"/in","provider":"hmac","hmac":{}}`, "hmac.header"},
		"md5":                    {`{"path":"/in","provider":"hmac","hmac":{"header":"x","algorithm":"md5"}}`, "hmac.algorithm"},
		"sha1":                   {`{"path":"/in","provider":"hmac","hmac":{"header":"x","algorithm":"sha1"}}`, "hmac.algorithm"},
		"body not signed":        {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{timestamp}","timestampHeader":"y"}}`, "hmac.signed"},
		"body twice":             {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{body}{body}"}}`, "hmac.signed"},
		"time twice":             {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{timestamp}.{timestamp}.{body}","timestampHeader":"y"}}`, "hmac.signed"},
		"time beside body":       {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{timestamp}{body}","timestampHeader":"y"}}`, "hmac.signed"},
		"id beside time":         {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{id}{timestamp}.{body}","timestampHeader":"y","idHeader":"z"}}`, "hmac.signed"},
		"id ends in its kind":    {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{id}-{body}","idHeader":"z"}}`, "hmac.signed"},
		"date ends in its kind":  {`{"path":"/in","provider":"hmac","hmac":{"header":"x","signed":"{timestamp}:{body}","timestampHeader":"y","timestampForm":"rfc3339"}}`, "hmac.signed"},
		"time not signed":        {`{"path":"/in","provider":"hmac","hmac":{"header":"x","timestampHeader":"y"}}`, "hmac.timestampHeader"},
		"id not signed":          {`{"path":"/in","provider":"hmac","hmac":{"header":"x","idHeader":"y"}}`, "hmac.idHeader"},
		"jwt without":            {`{"path":"/in","provider":"jwt"}`, "jwt"},
		"no issuer":              {`{"path":"/in","provider":"jwt","jwt":{"audience":["a"],"algorithms":["ES256"],"bodyClaim":"b"}}`, "jwt.issuer"},
		"no audience":            {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","algorithms":["ES256"],"bodyClaim":"b"}}`, "jwt.audience"},
		"empty audience":         {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","audience":[""],"algorithms":["ES256"],"bodyClaim":"b"}}`, "jwt.audience"},
		"no algorithm":           {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","audience":["a"],"bodyClaim":"b"}}`, "jwt.algorithms"},
		"algorithm none":         {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","audience":["a"],"algorithms":["none"],"bodyClaim":"b"}}`, "jwt.algorithms"},
		"both kinds":             {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","audience":["a"],"algorithms":["ES256","HS256"],"bodyClaim":"b"}}`, "jwt.algorithms"},
		"body left open":         {`{"path":"/in","provider":"jwt","jwt":{"issuer":"i","audience":["a"],"algorithms":["ES256"]}}`, "jwt.bodyClaim"},
		"cloudevents for github": {`{"path":"/in","provider":"github","cloudevents":{}}`, "cloudevents"},
		"unknown auth":           {`{"path":"/in","provider":"cloudevents","cloudevents":{"auth":"none"}}`, "cloudevents.auth"},
		"rate below none":        {`{"path":"/in","provider":"cloudevents","cloudevents":{"rate":-1}}`, "cloudevents.rate"},
		"a rate below none":      {`{"path":"/in","provider":"github","rate":-1}`, "rate"},
		"a rate without end":     {`{"path":"/in","provider":"github","rate":1000000}`, "rate"},
		"origin with a scheme":   {`{"path":"/in","provider":"cloudevents","cloudevents":{"origins":["https://x"]}}`, "cloudevents.origins"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := (&Hooks{}).Check(trigger(tc.settings))
			var f *source.FieldError
			if !errors.As(err, &f) || f.Field != tc.field {
				t.Errorf("got %v, want field %s", err, tc.field)
			}
		})
	}
	for _, ok := range []string{timedSettings, ceSettings, standardSettings, `{"path":"/a/b-c/D_1","provider":"slack","tolerance":"1h","keep":"48h","events":["*"],"headers":["x-y"]}`} {
		if err := (&Hooks{}).Check(trigger(ok)); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	without := trigger(standardSettings)
	without.Connection = ""
	if err := (&Hooks{}).Check(without); err == nil {
		t.Error("a trigger without a connection is let pass")
	}
}

func TestConnectionsAreChecked(t *testing.T) {
	t.Parallel()
	for settings, ok := range map[string]bool{
		`{}`: true, `{"url":"https://example.com/in"}`: true, `{"url":"http://example.com"}`: false,
		`{"url":"https://u:p@example.com"}`: false, `{"key":"secret"}`: false, `{"url":"https://"}`: false,
	} {
		if err := (&Hooks{}).CheckConnection(json.RawMessage(settings), []string{"key"}); (err == nil) != ok {
			t.Errorf("%s: %v", settings, err)
		}
	}
	if err := (&Hooks{}).CheckConnection(nil, nil); err == nil {
		t.Error("a connection without a key is let pass")
	}
}

// TestRefusalsTellNothing: texts hold neither keys nor signatures nor what was expected.
func TestRefusalsTellNothing(t *testing.T) {
	t.Parallel()
	v := verifier(t, timedSettings, map[string]string{"key": testKey, "key-previous": testKey + "2"})
	r := timed("a", instant, "x")
	want := r.Header["x-sig"][0]
	r.Body = []byte("y")
	_, err := v.Verify(instant, r)
	for _, secret := range []string{testKey, want, hex.EncodeToString(mac256(testKey, "a.1700000000.y")), "previous", "key-"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v tells %q", err, secret)
		}
	}
	for _, c := range []Code{BadSignature, Stale, Future, WrongClaims} {
		if s := refuse(c, "").Status(); s != 401 {
			t.Errorf("%s: got %d", c, s)
		}
	}
}
