package farside

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/casemate-dev/casemate/api"
)

// source is how the far side of an example is started.
type source struct {
	example string
	start   func(testing.TB, *Event) *far
}

func sources() []source {
	return []source{
		{"nightly", schedule},
		{"issues", github},
		{"shipped", cloudevents},
		{"payments", topic},
		{"readings", nats},
		{"jobs", amqp},
		{"clicks", kafka},
		{"doors", mqtt},
		{"carts", redis},
		{"mails", sqs},
		{"stock", postgres},
		{"ledger", outbox},
		{"flags", keys},
		{"uploads", bucket},
		{"inbox", folder},
	}
}

// schedule comes by itself.
func schedule(testing.TB, *Event) *far { return &far{} }

// secret is a key that nobody else has.
func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// send makes a request and wants an answer between 200 and 299.
func send(t testing.TB, n *Node, method, path string, header map[string]string, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, n.Gateway+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer, err := n.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode < 200 || answer.StatusCode > 299 {
		t.Fatalf("%s %s: %s %v\n%s", method, path, answer.Status, err, said)
	}
}

// github sends what GitHub would, signed with the key that both sides have.
func github(testing.TB, *Event) *far {
	key := secret()
	return &far{kind: "webhook", secrets: map[string]string{"key": key}, cause: func(t testing.TB, n *Node, e *Event) {
		mac := hmac.New(sha256.New, []byte(key))
		_, _ = mac.Write(e.Body())
		send(t, n, http.MethodPost, "/hooks/github", map[string]string{
			"Content-Type": "application/json", "X-GitHub-Event": e.Name, "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
			"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
		}, e.Body())
	}}
}

// cloudevents asks by the specification's handshake whether it may send, and then sends.
func cloudevents(testing.TB, *Event) *far {
	token := secret()
	return &far{kind: "webhook", secrets: map[string]string{"key": token}, cause: func(t testing.TB, n *Node, e *Event) {
		const origin = "carrier.example.com"
		send(t, n, http.MethodOptions, "/hooks/parcels", map[string]string{"WebHook-Request-Origin": origin}, nil)
		send(t, n, http.MethodPost, "/hooks/parcels", map[string]string{
			"Content-Type": "application/json", "Authorization": "Bearer " + token, "Origin": origin, "WebHook-Request-Origin": origin,
			"ce-specversion": "1.0", "ce-id": "p-17-shipped", "ce-source": "/carrier", "ce-type": e.Name,
		}, e.Body())
	}}
}

// topic publishes by the casemate program.
func topic(testing.TB, *Event) *far {
	return &far{cause: func(t testing.TB, n *Node, e *Event) {
		n.Run(t, nil, "events", "publish", "orders", "--type", e.Name, "--data", string(e.Body()))
	}}
}

// keys puts a value into a bucket of keys and values.
func keys(testing.TB, *Event) *far {
	return &far{cause: func(t testing.TB, n *Node, e *Event) {
		send(t, n, http.MethodPut, "/.casemate/kv/flags/"+e.Name, map[string]string{
			"Authorization": "Bearer " + n.Key(t, "store:default/flags"), "Content-Type": "text/plain",
		}, e.Body())
	}}
}

// bucket uploads an object with a client of S3.
func bucket(testing.TB, *Event) *far {
	return &far{cause: func(t testing.TB, n *Node, e *Event) {
		var key api.CreatedKey
		n.Run(t, &key, "key", "create", "uploader", "--aws", "--scope", "store:default/pictures")
		var status api.Status
		n.Run(t, &status, "status")
		if status.Objects == nil {
			t.Fatal("the node has no object store")
		}
		address, err := url.Parse(status.Objects.URL)
		if err != nil {
			t.Fatal(err)
		}
		client, err := minio.New(address.Host, &minio.Options{
			Creds: credentials.NewStaticV4(key.AccessKeyID, key.Secret, ""), Secure: true, Region: "us-east-1",
			Transport: n.Client.Transport, BucketLookup: minio.BucketLookupPath,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.MakeBucket(t.Context(), "pictures", minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.PutObject(t.Context(), "pictures", e.Name, bytes.NewReader(e.Body()), int64(len(e.Body())), minio.PutObjectOptions{ContentType: "image/png"}); err != nil {
			t.Fatal(err)
		}
	}}
}

// folder puts a file into the watched folder, whole: by its name the node sees it when it
// is complete.
func folder(testing.TB, *Event) *far {
	return &far{cause: func(t testing.TB, n *Node, e *Event) {
		hidden := filepath.Join(n.Folder, "."+strings.TrimSuffix(e.Name, ".csv"))
		if err := os.WriteFile(hidden, e.Body(), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(hidden, filepath.Join(n.Folder, e.Name)); err != nil {
			t.Fatal(err)
		}
	}}
}
