// Package mqtt is the source of kind "mqtt": topics of a broker that speaks MQTT 5 or
// 3.1.1. It may be imported by node alone.
//
// # Settings of a trigger (and those of package queue)
//
//	topics  one or more topic filters, also shared ones ($share/group/…)
//	qos     1 (at least once) or 2; 1 when left out
//
// # Settings of a connection (and those of package queue)
//
//	version        "5" or "3.1.1"; "5" when left out
//	sessionExpiry  seconds for which a broker of MQTT 5 keeps messages while nobody is
//	               connected; a week when left out
//
// Its secrets are password, ca, cert and key.
//
// # Promises
//
// The session is the broker's and outlives connections. A message is acknowledged
// (PUBACK, PUBREC) after it is on disk, in the order in which messages came, and handed in
// again when the connection is lost before that. MQTT 5 has the broker stop after prefetch
// unacknowledged messages; version 3.1.1 cannot say so, there the reading stops, which
// holds the broker back by TCP, and pings go on. Both is why the subscriber is ours, with
// the codecs of the Eclipse Foundation's clients: one of those clients hangs up on a
// reader that waits, the other may acknowledge on the wrong connection.
//
// MQTT gives messages no identity. Ids are therefore of this run: what comes again after a
// lost connection has a new id, except with QoS 2, which is exact while the process lives.
// The broker allows one connection of a trigger's session at a time: two nodes that run
// the same trigger would throw each other out.
//
// Retained messages come when a subscription is new; a broker of version 3.1.1 sends them
// again at each connection.
//
// A body that no event can hold is not read into memory, and cannot be had again after
// its acknowledgement. What is published with QoS 0 comes with QoS 0: at most once.
package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// Kind is a source.Kind and a source.ConnectionKind.
type Kind struct{}

const (
	maxTopics            = 64
	defaultSessionExpiry = 7 * 24 * 60 * 60 // seconds
)

type settings struct {
	queue.Settings
	Topics []string `json:"topics"`
	QoS    byte     `json:"qos"`
}

type connection struct {
	queue.Link
	Version       string `json:"version"`
	SessionExpiry uint32 `json:"sessionExpiry"`
}

// Check implements source.Kind.
func (Kind) Check(t *function.Trigger) error {
	_, err := check(t)
	return err
}

func check(t *function.Trigger) (*settings, error) {
	var s settings
	if err := queue.Read(t, "mqtt", &s, &s.Settings); err != nil {
		return nil, err
	}
	if s.QoS == 0 {
		s.QoS = 1
	}
	if s.QoS > 2 {
		return nil, &source.FieldError{Field: "qos", Reason: "must be 1 or 2"}
	}
	if len(s.Topics) == 0 || len(s.Topics) > maxTopics {
		return nil, &source.FieldError{Field: "topics", Reason: fmt.Sprintf("must list 1 to %d topic filters", maxTopics)}
	}
	seen := make(map[string]bool, len(s.Topics))
	for _, f := range s.Topics {
		if !filter(f) || seen[f] {
			return nil, &source.FieldError{Field: "topics", Reason: fmt.Sprintf("holds %.40q, which is no topic filter or there twice: + is a whole level, # the last one", f)}
		}
		seen[f] = true
	}
	return &s, nil
}

// filter checks the form of a topic filter (MQTT 5.0, section 4.7).
func filter(f string) bool {
	if f == "" || len(f) > event.MaxAttribute || !utf8.ValidString(f) || strings.ContainsRune(f, 0) {
		return false
	}
	levels := strings.Split(f, "/")
	if levels[0] == "$share" {
		if len(levels) < 3 || levels[1] == "" || strings.ContainsAny(levels[1], "+#") {
			return false
		}
		levels = levels[2:]
	}
	for i, l := range levels {
		if strings.Contains(l, "+") && l != "+" || strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) {
			return false
		}
	}
	return true
}

// CheckConnection implements source.ConnectionKind.
func (Kind) CheckConnection(raw json.RawMessage, secrets []string) error {
	if err := queue.CheckSecrets(raw, secrets, "password"); err != nil {
		return err
	}
	_, err := checkConnection(raw)
	return err
}

func checkConnection(raw json.RawMessage) (*connection, error) {
	c := connection{Version: "5", SessionExpiry: defaultSessionExpiry}
	if err := source.Settings(raw, &c); err != nil {
		return nil, err
	}
	if c.Version != "5" && c.Version != "3.1.1" {
		return nil, &source.FieldError{Field: "version", Reason: `must be "5" or "3.1.1"`}
	}
	if c.SessionExpiry == 0 {
		return nil, &source.FieldError{Field: "sessionExpiry", Reason: "must be at least 1: without a session messages would be lost"}
	}
	return &c, c.Check()
}

// Run implements source.Kind.
func (Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := check(&b.Trigger)
	if err != nil {
		return err
	}
	c, err := checkConnection(b.Connection.Settings)
	if err != nil {
		return err
	}
	var drawn [8]byte
	if _, err := rand.Read(drawn[:]); err != nil {
		return fmt.Errorf("drawing a name for this run: %v", err)
	}
	sub := &subscriber{
		settings: s, connection: c, name: clientID(&b), run: hex.EncodeToString(drawn[:]),
		received: make(map[uint16]bool),
	}
	return queue.Run(ctx, b, sub.listen)
}

// clientID is the same whenever the trigger runs, so the broker finds its session. It has
// the 23 characters that every broker takes (MQTT 3.1.1, section 3.1.3.1).
func clientID(b *source.Binding) string {
	d := sha256.Sum256([]byte(b.Ref.Namespace + "\x00" + b.Ref.Name + "\x00" + b.Trigger.Name))
	return "casemate" + hex.EncodeToString(d[:])[:15]
}

// message is a PUBLISH that is to be handed in.
type message struct {
	*packet
	id string // of the event
}

// event makes an event of m.
func (sub *subscriber) event(m message) event.Message {
	raw := queue.Raw{
		ID: m.id, Subject: m.topic, ContentType: m.contentType, Data: m.payload, Oversized: m.oversized,
		Detail: []queue.Entry{
			queue.Text("queue.kind", "mqtt"),
			queue.Text("queue.name", m.topic),
			queue.Text("queue.id", m.id),
			queue.Text("mqtt.topic", m.topic),
			queue.Number("mqtt.qos", m.qos),
			queue.Text("mqtt.retain", fmt.Sprint(m.retain)),
			queue.Text("mqtt.duplicate", fmt.Sprint(m.duplicate)),
		},
	}
	raw.Detail = append(raw.Detail, m.detail...)
	return sub.settings.Message(raw)
}
