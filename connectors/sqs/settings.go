package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/casemate-dev/casemate/connector"
	"github.com/casemate-dev/casemate/connector/queue"
)

// Bounds and defaults of settings. SQS's own are in its API reference, ReceiveMessage.
const (
	defaultVisibility = time.Minute
	minVisibility     = 2 * time.Second
	maxVisibility     = 12 * time.Hour
	maxWait           = 20 * time.Second
	batchMost         = 10
	requestWithin     = 30 * time.Second
)

var secretNames = []string{"accessKeyId", "secretAccessKey", "sessionToken", "ca"}

// trigger are the settings of a trigger.
type trigger struct {
	queue.Settings
	Queue      string `json:"queue"`      // its name or its URL
	Visibility string `json:"visibility"` // how long others do not see what we got; it is extended
	Wait       string `json:"wait"`       // how long a request waits for messages

	visible, wait time.Duration
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}(\.fifo)?$`)

// fifo says whether the queue keeps an order.
func (t *trigger) fifo() bool { return strings.HasSuffix(t.Queue, ".fifo") }

// name is the queue's, also where the settings have its URL.
func (t *trigger) name() string { return t.Queue[strings.LastIndex(t.Queue, "/")+1:] }

func readTrigger(raw []byte) (*trigger, error) {
	t := &trigger{}
	if err := queue.Read(raw, t, secretNames...); err != nil {
		return nil, err
	}
	if err := t.Settings.Check(); err != nil {
		return nil, err
	}
	if strings.Contains(t.Queue, "://") {
		u, err := url.Parse(t.Queue)
		if err != nil || u.Host == "" || u.User != nil || !nameForm.MatchString(t.name()) {
			return nil, &connector.FieldError{Field: "queue", Reason: "must be a queue's name or its URL"}
		}
	} else if !nameForm.MatchString(t.Queue) {
		return nil, &connector.FieldError{Field: "queue", Reason: "must be a queue's name or its URL"}
	}
	for _, d := range []struct {
		field, value  string
		into          *time.Duration
		preset, least time.Duration
		most          time.Duration
	}{
		{"visibility", t.Visibility, &t.visible, defaultVisibility, minVisibility, maxVisibility},
		{"wait", t.Wait, &t.wait, maxWait, 0, maxWait},
	} {
		*d.into = d.preset
		if d.value == "" {
			continue
		}
		v, err := time.ParseDuration(d.value)
		if err != nil || v < d.least || v > d.most || v%time.Second != 0 {
			return nil, &connector.FieldError{Field: d.field, Reason: fmt.Sprintf("must be whole seconds from %v to %v such as 20s", d.least, d.most)}
		}
		*d.into = v
	}
	return t, nil
}

// link are the settings of a connection.
type link struct {
	Region            string `json:"region"`
	Endpoint          string `json:"endpoint"` // of who is not Amazon: https://host:port
	InsecurePlaintext bool   `json:"insecurePlaintext"`

	local bool // without TLS, so to this machine alone
}

var regionForm = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

func readLink(raw []byte) (*link, error) {
	l := &link{}
	if err := queue.Read(raw, l, secretNames...); err != nil {
		return nil, err
	}
	if !regionForm.MatchString(l.Region) {
		return nil, &connector.FieldError{Field: "region", Reason: "must be a region such as eu-central-1"}
	}
	if l.Endpoint == "" {
		return l, nil
	}
	u, err := url.Parse(l.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, &connector.FieldError{Field: "endpoint", Reason: "must be an address such as https://host:port"}
	}
	if u.Scheme == "http" && !l.InsecurePlaintext {
		if !queue.Local(u.Hostname()) {
			return nil, &connector.FieldError{Field: "endpoint", Reason: "is without TLS, which is for servers on this machine: use https, or say insecurePlaintext to have the network read along"}
		}
		l.local = true
	}
	return l, nil
}

// check looks at settings when they are deployed.
func check(c connector.Check) error {
	if c.Connection == nil {
		_, err := readTrigger(c.Settings)
		return err
	}
	if _, err := readLink(c.Connection); err != nil {
		return err
	}
	for _, s := range secretNames[:2] {
		if !slices.Contains(c.Secrets, s) {
			return &connector.FieldError{Field: "secret " + s, Reason: "is missing: the connector uses no credentials but the connection's"}
		}
	}
	return nil
}

// client reaches for nothing yet.
func (l *link) client(secrets map[string][]byte) (*sqs.Client, error) {
	conf, err := queue.TLS("", map[string][]byte{"ca": secrets["ca"]})
	if secrets["ca"] == nil {
		conf, err = queue.TLS("", nil)
	}
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return queue.Dial(ctx, network, address, l.local)
		},
		TLSClientConfig: conf, TLSHandshakeTimeout: queue.DialTimeout, MaxIdleConnsPerHost: 128, IdleConnTimeout: time.Minute,
		ForceAttemptHTTP2: true,
	}
	o := sqs.Options{
		Region: l.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{
				AccessKeyID: string(secrets["accessKeyId"]), SecretAccessKey: string(secrets["secretAccessKey"]),
				SessionToken: string(secrets["sessionToken"]),
			}, nil
		}),
		HTTPClient: &http.Client{
			Transport: transport, Timeout: maxWait + requestWithin,
			// A redirect would lead where nobody looked.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMaxAttempts: 3,
	}
	if l.Endpoint != "" {
		o.BaseEndpoint = aws.String(l.Endpoint)
	}
	return sqs.New(o), nil
}
