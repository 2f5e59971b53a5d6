package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/casemate-dev/casemate/connector"
	"github.com/casemate-dev/casemate/connector/queue"
)

// Bounds and defaults of settings.
const (
	maxName        = 512 // bytes of a stream's, a group's or a consumer's name
	defaultClaim   = time.Minute
	minClaim       = time.Second
	maxClaim       = 24 * time.Hour
	maxDatabase    = 1 << 16
	passwordSecret = "password"
)

var secretNames = append([]string{passwordSecret}, queue.TLSSecrets...)

// trigger are the settings of a trigger.
type trigger struct {
	queue.Settings
	Stream     string `json:"stream"`
	Group      string `json:"group"`      // casemate:NAMESPACE/FUNCTION/TRIGGER when empty
	Consumer   string `json:"consumer"`   // casemate when empty
	From       string `json:"from"`       // where a group that is not there yet begins: new, all
	Body       string `json:"body"`       // the field that is the data; all fields as JSON when empty
	ClaimAfter string `json:"claimAfter"` // entries that another consumer left for so long are taken over

	claim time.Duration
}

func readTrigger(raw []byte) (*trigger, error) {
	t := &trigger{}
	// Here key is no credential: it names what orders.
	if err := queue.Read(raw, t); err != nil {
		return nil, err
	}
	if err := t.Settings.Check(); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name, value string
		required    bool
	}{{"stream", t.Stream, true}, {"group", t.Group, false}, {"consumer", t.Consumer, false}, {"body", t.Body, false}} {
		if (f.required && f.value == "") || len(f.value) > maxName {
			return nil, &connector.FieldError{Field: f.name, Reason: fmt.Sprintf("must be a name of at most %d bytes", maxName)}
		}
	}
	if t.Consumer == "" {
		t.Consumer = "casemate"
	}
	switch t.From {
	case "":
		t.From = "new"
	case "new", "all":
	default:
		return nil, &connector.FieldError{Field: "from", Reason: "must be new or all"}
	}
	t.claim = defaultClaim
	if t.ClaimAfter != "" {
		var err error
		if t.claim, err = time.ParseDuration(t.ClaimAfter); err != nil || t.claim < minClaim || t.claim > maxClaim {
			return nil, &connector.FieldError{Field: "claimAfter", Reason: fmt.Sprintf("must be a time from %v to %v such as 1m", minClaim, maxClaim)}
		}
	}
	return t, nil
}

// link are the settings of a connection.
type link struct {
	queue.Link
	Database int `json:"database"`
}

func readLink(raw []byte) (*link, error) {
	l := &link{}
	if err := queue.Read(raw, l, secretNames...); err != nil {
		return nil, err
	}
	if err := l.Check(); err != nil {
		return nil, err
	}
	if len(l.Servers) != 1 {
		return nil, &connector.FieldError{Field: "servers", Reason: "must be one server: neither clusters nor sentinels are known"}
	}
	if l.Database < 0 || l.Database > maxDatabase {
		return nil, &connector.FieldError{Field: "database", Reason: fmt.Sprintf("must be 0 to %d", maxDatabase)}
	}
	return l, nil
}

// check looks at settings when they are deployed.
func check(c connector.Check) error {
	if c.Connection == nil {
		_, err := readTrigger(c.Settings)
		return err
	}
	l, err := readLink(c.Connection)
	if err != nil {
		return err
	}
	if l.Username != "" && !slices.Contains(c.Secrets, passwordSecret) {
		return &connector.FieldError{Field: "username", Reason: "goes with the secret password"}
	}
	return queue.Pair(c.Secrets)
}

// client reaches for nothing yet.
func (l *link) client(secrets map[string][]byte) (*redis.Client, error) {
	dial, err := l.Dialer(secrets)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(&redis.Options{
		Addr: l.Servers[0], Username: l.Username, Password: string(secrets[passwordSecret]), DB: l.Database,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dial(ctx, network, address)
		},
		DialTimeout: queue.DialTimeout, MaxRetries: -1, PoolSize: 4, ContextTimeoutEnabled: true,
		// Commands that nobody asked for need rights that a careful account has not.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}), nil
}
