package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// eventScript invokes by boto3 without waiting.
const eventScript = `
import boto3, json
answer = boto3.client("lambda").invoke(FunctionName="handler", InvocationType="Event", Payload=json.dumps({"do": "log", "text": "by boto3"}))
print(json.dumps({"status": answer["StatusCode"], "body": answer["Payload"].read().decode()}))
`

// The real clients of AWS hand events over without waiting, and the function gets them as
// if they had waited.
func TestClientsOfAWSInvokeWithoutWaiting(t *testing.T) {
	t.Parallel()
	aws, python := needs(t, "aws", "--version"), needs(t, "python3", "-c", "import boto3")
	n := newAWSNode(t)
	event := filepath.Join(n.Dir, "event.json")
	if err := os.WriteFile(event, []byte(`{"do":"log","text":"by the command line"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, complaints, err := n.run(t, aws, "lambda", "invoke", "--function-name", "handler", "--invocation-type", "Event", "--payload", "fileb://"+event, "out.json")
	var answer struct{ StatusCode int }
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil || answer.StatusCode != 202 {
		t.Fatalf("%v: %s %s", err, out, complaints)
	}
	if b, err := os.ReadFile(filepath.Join(n.Dir, "out.json")); err != nil || len(b) != 0 {
		t.Errorf("the answer: %q, %v", b, err)
	}
	out, complaints, err = n.run(t, python, "-c", eventScript)
	var boto struct {
		Status int
		Body   string
	}
	if err != nil || json.Unmarshal([]byte(out), &boto) != nil || boto.Status != 202 || boto.Body != "" {
		t.Fatalf("%v: %s %s", err, out, complaints)
	}

	var receipts []api.Receipt
	err = servertest.Eventually(t.Context(), func(ctx context.Context) error {
		receipts = nil
		var said []string
		for r, err := range n.Client.Logs(ctx, "default", api.LogQuery{Function: "handler"}) {
			if err != nil {
				return err
			}
			if r.Receipt != nil {
				receipts = append(receipts, *r.Receipt)
			} else {
				said = append(said, r.Text)
			}
		}
		if !slices.Contains(said, "by the command line") || !slices.Contains(said, "by boto3") || len(receipts) != 2 {
			return fmt.Errorf("the function said %q, receipts %+v", said, receipts)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range receipts {
		if r.Event == "" || r.Trigger != "lambda" || r.Outcome != "ok" || r.Attempt != 1 || r.Version != "sha256:"+n.versions["handler"] {
			t.Errorf("receipt: %+v", r)
		}
	}
	if receipts[0].Event == receipts[1].Event {
		t.Error("both invocations are one event")
	}
}
