package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/source"
)

const sendKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// far is a server that keeps what it got, and a connection to it.
func far(t *testing.T, answer http.HandlerFunc) *source.Connection {
	t.Helper()
	s := httptest.NewTLSServer(answer)
	t.Cleanup(s.Close)
	secrets := map[string][]byte{
		"key": []byte(sendKey),
		"ca":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
	}
	return &source.Connection{
		Namespace: "shop", Name: "crm", Kind: "webhook", Settings: json.RawMessage(`{"url":"` + s.URL + `/in"}`),
		Secret: func(name string) ([]byte, error) {
			if b, ok := secrets[name]; ok {
				return b, nil
			}
			return nil, errors.New("there is none")
		},
	}
}

func sent() *event.Message {
	return &event.Message{
		Event: event.Event{ID: "e.1", Source: "/namespaces/shop", Type: "casemate.delivery.failed", DataContentType: "application/json"},
		Data:  []byte(`{"a":1}`),
	}
}

func TestSentWebhookIsSigned(t *testing.T) {
	t.Parallel()
	hook, err := standardwebhooks.NewWebhook(sendKey)
	if err != nil {
		t.Fatal(err)
	}
	c := far(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := hook.Verify(body, r.Header); err != nil {
			t.Errorf("the signature is refused: %v", err)
		}
		ms, err := cloudevent.Read(map[string][]string{"content-type": r.Header["Content-Type"]}, body)
		if err != nil || len(ms) != 1 || ms[0].ID != "e.1" || string(ms[0].Data) != `{"a":1}` {
			t.Errorf("it got %v, %v", ms, err)
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	got, err := Send(t.Context(), c, sent(), time.Now())
	if err != nil || got.Status != http.StatusServiceUnavailable || got.RetryAfter != 7*time.Second {
		t.Errorf("it gave %+v, %v", got, err)
	}
}

func TestSentWebhookFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the event went elsewhere") }))
	t.Cleanup(other.Close)
	c := far(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	if got, err := Send(t.Context(), c, sent(), time.Now()); err != nil || got.Status != http.StatusTemporaryRedirect {
		t.Errorf("it gave %+v, %v", got, err)
	}
}

func TestSentWebhookTrustsNobodyUnknown(t *testing.T) {
	t.Parallel()
	c := far(t, func(http.ResponseWriter, *http.Request) { t.Error("the event was sent") })
	known := c.Secret
	c.Secret = func(name string) ([]byte, error) {
		if name == "ca" {
			return nil, errors.New("there is none")
		}
		return known(name)
	}
	_, err := Send(context.Background(), c, sent(), time.Now())
	if err == nil || strings.Contains(err.Error(), sendKey[6:]) {
		t.Errorf("it gave %v", err)
	}
}
