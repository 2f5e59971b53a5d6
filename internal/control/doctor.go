package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/connection"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
)

type doctorInput struct {
	Quick bool `query:"quick" doc:"Leave out reading all stored events"`
}

// What the examination finds too little, too much or too old.
const (
	diskWarn       = 0.10 // free, of the whole
	diskFail       = 0.03
	diskWarnBytes  = 2 << 30
	diskFailBytes  = 256 << 20
	deadGrows      = 1.0 / 600 // per second: more than one in ten minutes
	oldEvent       = time.Hour
	progressEvery  = time.Second / 2
	damagedRemedy  = "Stop the node and look for the cause: a failing disk, or somebody who changed the data directory. Then restore it from a backup, or have the far sides send again what is missing."
	reachBusRemedy = "See the node's log; if it stays, restart the node."
)

func (h *Handler) registerDoctor() {
	element := h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.DoctorElement](), true, "DoctorElement")
	register(h, huma.Operation{
		OperationID: "examine", Method: http.MethodGet, Path: "/v1/doctor", Tags: []string{"node"},
		Summary:     "Have the node examine itself: one JSON object a line, progress among them",
		Description: "For administrators, since it reads everything that is stored and tells of every namespace. One examination runs at a time.",
		Responses:   map[string]*huma.Response{"200": {Description: "A stream", Content: map[string]*huma.MediaType{api.LogMediaType: {Schema: element}}}},
	}, administrator[doctorInput], func(_ context.Context, x *exchange, in *doctorInput) (*logOutput, error) {
		return &logOutput{func(huma.Context) {
			if !h.examining.TryLock() {
				h.refuse(x, problem.New(problem.Conflict, "the node is being examined already").Fix("Wait until that is done."))
				return
			}
			defer h.examining.Unlock()
			h.lines(x, func(ctx context.Context, write func(any) bool) error {
				now := h.cfg.Clock().UTC()
				e := &examination{h: h, ctx: ctx, write: write, last: now}
				if write(api.DoctorElement{Time: &now}) {
					e.run(in.Quick)
				}
				return nil
			})
		}}, nil
	})
}

// examination is one run. When the client has gone, all else it does is lost, so it ends.
type examination struct {
	h     *Handler
	ctx   context.Context
	write func(any) bool
	gone  bool
	last  time.Time // progress was told
}

func (e *examination) run(quick bool) {
	for _, part := range []func(){
		e.node, e.disk, e.bus, e.sources, e.triggers, e.connections,
		func() {
			if !quick {
				e.verify()
			}
		},
	} {
		if e.gone || e.ctx.Err() != nil {
			return
		}
		part()
	}
}

func (e *examination) say(name, state, remedy, format string, args ...any) {
	if !e.gone {
		e.gone = !e.write(api.DoctorElement{Check: &api.DoctorCheck{Name: name, State: state, Detail: fmt.Sprintf(format, args...), Remedy: remedy}})
	}
}

// failed reports a check that could not be made. The log says why.
func (e *examination) failed(name string, err error) {
	e.h.cfg.Logger.LogAttrs(e.ctx, slog.LevelError, "a check could not be made", slog.String("check", name), slog.Any("cause", err))
	e.say(name, api.CheckFail, "See the node's log for the cause.", "could not be checked")
}

func (e *examination) node() {
	s := e.h.cfg.Status(e.ctx)
	if s.Healthy {
		e.say("node", api.CheckOK, "", "%s, version %s, up %s", s.State, s.Version, (time.Duration(s.UptimeMS) * time.Millisecond).Round(time.Second))
	} else {
		e.say("node", api.CheckFail, "See the warnings below and the node's log.", "%s, and not healthy", s.State)
	}
	for _, w := range s.Warnings {
		e.say("warning", api.CheckWarn, "", "%s", w)
	}
	for _, u := range s.Sandbox.Unenforced {
		e.say("sandbox", api.CheckWarn, "`casemate posture` says what each defence is for.", "not enforced: %s", u)
	}
}

func (e *examination) disk() {
	on := e.h.cfg.Events
	if on == nil {
		return
	}
	free, size, err := on.Disk()
	if err != nil || size <= 0 {
		e.failed("disk", err)
		return
	}
	share := float64(free) / float64(size)
	state, remedy := api.CheckOK, ""
	const room = "Make room in the data directory's file system. When it is full, events are refused at their sources."
	switch {
	case share < diskFail || free < diskFailBytes:
		state, remedy = api.CheckFail, room
	case share < diskWarn || free < diskWarnBytes:
		state, remedy = api.CheckWarn, room
	}
	e.say("disk", state, remedy, "%.0f %% free: %.1f of %.1f GiB", 100*share, float64(free)/(1<<30), float64(size)/(1<<30))
}

func (e *examination) bus() {
	on := e.h.cfg.Events
	if on == nil {
		e.say("events", api.CheckOK, "", "this node keeps none")
		return
	}
	if err := on.Check(e.ctx); err != nil {
		e.h.cfg.Logger.LogAttrs(e.ctx, slog.LevelError, "the bus is not sound", slog.Any("cause", err))
		e.say("bus", api.CheckFail, damagedRemedy+" "+reachBusRemedy, "what is stored was found damaged, or cannot be reached")
		return
	}
	e.say("bus", api.CheckOK, "", "it answers, and nothing damaged was met since the start")
}

func (e *examination) sources() {
	on := e.h.cfg.Events
	if on == nil {
		return
	}
	running := 0
	for _, k := range on.Deliveries.Keys() {
		s, ok := on.Source(k)
		switch {
		case !ok:
		case s.State == sourceFailing:
			e.say("source "+k.String(), api.CheckFail, "Look at the far side and at the connection's settings and credentials; it is tried again by itself.",
				"failing since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Reason)
		case s.State == sourceAlert:
			e.say("source "+k.String(), api.CheckWarn, "It works, but look at its far side before it does not.", "since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Reason)
		default:
			running++
		}
	}
	e.say("sources", api.CheckOK, "", "%d are well", running)
}

func (e *examination) triggers() {
	on := e.h.cfg.Events
	if on == nil {
		return
	}
	well := 0
	for _, k := range on.Deliveries.Keys() {
		if e.gone || e.ctx.Err() != nil {
			return
		}
		st, err := on.Deliveries.Status(e.ctx, k)
		if problem.HasCode(err, problem.NotFound) {
			continue
		}
		name := "trigger " + k.String()
		if err != nil {
			e.failed(name, err)
			continue
		}
		if !e.trigger(name, &k, &st) {
			well++
		}
	}
	e.say("triggers", api.CheckOK, "", "%d are well", well)
}

// trigger reports whether there was anything to say.
func (e *examination) trigger(name string, k *delivery.Key, st *delivery.Status) (said bool) {
	arg := k.Function
	if k.Trigger != "" {
		arg += "/" + k.Trigger
	}
	flag := ""
	if k.Namespace != function.DefaultNamespace {
		flag = " -n " + k.Namespace
	}
	warn := func(remedy, format string, args ...any) {
		said = true
		e.say(name, api.CheckWarn, remedy, format, args...)
	}
	if st.Dead.PerSecond > deadGrows {
		warn("`casemate dead-letters list "+arg+flag+"` says why.", "dead letters grow: %.1f a minute, %d since the start", 60*st.Dead.PerSecond, st.Dead.Total)
	}
	switch {
	case st.Paused && st.Waiting+int64(st.Retrying) > 0:
		warn("`casemate triggers resume "+arg+flag+"` goes on.", "paused, and %d events wait", st.Waiting+int64(st.Retrying))
	case st.Held:
		warn("See the function's receipts and its concurrency.", "turned away for now: %s", lastOf(st))
	case !st.Paused && st.OldestAge > oldEvent:
		warn("`casemate triggers list"+flag+"` shows its last error; perhaps its concurrency or rate is too low.", "the oldest event in hand is %s old", st.OldestAge.Round(time.Minute))
	}
	return said
}

func lastOf(st *delivery.Status) string {
	if st.LastError.Detail == "" {
		return "the function is throttled or cannot run"
	}
	return st.LastError.Detail
}

// connections reads each credential, and forgets it.
func (e *examination) connections() {
	on := e.h.cfg.Events
	if on == nil {
		return
	}
	var spaces []string
	for _, f := range e.h.cfg.Registry.Functions("") {
		if !slices.Contains(spaces, f.Namespace) {
			spaces = append(spaces, f.Namespace)
		}
	}
	well := 0
	for _, ns := range spaces {
		all, err := on.Connections.List(e.ctx, ns)
		if err != nil {
			e.failed("connections of "+ns, err)
			continue
		}
		for i := range all {
			bad := unreadable(&all[i])
			if len(bad) == 0 {
				well++
				continue
			}
			e.say("connection "+ns+"/"+all[i].Name, api.CheckFail, "Put each credential into its file, with mode 0600 and as the node's own user; `casemate connection show` names the files.",
				"cannot read its credentials %s", strings.Join(bad, ", "))
		}
	}
	e.say("connections", api.CheckOK, "", "the credentials of %d can be read", well)
}

func unreadable(n *connection.Connection) (bad []string) {
	for name := range n.Files {
		if _, err := n.Secret(name); err != nil {
			bad = append(bad, name)
		}
	}
	slices.Sort(bad)
	return bad
}

// verify reads everything that is stored.
func (e *examination) verify() {
	on := e.h.cfg.Events
	if on == nil {
		return
	}
	for _, s := range []struct {
		name   string
		stream Stream
	}{{"stored events", on.Events}, {"stored dead letters", on.Deads}} {
		ctx, cancel := context.WithCancel(e.ctx)
		v, err := s.stream.Verify(ctx, func(done, of uint64) {
			if now := e.h.cfg.Clock(); now.Sub(e.last) >= progressEvery || now.Before(e.last) {
				e.last = now
				if e.gone = e.gone || !e.write(api.DoctorElement{Progress: &api.DoctorProgress{Name: s.name, Done: done, Of: of}}); e.gone {
					cancel()
				}
			}
		})
		cancel()
		switch {
		case e.gone || e.ctx.Err() != nil:
			return
		case err != nil:
			e.failed(s.name, err)
		case v.Damaged:
			e.say(s.name, api.CheckFail, damagedRemedy, "damaged: %d are whole, %d are missing that were not purged; the node's warnings name what was met", v.Records, v.Missing)
		default:
			e.say(s.name, api.CheckOK, "", "all %d in %d channels are whole, and none is missing", v.Records, v.Channels)
		}
	}
}
