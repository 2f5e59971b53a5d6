package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/casemate-dev/casemate/connector"
	"github.com/casemate-dev/casemate/connector/queue"
)

// The pauses after a failure, and how often the lag is asked for.
const (
	firstPause = 200 * time.Millisecond
	mostPause  = 20 * time.Second
	lagEvery   = 30 * time.Second
)

func run(ctx context.Context) error { return serve(ctx, os.Stdin, os.Stdout) }

func serve(ctx context.Context, in io.Reader, out io.Writer) error {
	return connector.Serve(ctx, connector.Connector{
		Name: "sqs", Version: release(),
		Kinds: []connector.Kind{{Name: "sqs", Connection: true, Secrets: secretNames}},
		Check: check, Run: consume,
	}, in, out)
}

// consumer receives from one queue.
type consumer struct {
	*trigger
	client  *sqs.Client
	session *connector.Session
	url     string

	mu      sync.Mutex
	refused int
	lag     int64
}

func consume(ctx context.Context, start connector.Start, session *connector.Session) error {
	t, err := readTrigger(start.Settings)
	if err != nil {
		return err
	}
	l, err := readLink(start.Connection)
	if err != nil {
		return err
	}
	client, err := l.client(start.Secrets)
	if err != nil {
		return err
	}
	c := &consumer{trigger: t, client: client, session: session, lag: connector.LagUnknown}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range c.workers() {
		all.Go(func() { cancel(c.forever(ctx, c.once)) })
	}
	all.Go(func() { cancel(c.forever(ctx, c.measure)) })
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// workers are who receives. Where order counts there is one: messages of a group that came
// later would overtake one whose batch failed.
func (c *consumer) workers() int {
	if c.fifo() {
		return 1
	}
	return (c.Prefetch + batchMost - 1) / batchMost
}

// forever does something until ctx ends, with a pause after a failure, and fails only with
// what trying again does not mend.
func (c *consumer) forever(ctx context.Context, once func(context.Context) error) error {
	pause := firstPause
	for failed := false; ; failed = true {
		err := once(ctx)
		for err == nil && ctx.Err() == nil {
			if failed {
				failed, pause = false, firstPause
				if err = c.report(); err != nil {
					break
				}
			}
			err = once(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, connector.ErrClosed), errors.Is(err, connector.ErrProtocol), final(err):
			return err
		}
		if err := c.session.Health(connector.Health{State: connector.Failing, Reason: err.Error(), Lag: connector.LagUnknown}); err != nil {
			return err
		}
		if !rest(ctx, pause) {
			return nil
		}
		pause = min(2*pause, mostPause)
	}
}

// rest waits, and says whether ctx is still there.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// final says whether the far side's word stands until settings or credentials change.
func final(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{
		"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "AccessDenied", "AccessDeniedException",
		"InvalidAccessKeyId", "ExpiredToken", "ExpiredTokenException",
	}, api.ErrorCode())
}

// address finds the queue's address, once.
func (c *consumer) address(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.url != "" {
		return c.url, nil
	}
	if strings.Contains(c.Queue, "://") {
		c.url = c.Queue
		return c.url, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestWithin)
	defer cancel()
	out, err := c.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &c.Queue})
	if err != nil {
		return "", fmt.Errorf("finding queue %s: %w", c.Queue, err)
	}
	c.url = aws.ToString(out.QueueUrl)
	return c.url, nil
}

// once receives some messages and brings them to the node.
func (c *consumer) once(ctx context.Context) error {
	address, err := c.address(ctx)
	if err != nil {
		return err
	}
	out, err := c.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &address, MaxNumberOfMessages: int32(min(batchMost, c.Prefetch)),
		WaitTimeSeconds: int32(c.wait / time.Second), VisibilityTimeout: int32(c.visible / time.Second),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		MessageAttributeNames:       []string{"All"},
	})
	if err != nil {
		return fmt.Errorf("receiving from queue %s: %w", c.name(), err)
	}
	if len(out.Messages) == 0 {
		return nil
	}
	// A stop does not cut it short: the node answers, or ends this program.
	return c.bring(context.WithoutCancel(ctx), address, out.Messages)
}

// bring hands messages to the node and deletes those that it took. Others do not see them
// meanwhile.
func (c *consumer) bring(ctx context.Context, address string, messages []types.Message) error {
	events := make([]connector.Event, len(messages))
	for i := range messages {
		events[i] = c.event(&messages[i])
	}
	held, release := context.WithCancel(ctx)
	var holding sync.WaitGroup
	holding.Go(func() { c.hold(held, address, messages) })
	refusals, err := c.session.Emit(ctx, events)
	release()
	holding.Wait()
	if err != nil {
		return err
	}
	skip := map[int]bool{}
	for _, r := range refusals {
		skip[r.Index] = true
		fmt.Fprintf(os.Stderr, "message %s of %s was refused and stays in the queue: %s\n", aws.ToString(messages[r.Index].MessageId), c.name(), r.Reason)
	}
	if len(skip) > 0 {
		c.mu.Lock()
		c.refused += len(skip)
		c.mu.Unlock()
		if err := c.report(); err != nil {
			return err
		}
	}
	var entries []types.DeleteMessageBatchRequestEntry
	for i := range messages {
		if !skip[i] {
			entries = append(entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: messages[i].ReceiptHandle})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestWithin)
	defer cancel()
	out, err := c.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &address, Entries: entries})
	if err != nil {
		return fmt.Errorf("deleting from queue %s: %w", c.name(), err)
	}
	if len(out.Failed) > 0 {
		// They come again, with the same ids, and the node drops what it has.
		return fmt.Errorf("deleting from queue %s: %d of %d messages: %s", c.name(), len(out.Failed), len(entries), aws.ToString(out.Failed[0].Code))
	}
	return nil
}

// hold keeps messages from being given to others for as long as ctx lasts.
func (c *consumer) hold(ctx context.Context, address string, messages []types.Message) {
	for rest(ctx, c.visible/2) {
		entries := make([]types.ChangeMessageVisibilityBatchRequestEntry, len(messages))
		for i := range messages {
			entries[i] = types.ChangeMessageVisibilityBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: messages[i].ReceiptHandle, VisibilityTimeout: int32(c.visible / time.Second),
			}
		}
		// When it does not work they come twice, which the node bears. The next turn tries again.
		if _, err := c.client.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &address, Entries: entries}); err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "keeping messages of %s: %v\n", c.name(), err)
		}
	}
}

// event makes an event of a message. Its id is what SQS calls it, which stays the same
// when it is received again.
func (c *consumer) event(m *types.Message) connector.Event {
	system := m.Attributes
	r := queue.Raw{
		ID: aws.ToString(m.MessageId), Subject: c.name(), Data: []byte(aws.ToString(m.Body)), Key: system["MessageGroupId"],
		Detail: []queue.Entry{
			{Name: "queue.kind", Value: "sqs"},
			{Name: "queue.name", Value: c.name()},
			{Name: "queue.id", Value: aws.ToString(m.MessageId)},
			{Name: "sqs.receivecount", Value: system["ApproximateReceiveCount"]},
		},
	}
	if g := system["MessageGroupId"]; g != "" {
		r.Detail = append(r.Detail, queue.Entry{Name: "sqs.groupid", Value: g})
	}
	if n, err := strconv.ParseInt(system["SentTimestamp"], 10, 64); err == nil {
		r.Time = time.UnixMilli(n)
	}
	for _, k := range slices.Sorted(maps.Keys(system)) {
		r.Detail = append(r.Detail, queue.Entry{Name: "sqs.attribute." + k, Value: system[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(m.MessageAttributes)) {
		a := m.MessageAttributes[k]
		name, value := "header."+k, aws.ToString(a.StringValue)
		if a.StringValue == nil {
			name, value = name+".base64", base64.StdEncoding.EncodeToString(a.BinaryValue)
		}
		r.Detail = append(r.Detail, queue.Entry{Name: name, Value: value})
		if strings.EqualFold(k, "content-type") {
			r.ContentType = value
		}
	}
	return c.Event(r)
}

// measure asks how many messages wait, and rests.
func (c *consumer) measure(ctx context.Context) error {
	address, err := c.address(ctx)
	if err != nil {
		return err
	}
	one, cancel := context.WithTimeout(ctx, requestWithin)
	defer cancel()
	out, err := c.client.GetQueueAttributes(one, &sqs.GetQueueAttributesInput{
		QueueUrl:       &address,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages},
	})
	lag := int64(connector.LagUnknown)
	switch {
	case final(err): // an account may lack this right
	case err != nil:
		return fmt.Errorf("asking about queue %s: %w", c.name(), err)
	default:
		if n, err := strconv.ParseInt(out.Attributes[string(types.QueueAttributeNameApproximateNumberOfMessages)], 10, 64); err == nil {
			lag = n
		}
	}
	c.mu.Lock()
	c.lag = lag
	c.mu.Unlock()
	if err := c.report(); err != nil {
		return err
	}
	rest(ctx, lagEvery)
	return nil
}

// report tells how things are.
func (c *consumer) report() error {
	c.mu.Lock()
	h := connector.Health{State: connector.Running, Lag: c.lag}
	if c.refused > 0 {
		h.State, h.Reason = connector.Alert, fmt.Sprintf("%d messages were refused and stay in the queue: give it a dead-letter queue", c.refused)
	}
	c.mu.Unlock()
	return c.session.Health(h)
}
