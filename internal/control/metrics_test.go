package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
)

// openMetrics is what a Prometheus server asks for.
const openMetrics = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5"

// scraped asks the door without a network, and gives the answer's type and text.
func (r *rig) scraped(key, accept string) (mediaType, text string) {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://node/v1/metrics", nil)
	req.Header.Set("Authorization", "Bearer "+key)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		r.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Header().Get("Content-Type"), w.Body.String()
}

// samplesOf reads a scrape as Prometheus does. Keys are a name and its labels.
func samplesOf(t *testing.T, text string) map[string]float64 {
	t.Helper()
	d := &expfmt.SampleDecoder{Dec: expfmt.NewDecoder(strings.NewReader(text), expfmt.NewFormat(expfmt.TypeTextPlain)), Opts: &expfmt.DecodeOptions{}}
	out := map[string]float64{}
	for {
		var v model.Vector
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range v {
			out[s.Metric.String()] = float64(s.Value)
		}
	}
}

// busy has two functions of two namespaces with something to tell.
func busy(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	status := api.Status{Version: "v1.2", Go: "go1", Functions: 2, InFlight: 4, Warnings: []string{"a", "b"}}
	r.handler.cfg.Status = func(context.Context) api.Status { return status }
	elsewhere := delivery.Key{Namespace: "other", Function: "bill", Trigger: "due"}
	r.events.status = map[delivery.Key]delivery.Status{
		paid: {
			Key: paid, Paused: true, Waiting: 7, UnderWay: 2, Retrying: 3, Dead: delivery.Count{Total: 5},
			LastError: delivery.LastError{Code: "function_crashed", Detail: "hunter2"},
		},
		async:     {Key: async, Waiting: 1},
		elsewhere: {Key: elsewhere},
	}
	r.events.sources = map[delivery.Key]SourceHealth{
		paid:      {State: "failing", Reason: "hunter2", Lag: 9},
		elsewhere: {State: "made up", Lag: -1},
	}
	return r
}

func TestMetricsTellWhatTriggersListTells(t *testing.T) {
	t.Parallel()
	r := busy(t)
	mediaType, text := r.scraped(adminSecret, "")
	if !strings.HasPrefix(mediaType, "text/plain; version=0.0.4") {
		t.Error(mediaType)
	}
	if strings.Contains(text, "hunter2") || strings.Contains(text, "made up") {
		t.Error("text that is no name of a thing deployed is in the metrics")
	}
	got := map[string]float64{}
	for k, v := range samplesOf(t, text) {
		if strings.HasPrefix(k, "casemate_") {
			got[k] = v
		}
	}
	want := map[string]float64{
		`casemate_corruption_total`: 3, `casemate_warnings`: 2, `casemate_invocations_in_flight`: 4, `casemate_functions`: 2,
		`casemate_build_info{goversion="go1", version="v1.2"}`: 1,
	}
	for of, v := range map[string][5]float64{
		`{function="hello", namespace="default", trigger="paid"}`: {7, 2, 3, 5, 1},
		`{function="hello", namespace="default", trigger="-"}`:    {1, 0, 0, 0, 0},
		`{function="bill", namespace="other", trigger="due"}`:     {},
	} {
		for i, name := range []string{"events_waiting", "events_underway", "events_retrying", "dead_letters_total", "trigger_paused"} {
			want["casemate_"+name+of] = v[i]
		}
	}
	for _, state := range []string{"starting", "running", "failing", "alert"} {
		want[`casemate_source_state{function="hello", namespace="default", state="`+state+`", trigger="paid"}`] = one(state == "failing")
		want[`casemate_source_state{function="bill", namespace="other", state="`+state+`", trigger="due"}`] = 0
	}
	want[`casemate_source_lag{function="hello", namespace="default", trigger="paid"}`] = 9
	if !maps.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", shown(got), shown(want))
	}
}

func shown(m map[string]float64) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s %v\n", k, m[k])
	}
	return b.String()
}

func TestMetricsFollowTheRulesOfNames(t *testing.T) {
	t.Parallel()
	_, text := busy(t).scraped(adminSecret, "")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("%s is not there", name)
		}
	}
}

func TestMetricsAsOpenMetrics(t *testing.T) {
	t.Parallel()
	mediaType, text := busy(t).scraped(adminSecret, openMetrics)
	if !strings.HasPrefix(mediaType, "application/openmetrics-text; version=1.0.0") || !strings.HasSuffix(text, "# EOF\n") ||
		!strings.Contains(text, "# TYPE casemate_corruption counter\n") || !strings.Contains(text, "\ncasemate_corruption_total 3.0\n") {
		t.Errorf("%s\n%s", mediaType, text)
	}
}

// TestMetricsShowTheTriggersThatTheKeyMayRead also after somebody else was shown all.
func TestMetricsShowTheTriggersThatTheKeyMayRead(t *testing.T) {
	t.Parallel()
	r := busy(t)
	r.handler.cfg.Clock = func() time.Time { return time.Unix(1000, 0) }
	for _, c := range []struct {
		key         string
		hello, bill int
	}{{adminSecret, 10 + 5, 9}, {"read-one-key", 10 + 5, 0}, {"wrong-ns-key", 0, 9}, {"wrong-fn-key", 0, 0}, {"deploy-fn-key", 0, 0}} {
		_, text := r.scraped(c.key, "")
		hello, bill := strings.Count(text, `function="hello"`), strings.Count(text, `function="bill"`)
		if hello != c.hello || bill != c.bill || !strings.Contains(text, "\ncasemate_warnings 2\n") {
			t.Errorf("%s sees %d series of hello and %d of bill:\n%s", c.key, hello, bill, text)
		}
	}
}

func TestManyScrapesAskTriggersOnce(t *testing.T) {
	t.Parallel()
	r := busy(t)
	now := time.Unix(1000, 0)
	r.handler.cfg.Clock = func() time.Time { return now }
	waiting := func(n int64, after time.Duration) string {
		r.events.status[async] = delivery.Status{Key: async, Waiting: n}
		now = now.Add(after)
		_, text := r.scraped(adminSecret, "")
		_, rest, _ := strings.Cut(text, `casemate_events_waiting{function="hello",namespace="default",trigger="-"} `)
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	for _, step := range []struct {
		n     int64
		after time.Duration
		want  string
	}{{1, 0, "1"}, {2, countsFresh - 1, "1"}, {3, 1, "3"}, {4, -time.Hour, "4"}} { // a clock that was set back ends it too
		if got := waiting(step.n, step.after); got != step.want {
			t.Errorf("%+v: %q wait", step, got)
		}
	}
}

// TestMetricsAreThereWithoutTheBus and tell of triggers again as soon as it answers.
func TestMetricsAreThereWithoutTheBus(t *testing.T) {
	t.Parallel()
	r := busy(t)
	r.handler.cfg.Clock = func() time.Time { return time.Unix(1000, 0) }
	r.events.fail(&plantedError{})
	_, text := r.scraped(adminSecret, "")
	if strings.Contains(text, "casemate_events_waiting") || !strings.Contains(text, "\ncasemate_corruption_total 3\n") || strings.Contains(text, "planted") {
		t.Error(text)
	}
	if log := r.log.String(); !strings.Contains(log, planted) || !strings.Contains(log, `"triggers":3`) {
		t.Error("the log does not say that three triggers were left out")
	}
	r.events.fail(nil)
	if _, text = r.scraped(adminSecret, ""); !strings.Contains(text, "casemate_events_waiting{") {
		t.Error("that they could not be read is remembered")
	}
	r.handler.cfg.Events = nil
	if _, text = r.scraped(adminSecret, ""); strings.Contains(text, "casemate_events_waiting{") || !strings.Contains(text, "\ncasemate_functions 2\n") {
		t.Errorf("on a node without events:\n%s", text)
	}
}

func TestMetricsThatCannotBeGatheredAreAProblem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.handler.cfg.Status = func(context.Context) api.Status { return api.Status{Version: "\xff"} }
	resp, body := r.raw("GET", "/v1/metrics", adminSecret, "", "")
	if resp.StatusCode != http.StatusInternalServerError || resp.Header.Get("Content-Type") != problem.MediaType || strings.Contains(body, "UTF") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if !strings.Contains(r.log.String(), "UTF-8") {
		t.Error("the log does not say why")
	}
}
