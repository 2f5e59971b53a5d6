package servertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"testing"
)

// Moto is a server that speaks SQS's protocol. It keeps nothing when it ends.
type Moto struct {
	*Process
	Port int
}

// StartMoto starts one.
func StartMoto(t testing.TB) *Moto {
	t.Helper()
	program := Program(t, "moto_server")
	port := Port(t)
	return &Moto{Start(t, func() *exec.Cmd {
		return exec.Command(program, "-H", "127.0.0.1", "-p", strconv.Itoa(port))
	}, Listening(port)), port}
}

// SQS calls an action and gives what it answers.
func (m *Moto) SQS(t testing.TB, action string, input map[string]any) map[string]any {
	t.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/", m.Port), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	// Nobody checks the signature; which service is meant is read from it.
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s %s", action, err, answer.Status, b)
	}
	out := map[string]any{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatalf("%s: %v: %s", action, err, b)
		}
	}
	return out
}
