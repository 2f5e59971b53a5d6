package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/source"
)

const (
	sendTimeout = 20 * time.Second // Standard Webhooks suggests 15 to 30 s
	maxReply    = 64 << 10         // bytes of an answer that are read
)

// Sent is how a far side answered.
type Sent struct {
	Status     int
	RetryAfter time.Duration // what it asked for; 0 when it did not
	Body       []byte        // its beginning
}

// Send posts an event, in structured mode, to the URL of a connection, signed by Standard
// Webhooks 1.0.0 with its secret "key". A private authority's certificate may be its
// secret "ca". Redirects are not followed: they would carry the event elsewhere. Its
// errors hold no key.
func Send(ctx context.Context, c *source.Connection, m *event.Message, now time.Time) (Sent, error) {
	doing := "sending to webhook " + c.Namespace + "/" + c.Name
	var settings ConnectionSettings
	if err := source.Settings(c.Settings, &settings); err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	if settings.URL == "" {
		return Sent{}, fmt.Errorf("%s: the connection has no url", doing)
	}
	text, err := c.Secret("key")
	if err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	hook, err := standardwebhooks.NewWebhook(strings.TrimPrefix(string(text), "whsec_"))
	if err != nil {
		return Sent{}, fmt.Errorf("%s: its key is no base64 after whsec_", doing)
	}
	body, err := cloudevent.WriteStructured(m)
	if err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	id := signID(m.ID)
	signature, err := hook.Sign(id, now, body)
	if err != nil {
		return Sent{}, fmt.Errorf("%s: signing failed", doing)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, settings.URL, bytes.NewReader(body))
	if err != nil {
		return Sent{}, fmt.Errorf("%s: the url cannot be used", doing)
	}
	req.Header.Set("Content-Type", cloudevent.StructuredType)
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	client, done, err := sender(c)
	if err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer done()
	resp, err := client.Do(req)
	if err != nil {
		return Sent{}, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = resp.Body.Close() }()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return Sent{}, fmt.Errorf("%s: reading the answer: %w", doing, err)
	}
	out := Sent{Status: resp.StatusCode, Body: reply}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 && s <= 24*3600 {
		out.RetryAfter = time.Duration(s) * time.Second
	}
	return out, nil
}

// signID is the event's id, when the signature can cover it: the signed text joins its
// parts by full stops.
func signID(id string) string {
	if !strings.Contains(id, ".") {
		return id
	}
	return base64.RawURLEncoding.EncodeToString([]byte(id))
}

// sender is a client for one request.
func sender(c *source.Connection) (client *http.Client, done func(), err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca, err := c.Secret("ca"); err == nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, nil, errors.New("its secret ca holds no certificate")
		}
	}
	t := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, t.CloseIdleConnections, nil
}
