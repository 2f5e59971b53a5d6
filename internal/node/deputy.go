package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/source/bucket"
	"github.com/casemate-dev/casemate/internal/source/keyvalue"
	"github.com/casemate-dev/casemate/internal/state"
)

// This file says what somebody must be allowed who puts a trigger in force. The node
// carries triggers out with its own hands, so what a trigger has it do, the deployer must
// be allowed to do himself.

// storeReader is a kind that tells of what is in the node's own stores.
type storeReader interface {
	// Reads gives the bucket of the function's namespace that a trigger is told of, ""
	// when it is told of none.
	Reads(t *function.Trigger) (bucket string, err error)
}

// need is one thing that a trigger has the node do.
type need struct {
	at         string           // the field that says so
	does       string           // for people
	scopes     []identity.Scope // any of them is enough
	connection string           // or the use of this connection
}

// needs lists what a trigger that was found valid has the node do.
//
//   - A function is told of outcomes: invoke: of it. deploy: of it will do, too: who
//     decides what a function does needs no trigger to have it do something.
//   - Events are published to a topic: publish: of it.
//   - A bucket is read, of objects or of keys: fetch: of it, or store:, which includes it.
//   - A topic is read: what the API asks of who wants to see the data of its events, which
//     is deploy: of all functions of the namespace, since a topic is nobody's own. To list
//     them takes read: there, too; it is not asked for here, as who may deploy all that
//     subscribe can learn all that they are told.
//   - A connection is used, by the source or a destination: connect: of it.
func (s *sources) needs(namespace string, t *function.Trigger, at string) ([]need, error) {
	scope := func(a identity.Action, name string) identity.Scope {
		return identity.Scope{Action: a, Namespace: namespace, Function: name}
	}
	var all []need
	if t.Connection != "" {
		all = append(all, need{at: at + ".connection", connection: t.Connection})
	}
	if t.Kind == kindTopic {
		topic, err := topicOf(t)
		if err != nil {
			return nil, err
		}
		all = append(all, need{at: at + ".topic.topic", does: "reads the topic " + topic, scopes: []identity.Scope{scope(identity.Deploy, "*")}})
	}
	if reader, ok := s.kinds[t.Kind].(storeReader); ok {
		bucket, err := reader.Reads(t)
		if err != nil {
			return nil, err
		}
		if bucket != "" {
			all = append(all, need{at: at + "." + t.Kind + ".bucket", does: "reads the bucket " + bucket, scopes: []identity.Scope{scope(identity.FetchData, bucket)}})
		}
	}
	publishes := func(at, topic string) need {
		return need{at: at, does: "publishes to the topic " + topic, scopes: []identity.Scope{scope(identity.Publish, topic)}}
	}
	if t.Delivery.Reply != "" {
		all = append(all, publishes(at+".delivery.reply", t.Delivery.Reply))
	}
	destinations := func(field string, ds []function.Destination) {
		for i, d := range ds {
			here := fmt.Sprintf("%s.delivery.%s[%d].", at, field, i)
			if d.Function != "" {
				all = append(all, need{at: here + "function", does: "calls the function " + d.Function, scopes: []identity.Scope{scope(identity.Invoke, d.Function), scope(identity.Deploy, d.Function)}})
			}
			if d.Topic != "" {
				all = append(all, publishes(here+"topic", d.Topic))
			}
			if d.Webhook != "" {
				all = append(all, need{at: here + "webhook", connection: d.Webhook})
			}
		}
	}
	destinations("onSuccess", t.Delivery.OnSuccess)
	destinations("onFailure", t.Delivery.OnFailure)
	return all, nil
}

// mayDo refuses a trigger that has the node do what its deployer may not.
func (s *sources) mayDo(ctx context.Context, who identity.Principal, namespace string, t *function.Trigger, at string) *problem.Error {
	all, err := s.needs(namespace, t, at)
	if err != nil {
		return fieldProblem(err, at+"."+t.Kind)
	}
	for _, n := range all {
		if n.connection != "" {
			if p := s.mayConnect(ctx, who, namespace, n.connection, n.at); p != nil {
				return p
			}
			continue
		}
		if slices.ContainsFunc(n.scopes, func(sc identity.Scope) bool {
			return who.May(sc.Action, function.Ref{Namespace: sc.Namespace, Name: sc.Function})
		}) {
			continue
		}
		names := make([]string, len(n.scopes))
		for i, sc := range n.scopes {
			names[i] = sc.String()
		}
		return problem.New(problem.Forbidden, "the trigger %s, and the key has no scope %s", n.does, strings.Join(names, " or ")).At(n.at).
			Fix("What a trigger does, its deployer must be allowed to do: use a key with that scope, too, or change the trigger.")
	}
	return nil
}

// mayConnect refuses a connection that the deployer may not use, in the same words as one
// that is not there: who could tell them apart would learn the names of others'.
func (s *sources) mayConnect(ctx context.Context, who identity.Principal, namespace, name, at string) *problem.Error {
	missing := problem.New(problem.InvalidManifest, "there is no connection %.80q in the namespace %s that you may use", name, namespace).At(at).
		Fix("An administrator makes it with `casemate connection create`, and a key may use it with the scope connect:%s/%s.", namespace, name)
	if !function.ValidName(name) || !who.May(identity.Connect, function.Ref{Namespace: namespace, Name: name}) {
		return missing
	}
	if _, err := s.connections.Get(ctx, namespace, name); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return missing
		}
		return problem.From(err)
	}
	return nil
}

// Kinds that read the node's own stores say so.
var (
	_ storeReader = (*bucket.Kind)(nil)
	_ storeReader = (*keyvalue.Kind)(nil)
)
