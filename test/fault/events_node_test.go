package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/fault/history"
	"github.com/casemate-dev/casemate/test/harness"
)

// These histories are of the real binary: events are published to a topic and handed over
// by asynchronous calls, functions run in their sandboxes, and what became of an event is
// read from the receipts. The node and single sandbox processes are killed. An event that
// a killed node had in hand comes again after half a minute, so several nodes run at once.

const (
	everydayNodes = 2
	nodeWindow    = 35 * time.Second // AckWait of package delivery, and some
	nodePatience  = 3 * time.Minute
)

func TestEventsOfANodeSurviveKills(t *testing.T) {
	if testing.Short() {
		t.Skip("kills take their time; make test and make fault run them")
	}
	t.Parallel()
	nodes := number(t, "CASEMATE_NODES", max(everydayNodes, number(t, "CASEMATE_KILLS", 0)/5))
	seed := seedOf(t)
	t.Logf("seed %d, %d nodes", seed, nodes)
	var mu sync.Mutex
	var sum history.Verdict
	sandboxes := 0
	next := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range next {
				v, killed := nodeHistory(t, seed+uint64(i))
				mu.Lock()
				sum.Lives += v.Lives
				sum.Kills += v.Kills
				sum.Acked += v.Acked
				sum.Delivered += v.Delivered
				sum.Again += v.Again
				sandboxes += killed
				mu.Unlock()
			}
		})
	}
	for i := range nodes {
		if t.Failed() {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	t.Logf("%d lives of %d nodes, %d of them killed, and %d sandbox processes; %d events acknowledged, %d done, %d done again for a reason",
		sum.Lives, nodes, sum.Kills, sandboxes, sum.Acked, sum.Delivered, sum.Again)
	if sum.Acked < leastLoad*nodes || sum.Kills < nodes {
		t.Error("there was no load, or nothing was killed")
	}
}

// nodeRun is a history of a real node.
type nodeRun struct {
	t     *testing.T
	rnd   *rand.Rand
	file  string
	life  int
	next  map[string]int    // by door and key: number of the event to be sent
	ids   map[string]string // of events that only the node names: what they are called here
	acked int
	mu    sync.Mutex
}

func nodeHistory(t *testing.T, seed uint64) (history.Verdict, int) {
	h := harness.NewHome(t)
	r := &nodeRun{t: t, rnd: rand.New(rand.NewPCG(seed, 3)), file: filepath.Join(h.Dir, "history"), next: map[string]int{}, ids: map[string]string{}}
	killed := 0
	lives := 2
	for r.life = 1; r.life <= lives; r.life++ {
		n, err := h.TryUp()
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			return history.Verdict{}, 0
		}
		if r.life == 1 && !r.deploy(n) {
			return history.Verdict{}, 0
		}
		ctx, cancel := context.WithCancel(t.Context())
		var senders sync.WaitGroup
		for _, k := range []string{"a", "b"} {
			senders.Go(func() { r.publish(ctx, n, doorTopic, k) })
		}
		senders.Go(func() { r.async(ctx, n) })
		if r.life == lives {
			r.load()
		}
		pause(time.Duration(100+r.rnd.IntN(300)) * time.Millisecond)
		if r.rnd.IntN(2) == 0 {
			killed += r.killSandbox(n)
			pause(time.Duration(100+r.rnd.IntN(300)) * time.Millisecond)
		}
		n.Kill()
		cancel()
		senders.Wait()
		r.write(history.Line{What: history.Killed})
	}
	n, err := h.TryUp()
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return history.Verdict{}, 0
	}
	v := r.judge(n)
	if len(v.Faults) > 0 {
		t.Errorf("seed %d: %s\n%s", seed, strings.Join(v.Faults, "\n"), n.Output())
	}
	n.Stop()
	return v, killed
}

// leastLoad is how many events of a node must have been acknowledged, lest nothing is proved.
const leastLoad = 10

// load waits until the node has had its load, however slow the machine.
func (r *nodeRun) load() {
	for began := time.Now(); time.Since(began) < harness.Timeout; pause(5 * time.Millisecond) {
		r.mu.Lock()
		acked := r.acked
		r.mu.Unlock()
		if acked >= leastLoad {
			return
		}
	}
}

func (r *nodeRun) write(l history.Line) {
	if l.What == history.Acked {
		r.mu.Lock()
		r.acked++
		r.mu.Unlock()
	}
	w, err := history.Append(r.file, r.life)
	if err != nil {
		r.t.Error(err)
		return
	}
	w.Write(l)
	if err := w.Close(); err != nil {
		r.t.Error(err)
	}
}

// deploy makes a function that is subscribed to the topic in order, and one for
// asynchronous calls.
func (r *nodeRun) deploy(n *harness.Node) bool {
	_, err := n.Deploy(r.t.Context(), map[string]harness.Guest{"app": {Body: "ok"}, "later": {Body: "ok"}}, func(s *api.FunctionSpec) {
		if s.Name == "app" {
			s.Config.Triggers = []api.Trigger{{
				Name: "news", Kind: "topic", Settings: json.RawMessage(`{"topic":"news"}`), NoSchema: "they are numbers",
				Delivery: api.Delivery{Ordered: true, Attempts: 20, BackoffMillis: 50, BackoffMostMillis: 500},
			}}
		}
	})
	if err != nil {
		r.t.Errorf("%v\n%s", err, n.Output())
	}
	return err == nil
}

// publish sends events of a key, each until it is acknowledged, and ends with the node.
func (r *nodeRun) publish(ctx context.Context, n *harness.Node, door, key string) {
	for ctx.Err() == nil {
		r.mu.Lock()
		number := max(r.next[door+key], 1)
		r.mu.Unlock()
		line := history.Line{What: history.Sent, Door: door, Key: key, N: number}
		r.write(line)
		out, err := n.Client.Publish(ctx, "default", "news", api.Publish{Events: []api.EventIn{{
			ID: line.ID(), Type: "test.number", Key: key, DataContentType: "text/plain", Data: body(line.ID()),
		}}})
		if err != nil {
			r.refused(err)
			return // the node was killed
		}
		line.What, line.Sequence, line.Duplicate = history.Acked, out[0].Sequence, out[0].Duplicate
		r.write(line)
		r.mu.Lock()
		r.next[door+key] = number + 1
		r.mu.Unlock()
	}
}

// refused complains when a node that answers says no.
func (r *nodeRun) refused(err error) {
	var no *api.Error
	if errors.As(err, &no) {
		r.t.Errorf("an event was refused: %v", err)
	}
}

// async makes asynchronous calls. The node names their events, so one that was not
// acknowledged is not sent again.
func (r *nodeRun) async(ctx context.Context, n *harness.Node) {
	client := n.HTTP()
	k, err := n.Client.CreateKey(ctx, api.CreateKey{Name: "test", Scopes: []string{"invoke:*/*"}})
	if err != nil {
		return // the node was killed
	}
	for ctx.Err() == nil {
		r.mu.Lock()
		r.next[doorAsync]++
		line := history.Line{What: history.Sent, Door: doorAsync, Key: "f", N: r.next[doorAsync]}
		r.mu.Unlock()
		r.write(line)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.Gateway+"/later", strings.NewReader("x"))
		if err != nil {
			r.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+k.Secret)
		req.Header.Set("Prefer", "respond-async")
		resp, err := client.Do(req)
		if err != nil {
			return
		}
		var answer struct {
			ID string `json:"id"`
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted || err == nil && answer.ID == "" {
			r.t.Errorf("an asynchronous call was answered %d with %+v", resp.StatusCode, answer)
			return
		}
		if err != nil {
			return
		}
		r.mu.Lock()
		r.ids[answer.ID] = line.ID()
		r.mu.Unlock()
		line.What = history.Acked
		r.write(line)
	}
}

// killSandbox kills one of the node's processes that is no node and no broker.
func (r *nodeRun) killSandbox(n *harness.Node) int {
	pids := slices.DeleteFunc(harness.Tree(r.t, n.PID()), func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return pid == n.PID() || err != nil || !strings.Contains(string(line), "sandbox")
	})
	if len(pids) == 0 {
		return 0
	}
	if syscall.Kill(pids[r.rnd.IntN(len(pids))], syscall.SIGKILL) != nil {
		return 0 // it has just ended
	}
	return 1
}

// judge waits until a node has nothing left to do, and reads what its receipts and dead
// letters tell.
func (r *nodeRun) judge(n *harness.Node) history.Verdict {
	lines, err := history.Read(r.file)
	if err != nil {
		r.t.Error(err)
		return history.Verdict{}
	}
	acked := map[string]bool{}
	for i := range lines {
		if lines[i].What == history.Acked {
			acked[lines[i].ID()] = true
		}
	}
	var told []history.Line
	deadline := time.Now().Add(nodePatience)
	for {
		if told, err = r.receipts(n, lines); err != nil {
			r.t.Errorf("reading receipts: %v", err)
			return history.Verdict{}
		}
		done := map[string]bool{}
		for i := range told {
			if told[i].What == history.Dead || told[i].OK {
				done[told[i].ID()] = true
			}
		}
		left := 0
		for id := range acked {
			if !done[id] {
				left++
			}
		}
		if left == 0 || time.Now().After(deadline) {
			break // what is left is lost: the judge says so
		}
		pause(time.Second)
	}
	lines = append(lines, told...)
	slices.SortStableFunc(lines, func(a, b history.Line) int { return a.At.Compare(b.At) })
	st, err := n.Client.Status(r.t.Context())
	if err != nil {
		r.t.Error(err)
		return history.Verdict{}
	}
	for _, w := range st.Warnings {
		if strings.Contains(w, "digest") || strings.Contains(w, "damaged") || strings.Contains(w, "missing") {
			lines = append(lines, history.Line{Life: r.life, What: history.Told, Text: w})
		}
	}
	return history.Judge(lines, history.Rules{Ordered: map[string]bool{doorTopic: true}, Window: nodeWindow, Redelivery: nodeWindow})
}

// receipts gives the beginnings and ends of all invocations, and dead letters.
func (r *nodeRun) receipts(n *harness.Node, lines []history.Line) ([]history.Line, error) {
	var out []history.Line
	life := func(at time.Time) int {
		l := 1
		for i := range lines {
			if lines[i].What == history.Killed && lines[i].At.Before(at) {
				l = lines[i].Life + 1
			}
		}
		return l
	}
	named := func(id string) (history.Line, bool) {
		r.mu.Lock()
		if known, ok := r.ids[id]; ok {
			id = known
		}
		r.mu.Unlock()
		p := strings.Split(id, ".")
		if len(p) != 3 {
			return history.Line{}, false // of a call whose answer nobody got
		}
		number, err := strconv.Atoi(p[2])
		return history.Line{Door: p[0], Key: p[1], N: number}, err == nil
	}
	for rec, err := range n.Client.Logs(r.t.Context(), "default", api.LogQuery{Tail: 10_000}) {
		if err != nil {
			return nil, err
		}
		if rec.Receipt == nil {
			continue
		}
		l, ok := named(rec.Receipt.Event)
		if !ok {
			continue
		}
		l.Attempt, l.At = rec.Receipt.Attempt, rec.Receipt.Start
		l.Life, l.What = life(l.At), history.Begin
		out = append(out, l)
		l.What, l.At = history.End, l.At.Add(time.Duration(rec.Receipt.WallMillis*float64(time.Millisecond)))
		l.OK = rec.Receipt.Status == http.StatusOK
		out = append(out, l)
	}
	return out, nil
}
