package node

import (
	"context"
	"errors"
	randv2 "math/rand/v2"

	"github.com/casemate-dev/casemate/internal/control"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func (n *node) buildInvoke(context.Context) (err error) {
	capacity := n.opts.Capacity
	if capacity == 0 {
		capacity = invoke.DefaultCapacity
	}
	if n.admission, err = invoke.NewAdmission(capacity); err != nil {
		return err
	}
	n.invoker, err = invoke.New(invoke.Config{
		Versions: n.registry, Runner: n.runner, Recorder: n.recorder, Admission: n.admission,
		Clock: n.clock, NewID: n.ids.next, Roll: randv2.IntN, Logger: n.log,
	})
	return err
}

func (n *node) buildGateway(context.Context) (err error) {
	n.gateway, err = gateway.New(gateway.Config{
		Invoker: n.invoker, Keys: n.keys, Logger: n.log.With("door", "gateway"), Clock: n.clock, NewID: n.ids.next,
		Lambda: &gateway.Lambda{Keys: n.keys, Functions: lambdaFunctions{n.registry}},
		Hooks:  hookDoor{n.hooks}, Topics: eventDoor{n.intake}, Values: values{n.values},
		Async: &gateway.Async{Versions: n.registry, Queue: laterDoor{eventDoor{n.intake}, n}, Outcomes: outcomes{n.outcomes}},
	})
	if err != nil {
		return err
	}
	n.registry.Watch(func() {
		if err := n.takeOver(); err != nil {
			// The registry checked the routes before it committed them, so this is a
			// defect of ours; the table that served until now goes on serving.
			n.log.Error("routes not taken over", "error", err)
		}
	})
	return n.takeOver()
}

func (n *node) buildControl(context.Context) (err error) {
	n.control, err = control.New(control.Config{
		Registry: n.registry, Invoker: n.invoker, Keys: n.keys, Recorder: n.recorder,
		Status: n.status, Posture: n.walls, Reserve: n.reserve, Prepare: n.prepare, Clock: n.clock, Logger: n.log.With("door", "control"), NewID: n.ids.next,
		Events: n.operations(n.deads), CheckTriggers: n.sources.check, Corruptions: n.bus.Damages,
	})
	return err
}

// prepare makes a version ready before an alias may point at it, so that code
// which cannot run is refused when it is deployed, not when it is called.
func (n *node) prepare(ctx context.Context, v *function.Version) error {
	return n.invoker.Explain(n.runner.Prepare(ctx, v), v)
}

// reserve reports whether the places that these versions reserve can be had.
func (n *node) reserve(vs []*function.Version) error {
	wanted := map[function.Ref]int{}
	for _, v := range vs {
		wanted[v.Ref] = v.Config.Limits.Reserved
	}
	return n.admission.CheckReserve(wanted)
}

// takeOver brings routes, reservations and sandboxes in line with the registry.
func (n *node) takeOver() error {
	n.follow.Lock()
	defer n.follow.Unlock()
	reserved := map[function.Ref]int{}
	served := map[function.Ref]function.Digest{}
	for _, f := range n.registry.Functions("") {
		if f.Live != nil {
			reserved[f.Ref] = f.Live.Config.Limits.Reserved
			served[f.Ref] = f.Live.ID
		}
	}
	var routes []gateway.Route
	for _, r := range n.registry.Routes() {
		routes = append(routes, gateway.Route{Ref: r.Ref, Trigger: r.Trigger})
	}
	for _, ref := range n.admission.Reserve(reserved) {
		n.log.Warn("reservation not kept: the node has no room for it", "function", ref.String())
	}
	err := n.gateway.SetRoutes(routes)
	if n.sources != nil {
		err = errors.Join(err, n.followTriggers(context.Background()))
	}
	// A version that live left stays loaded, since a rollback may be near; one of a
	// function that is gone has nobody left to call it.
	for ref, id := range n.served {
		if _, there := served[ref]; !there {
			n.runner.Retire(ref.Namespace, id)
		}
	}
	n.served = served
	return err
}
