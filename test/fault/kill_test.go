// Package fault kills a real node and looks for what was lost. It holds tests
// alone. CASEMATE_KILLS says how often to kill; `make fault` asks for 200, and the
// everyday run for a few. CASEMATE_SEED repeats the moments of an earlier run.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// everydayKills is how often the short form kills.
const everydayKills = 8

// ledger is what the node has acknowledged.
type ledger struct {
	mu       sync.Mutex
	receipts []string  // ids, in the order of their answers
	seen     int       // how many of them earlier rounds have verified
	since    time.Time // when this round began
	version  string    // the last deployment that was acknowledged
	pending  string    // artifact body of the deployment under way
	body     string    // of version
	keys     []string  // by id
}

// TestNothingAcknowledgedIsLostToKills kills the node at random moments, its
// start included, while functions are deployed and called, and then wants every
// acknowledged deployment, key and receipt back.
func TestNothingAcknowledgedIsLostToKills(t *testing.T) {
	if testing.Short() {
		t.Skip("kills take their time; make test and make fault run them")
	}
	kills := everydayKills
	if s := os.Getenv("CASEMATE_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("CASEMATE_KILLS: %v", err)
		}
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CASEMATE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CASEMATE_SEED: %v", err)
		}
		seed = n
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d, %d kills", seed, kills)

	h := harness.NewHome(t)
	l := &ledger{since: time.Now()}
	total, early := 0, 0
	deploys := 0
	for i := range kills {
		// One start in six is itself cut short.
		if i > 0 && rng.IntN(6) == 0 {
			h.KillDuringStart(time.Duration(rng.IntN(250)) * time.Millisecond)
			early++
		}
		n := h.Up()
		verify(t, n, l, i)
		ctx, cancel := context.WithCancel(t.Context())
		deployed := deploys
		var wg sync.WaitGroup
		if l.version == "" && !deployOne(ctx, t, n, l, "first") {
			t.Fatal("the first deployment failed on a node that nobody has killed yet")
		}
		key := n.InvokeKey()
		for range 3 {
			client := n.HTTP()
			wg.Go(func() { callLoop(ctx, t, n, client, l, key) })
		}
		wg.Go(func() {
			// After the first failure the node is gone, and what was under way then is
			// what may or may not have come through.
			for j := 0; deployOne(ctx, t, n, l, fmt.Sprintf("round %d deploy %d", i, j)); j++ {
				l.mu.Lock()
				deploys++
				l.mu.Unlock()
				if k, err := n.Client.CreateKey(ctx, api.CreateKey{Name: "kept", Scopes: []string{"read:*/*"}}); err == nil {
					l.mu.Lock()
					l.keys = append(l.keys, k.ID)
					l.mu.Unlock()
				}
			}
		})
		if i%2 == 1 { // every other kill comes when there is something to lose, however slow the machine
			harness.Eventually(t, "there is load", func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return deploys > deployed && len(l.receipts) > l.seen
			})
		}
		pause(20*time.Millisecond + time.Duration(rng.IntN(400))*time.Millisecond)
		n.Kill()
		cancel()
		wg.Wait()
		total++
	}
	n := h.Up()
	verify(t, n, l, kills)
	n.Stop()
	t.Logf("%d kills under work and %d during the start; %d receipts, %d deployments, %d keys: none lost", total, early, len(l.receipts), deploys, len(l.keys))
	// How many there are is the machine's; that a busy one does few proves nothing.
	if len(l.receipts) < kills/2 || deploys < kills/2 {
		t.Errorf("only %d receipts and %d deployments in %d rounds: there was no load", len(l.receipts), deploys, kills)
	}
}

// verify holds a freshly started node against the ledger.
func verify(t *testing.T, n *harness.Node, l *ledger, round int) {
	t.Helper()
	if l.version == "" {
		return
	}
	f, err := n.Client.Function(t.Context(), "default", "app")
	if err != nil || f.Live == nil {
		t.Fatalf("round %d: the function is gone: %+v, %v", round, f, err)
	}
	a, err := n.Call(t.Context(), n.HTTP(), n.InvokeKey(), "/app", "")
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("round %d: %+v, %v\n%s", round, a, err, n.Output())
	}
	// What was under way when the node was killed may have come through or not;
	// what was acknowledged must have.
	if f.Live.ID != l.version && a.Body != l.pending {
		t.Fatalf("round %d: live is %s (%q), acknowledged was %s (%q), under way was %q", round, f.Live.ID, a.Body, l.version, l.body, l.pending)
	}
	l.version, l.body = f.Live.ID, a.Body
	keys, err := n.Client.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, k := range keys {
		there[k.ID] = true
	}
	for _, id := range l.keys {
		if !there[id] {
			t.Fatalf("round %d: key %s is gone", round, id)
		}
	}
	// The receipts of the round before, and three of all that came earlier.
	recorded := map[string]bool{}
	for rec, err := range n.Client.Logs(t.Context(), "default", api.LogQuery{Function: "app", Since: l.since, Tail: 10_000}) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Receipt != nil {
			recorded[rec.Receipt.ID] = true
		}
	}
	for _, id := range l.receipts[l.seen:] {
		if !recorded[id] {
			t.Fatalf("round %d: receipt %s is gone; %d of this round are there", round, id, len(recorded))
		}
	}
	for range min(3, l.seen) {
		id := l.receipts[rand.IntN(l.seen)]
		if r, err := n.Client.Receipt(t.Context(), id); err != nil || r.ID != id {
			t.Fatalf("round %d: receipt %s: %+v, %v", round, id, r, err)
		}
	}
	l.seen, l.since = len(l.receipts), time.Now()
}

func deployOne(ctx context.Context, t *testing.T, n *harness.Node, l *ledger, body string) (acknowledged bool) {
	l.mu.Lock()
	l.pending = body
	l.mu.Unlock()
	v, err := n.Deploy(ctx, map[string]harness.Guest{"app": {Body: body}}, nil)
	if err != nil {
		// The node may be gone; but as long as it answers, it has no reason to refuse.
		var refused *api.Error
		if errors.As(err, &refused) {
			t.Errorf("a deployment was refused: %v", err)
		}
		return false
	}
	l.mu.Lock()
	l.version, l.body = v["app"], body
	l.mu.Unlock()
	return true
}

func callLoop(ctx context.Context, t *testing.T, n *harness.Node, client *http.Client, l *ledger, key string) {
	for ctx.Err() == nil {
		a, err := n.Call(ctx, client, key, "/app", "")
		if err != nil {
			return // the node was killed
		}
		if a.Status != http.StatusOK {
			t.Errorf("a call was answered %d %s", a.Status, strings.TrimSpace(a.Body))
			return
		}
		l.mu.Lock()
		l.receipts = append(l.receipts, a.Receipt)
		l.mu.Unlock()
	}
}

// pause lets a random moment come; there is no event to wait for.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
