package control

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

// This file shows the node's measures in the formats that Prometheus reads. No label is
// an event's id or anything else that a caller may make up: namespace, function and
// trigger are names of what is deployed. A function has at most function.MaxTriggers
// triggers, and its asynchronous invocations as one more; each of these has at most ten
// series. What is not of a trigger is some fifty series.

const (
	metricsMedia     = "text/plain"
	openMetricsMedia = "application/openmetrics-text"
	// sweepTime is how long asking all triggers may take. Those that were not reached are
	// left out, so that the rest is there while the bus does not answer.
	sweepTime = 5 * time.Second
)

// metrics is what all scrapes share.
type metrics struct {
	runtime, process                                prometheus.Collector
	corruption, warnings, inFlight, functions, info *prometheus.Desc
	waiting, underWay, retrying, dead, paused       *prometheus.Desc
	sourceState, sourceLag                          *prometheus.Desc

	mu       sync.Mutex // held while triggers are asked, so that many scrapes ask once
	at       time.Time
	measured []measure
}

// measure is how one trigger was doing.
type measure struct {
	status delivery.Status
	source *SourceHealth // nil when it has none
}

func newMetrics() *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("casemate_"+name, help, labels, nil)
	}
	ofTrigger := func(name, help string, more ...string) *prometheus.Desc {
		return desc(name, help, append([]string{"namespace", "function", "trigger"}, more...)...)
	}
	return &metrics{
		runtime: collectors.NewGoCollector(),
		process: collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),

		corruption: desc("corruption_total", "Places in what the node keeps that were found damaged since it started."),
		warnings:   desc("warnings", "Warnings that stand, as the node's status lists them."),
		inFlight:   desc("invocations_in_flight", "Invocations that run now."),
		functions:  desc("functions", "Functions that are deployed."),
		info:       desc("build_info", "Always 1; the labels say what runs.", "version", "goversion"),

		waiting:     ofTrigger("events_waiting", "Events that no invocation has begun."),
		underWay:    ofTrigger("events_underway", "Invocations for events that run now."),
		retrying:    ofTrigger("events_retrying", "Events that wait for another attempt, or behind one that does."),
		dead:        ofTrigger("dead_letters_total", "Events given up since the node started."),
		paused:      ofTrigger("trigger_paused", "Whether deliveries are paused, by an operator or by the version."),
		sourceState: ofTrigger("source_state", "1 for the state that the trigger's source is in, 0 for the others.", "state"),
		sourceLag:   ofTrigger("source_lag", "How far the source is behind, in the unit that its kind documents; absent when not known."),
	}
}

func (h *Handler) registerMetrics() {
	responses := described("200", metricsMedia, "Metrics")
	responses["200"].Content[openMetricsMedia] = &huma.MediaType{Schema: &huma.Schema{}}
	register(h, huma.Operation{
		OperationID: "getMetrics", Method: http.MethodGet, Path: "/v1/metrics", Tags: []string{"node"},
		Summary:     "Measures of the node, and of the triggers that the key may read",
		Description: "In Prometheus's text format, or as OpenMetrics for whoever accepts that. What is said of triggers may be two seconds old.",
		Responses:   responses,
	}, operator[nothing], func(ctx context.Context, x *exchange, _ *nothing) (*logOutput, error) {
		// The registry serves this one scrape: what it shows depends on who asks.
		r := prometheus.NewRegistry()
		for _, c := range []prometheus.Collector{h.metrics.runtime, h.metrics.process, &scrape{
			metrics: h.metrics, status: h.cfg.Status(ctx), corruptions: h.cfg.Corruptions(), triggers: h.measure(ctx), who: x.who,
		}} {
			if err := r.Register(c); err != nil {
				return nil, problem.From(err)
			}
		}
		families, err := r.Gather() // here, since promhttp would answer with the error's text
		if err != nil {
			return nil, problem.From(err)
		}
		gathered := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
		return &logOutput{func(huma.Context) {
			promhttp.HandlerFor(gathered, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(x, x.request)
		}}, nil
	})
}

// measure asks all triggers how they are doing, or remembers it for a moment.
func (h *Handler) measure(ctx context.Context) []measure {
	on, err := h.onEvents()
	if err != nil {
		return nil
	}
	m := h.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	now := h.cfg.Clock()
	if age := now.Sub(m.at); !m.at.IsZero() && age >= 0 && age < countsFresh {
		return m.measured
	}
	sweep, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	keys := on.Deliveries.Keys()
	all := make([]measure, 0, len(keys))
	unread := 0
	var cause error
	for i, k := range keys {
		if sweep.Err() != nil {
			unread, cause = unread+len(keys)-i, context.Cause(sweep)
			break
		}
		st, err := on.Deliveries.Status(sweep, k)
		if problem.HasCode(err, problem.NotFound) { // it went in between
			continue
		}
		if err != nil {
			unread, cause = unread+1, err
			continue
		}
		found := measure{status: st}
		if s, ok := on.Source(k); ok {
			found.source = &s
		}
		all = append(all, found)
	}
	if unread > 0 {
		if ctx.Err() == nil {
			h.cfg.Logger.WarnContext(ctx, "the state of some triggers cannot be read, and no metrics tell of them",
				slog.Int("triggers", unread), slog.Any("cause", cause))
		}
		return all
	}
	m.at, m.measured = now, all
	return all
}

// scrape is what one caller gets to see.
type scrape struct {
	*metrics
	status      api.Status
	corruptions int64
	triggers    []measure // read only: others may see them at the same time
	who         identity.Principal
}

// Describe lists everything that Collect may bring.
func (s *scrape) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.corruption, s.warnings, s.inFlight, s.functions, s.info, s.waiting, s.underWay, s.retrying, s.dead, s.paused, s.sourceState, s.sourceLag,
	} {
		ch <- d
	}
}

// Collect leaves out the triggers of functions that the caller may not read.
func (s *scrape) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(s.corruption, s.corruptions)
	gauge(s.warnings, float64(len(s.status.Warnings)))
	gauge(s.inFlight, float64(s.status.InFlight))
	gauge(s.functions, float64(s.status.Functions))
	gauge(s.info, 1, s.status.Version, s.status.Go)
	for i := range s.triggers {
		st, k := &s.triggers[i].status, s.triggers[i].status.Key
		if !s.who.May(identity.Read, function.Ref{Namespace: k.Namespace, Name: k.Function}) {
			continue
		}
		trigger := k.Trigger
		if trigger == "" {
			trigger = api.AsyncTrigger
		}
		gauge(s.waiting, float64(st.Waiting), k.Namespace, k.Function, trigger)
		gauge(s.underWay, float64(st.UnderWay), k.Namespace, k.Function, trigger)
		gauge(s.retrying, float64(st.Retrying), k.Namespace, k.Function, trigger)
		counter(s.dead, st.Dead.Total, k.Namespace, k.Function, trigger)
		gauge(s.paused, one(st.Paused), k.Namespace, k.Function, trigger)
		if source := s.triggers[i].source; source != nil {
			// A source made by somebody else must not bring states of its own.
			for _, state := range [...]string{sourceStarting, sourceRunning, sourceFailing, sourceAlert} {
				gauge(s.sourceState, one(source.State == state), k.Namespace, k.Function, trigger, state)
			}
			if source.Lag >= 0 {
				gauge(s.sourceLag, float64(source.Lag), k.Namespace, k.Function, trigger)
			}
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// States of a source that is well; see sourceFailing for the others.
const (
	sourceStarting = "starting"
	sourceRunning  = "running"
)
