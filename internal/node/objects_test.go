package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// heard is a Runner that starts nothing, and tells what it was asked to run.
type heard struct {
	still
	calls  chan *sandbox.Invocation
	answer sandbox.Result // with status 200 when it has none
}

func (h heard) Invoke(_ context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	h.calls <- inv
	if h.answer.Response.Status != 0 {
		return h.answer, nil
	}
	return sandbox.Result{Response: sandbox.ResponseHead{Status: 200}}, nil
}

// storing is a running node with an object store, and a function "listener" whose trigger
// listens to the bucket photos.
type storing struct {
	t      *testing.T
	dir    string
	ready  Ready
	client *api.Client
	calls  chan *sandbox.Invocation
	answer sandbox.Result // of every function
	stop   func()
}

func newStoring(t *testing.T) *storing {
	t.Helper()
	s := &storing{t: t, dir: t.TempDir(), calls: make(chan *sandbox.Invocation, 100)}
	s.start("")
	code := []byte("\x00asm\x01\x00\x00\x00")
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(code))
	if err := s.client.PutArtifact(t.Context(), digest, int64(len(code)), bytes.NewReader(code)); err != nil {
		t.Fatal(err)
	}
	s.deploy(digest, `{"bucket":"photos","prefix":"in/","removed":true,"existing":true}`)
	return s
}

func (s *storing) start(adminKey string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan Ready, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			DataDir: filepath.Join(s.dir, "data"), Gateway: "127.0.0.1:0", Control: "127.0.0.1:0", Objects: "127.0.0.1:0", Runner: heard{calls: s.calls, answer: s.answer},
			AdminKey: adminKey,
			Ready:    func(r Ready) error { ready <- r; return nil },
		})
	}()
	select {
	case s.ready = <-ready:
	case err := <-ended:
		cancel()
		s.t.Fatal(err)
	}
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(s.stop)
	if adminKey == "" {
		adminKey = s.ready.AdminKey
	}
	var err error
	if s.client, err = api.NewClient(api.Options{URL: s.ready.ControlURL, CA: s.ready.CA, Key: adminKey}); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.ca(), s.ready.CA, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *storing) ca() string { return filepath.Join(s.dir, "ca.pem") }

func (s *storing) deploy(artifact, settings string) {
	s.t.Helper()
	specs := []api.FunctionSpec{{Name: "listener", Artifact: artifact, Config: api.FunctionConfig{Runtime: "wasm", Triggers: []api.Trigger{
		{Name: "uploads", Kind: "bucket", Settings: json.RawMessage(settings), NoSchema: "the platform writes it"},
	}}}}
	plan, err := s.client.Plan(s.t.Context(), "default", api.PlanRequest{Functions: specs})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.client.Apply(s.t.Context(), "default", api.ApplyRequest{Plan: *plan, Functions: specs}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *storing) key(kind string, scopes ...string) *api.CreatedKey {
	s.t.Helper()
	k, err := s.client.CreateKey(s.t.Context(), api.CreateKey{Name: "test", Kind: kind, Scopes: scopes})
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

// minio is a client of the store, with its certificate checked.
func (s *storing) minio(id, secret string) *minio.Client {
	s.t.Helper()
	transport, err := minio.DefaultTransport(true)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ready.CA)
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	s.t.Cleanup(transport.CloseIdleConnections)
	c, err := minio.New(strings.TrimPrefix(s.ready.ObjectsURL, "https://"), &minio.Options{
		Creds: credentials.NewStaticV4(id, secret, ""), Secure: true, Transport: transport, Region: "us-east-1",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// run runs a client of AWS under a key.
func (s *storing) run(k *api.CreatedKey, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "PYENV_VERSION=" + os.Getenv("PYENV_VERSION"), "PYENV_ROOT=" + os.Getenv("PYENV_ROOT"),
		"AWS_ACCESS_KEY_ID=" + k.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + k.Secret, "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1",
		"AWS_ENDPOINT_URL_S3=" + s.ready.ObjectsURL, "AWS_ENDPOINT_URL_LAMBDA=" + s.ready.GatewayURL, "AWS_CA_BUNDLE=" + s.ca(),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *storing) must(k *api.CreatedKey, name string, args ...string) string {
	s.t.Helper()
	out, err := s.run(k, name, args...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// told waits for the function to be called with an event of this type and object.
func (s *storing) told(kind, subject string) map[string]any {
	s.t.Helper()
	limit := time.NewTimer(time.Minute) // is only reached by a failure
	defer limit.Stop()
	select {
	case inv := <-s.calls:
		h := inv.Head.Headers
		got := fmt.Sprint(h["ce-type"], h["ce-subject"], h["ce-source"], inv.Head.Trigger)
		if want := fmt.Sprint([]string{kind}, []string{subject}, []string{"/namespaces/default/functions/listener/triggers/uploads"}, "event"); got != want {
			s.t.Fatalf("called with %s, want %s", got, want)
		}
		var data map[string]any
		if err := json.Unmarshal(inv.Body, &data); err != nil {
			s.t.Fatal(err)
		}
		return data
	case <-limit.C:
		s.t.Fatalf("the function was not told of %s %s", kind, subject)
	}
	return nil
}

// needClient skips the test where a client is missing.
func needClient(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		err = exec.CommandContext(t.Context(), path, args...).Run()
	}
	if err != nil {
		if os.Getenv("CASEMATE_TEST_REQUIRE") != "" {
			t.Fatalf("%s %v is needed: %v", name, args, err)
		}
		t.Skipf("%s %v: %v", name, args, err)
	}
	return path
}

const botoOverTLS = `
import boto3
s3 = boto3.client('s3')
s3.put_object(Bucket='photos', Key='in/boto', Body=b'from boto', ContentType='text/plain', IfNoneMatch='*')
o = s3.get_object(Bucket='photos', Key='in/boto')
assert o['Body'].read() == b'from boto' and o['ContentType'] == 'text/plain', o
assert [b['Name'] for b in s3.list_buckets()['Buckets']] == ['photos']
s3.delete_object(Bucket='photos', Key='in/boto')
print('all done')
`

// TestObjectStoreOfANode has AWS's clients store objects over the node's own TLS, and a
// function hears of each. What was stored is there after a restart, encrypted on disk.
func TestObjectStoreOfANode(t *testing.T) {
	t.Parallel()
	aws := needClient(t, "aws", "--version")
	python := needClient(t, "python3", "-c", "import boto3")
	s := newStoring(t)
	k := s.key(api.KeyAWS, "store:default/*")
	const secret = "nobody but the holder of a key may read this line"
	content := bytes.Repeat([]byte(secret+"\n"), 200_000) // in parts
	if err := os.WriteFile(filepath.Join(s.dir, "cat.jpg"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(k, aws, "s3", "mb", "s3://photos")
	s.must(k, aws, "s3", "cp", "cat.jpg", "s3://photos/out/of/the/prefix.jpg")
	s.must(k, aws, "s3", "cp", "cat.jpg", "s3://photos/in/cat.jpg")
	data := s.told("casemate.object.created", "photos/in/cat.jpg")
	if data["bucket"] != "photos" || data["key"] != "in/cat.jpg" || data["size"] != float64(len(content)) || data["contentType"] != "image/jpeg" ||
		data["operation"] != "ObjectCreated:CompleteMultipartUpload" {
		t.Errorf("told %v", data)
	}
	if out := s.must(k, python, "-c", botoOverTLS); !strings.Contains(out, "all done") {
		t.Error(out)
	}
	s.told("casemate.object.created", "photos/in/boto")
	s.told("casemate.object.removed", "photos/in/boto")
	s.must(k, aws, "s3", "cp", "s3://photos/in/cat.jpg", "back.jpg")
	if back, err := os.ReadFile(filepath.Join(s.dir, "back.jpg")); err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d other bytes came back: %v", len(back), err)
	}
	if got := s.status(http.MethodGet, strings.TrimSpace(s.must(k, aws, "s3", "presign", "s3://photos/in/cat.jpg")), ""); got != http.StatusOK {
		t.Errorf("a URL that the client signed: %d", got)
	}
	st, err := s.client.Status(t.Context())
	if err != nil || st.Objects == nil || st.Objects.URL != s.ready.ObjectsURL || st.Objects.Buckets != 1 || st.Objects.Objects != 2 || st.Objects.Bytes != 2*int64(len(content)) ||
		len(st.Listeners) != 3 || st.Listeners[2].Name != "objects" || st.Listeners[2].TLS != "1.3" {
		t.Errorf("status %+v, %v", st, err)
	}

	s.stop()
	files := 0
	if err := filepath.WalkDir(filepath.Join(s.dir, "data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte("in/cat.jpg")) {
			t.Errorf("%s can be read by who has the disk", path)
		}
		return err
	}); err != nil || files == 0 {
		t.Fatal(files, err)
	}
	s.start(s.ready.AdminKey)
	o, err := s.minio(k.AccessKeyID, k.Secret).StatObject(t.Context(), "photos", "in/cat.jpg", minio.StatObjectOptions{})
	if err != nil || o.Size != int64(len(content)) {
		t.Errorf("after a restart: %+v, %v", o, err)
	}
	if _, err := s.minio(k.AccessKeyID, k.Secret).PutObject(t.Context(), "photos", "in/late", strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
		t.Error(err)
	}
	s.told("casemate.object.created", "photos/in/late") // and nothing for a second time
}

// TestAttackStoreDoor: a key opens what its scopes name, at the door that they are for.
func TestAttackStoreDoor(t *testing.T) {
	t.Parallel()
	s := newStoring(t)
	ctx := t.Context()
	owner := s.key(api.KeyAWS, "store:default/*")
	mine := s.minio(owner.AccessKeyID, owner.Secret)
	for _, b := range []string{"photos", "other-bucket"} {
		if err := mine.MakeBucket(ctx, b, minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := mine.PutObject(ctx, b, "k", strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	code := func(err error) string { return minio.ToErrorResponse(err).Code }
	for _, c := range []struct {
		what                string
		scopes              []string
		read, write, create string // error codes
		listed              int
	}{
		{"functions alone", []string{"invoke:*/*", "read:*/*"}, "AccessDenied", "AccessDenied", "AccessDenied", 0},
		{"another namespace", []string{"store:shop/*"}, "AccessDenied", "AccessDenied", "AccessDenied", 0},
		{"another bucket", []string{"store:default/other-bucket"}, "AccessDenied", "AccessDenied", "AccessDenied", 1},
		{"reading alone", []string{"fetch:default/photos"}, "", "AccessDenied", "AccessDenied", 1},
		{"one bucket", []string{"store:default/photos"}, "", "", "AccessDenied", 1},
		{"everything", []string{"store:*/*"}, "", "", "", 2},
	} {
		k := s.key(api.KeyAWS, c.scopes...)
		m := s.minio(k.AccessKeyID, k.Secret)
		_, err := m.StatObject(ctx, "photos", "k", minio.StatObjectOptions{})
		if got := code(err); got != c.read {
			t.Errorf("%s: reading: %s", c.what, got)
		}
		_, err = m.PutObject(ctx, "photos", "k", strings.NewReader("y"), 1, minio.PutObjectOptions{})
		if got := code(err); got != c.write {
			t.Errorf("%s: writing: %s", c.what, got)
		}
		if got := code(m.MakeBucket(ctx, "made-by-it", minio.MakeBucketOptions{})); got != c.create {
			t.Errorf("%s: making a bucket: %s", c.what, got)
		}
		// Whether a bucket is there says nothing to who may not read it.
		if _, err := m.StatObject(ctx, "never-made", "k", minio.StatObjectOptions{}); c.listed == 0 && code(err) != "AccessDenied" {
			t.Errorf("%s: a bucket that is not there: %s", c.what, code(err))
		}
		list, err := m.ListBuckets(ctx)
		if want := c.listed + map[bool]int{true: 1}[c.create == ""]; err != nil || len(list) != want {
			t.Errorf("%s: lists %v, %v", c.what, list, err)
		}
	}

	// The same name in another namespace is another bucket, and nothing of this one's.
	shop := s.key(api.KeyAWS, "store:shop/*")
	theirs := s.minio(shop.AccessKeyID, shop.Secret)
	if err := theirs.MakeBucket(ctx, "shop.photos", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.PutObject(ctx, "shop.photos", "in/k", strings.NewReader("y"), 1, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"reading": second(mine.StatObject(ctx, "shop.photos", "in/k", minio.StatObjectOptions{})),
		"writing": second(mine.PutObject(ctx, "shop.photos", "in/k", strings.NewReader("x"), 1, minio.PutObjectOptions{})),
		"copying": second(mine.CopyObject(ctx, minio.CopyDestOptions{Bucket: "photos", Object: "in/k"}, minio.CopySrcOptions{Bucket: "shop.photos", Object: "in/k"})),
	} {
		if code(err) != "AccessDenied" {
			t.Errorf("%s in another namespace: %v", what, err)
		}
	}
	// A function hears of its own namespace's buckets alone.
	if _, err := mine.PutObject(ctx, "photos", "in/own", strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	s.told("casemate.object.created", "photos/in/own")

	admin := s.key("", "admin")
	forged := "CASE" + strings.ToUpper(admin.ID)
	gone := s.key(api.KeyAWS, "store:default/*")
	leaving := s.minio(gone.AccessKeyID, gone.Secret)
	u, err := leaving.PresignedGetObject(ctx, "photos", "k", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.status(http.MethodGet, u.String(), ""); got != http.StatusOK {
		t.Errorf("a signed URL: %d", got)
	}
	if err := s.client.RevokeKey(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	if got := s.status(http.MethodGet, u.String(), ""); got != http.StatusForbidden {
		t.Errorf("a signed URL of a revoked key: %d", got)
	}
	for what, m := range map[string]*minio.Client{
		"a revoked key": leaving, "a key that is sent as it is": s.minio(forged, admin.Secret), "an unknown key": s.minio("CASEAAAAAAAAAAAAAAAA", owner.Secret),
		"a wrong secret": s.minio(owner.AccessKeyID, gone.Secret),
	} {
		if _, err := m.ListBuckets(ctx); code(err) != "SignatureDoesNotMatch" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for credential, want := range map[string]int{
		"": http.StatusForbidden, "Bearer " + admin.Secret: http.StatusBadRequest, "Bearer " + owner.Secret: http.StatusBadRequest,
	} {
		if got := s.status(http.MethodGet, s.ready.ObjectsURL+"/photos/k", credential); got != want {
			t.Errorf("a credential of %d bytes that is no signature: %d, want %d", len(credential), got, want)
		}
	}
}

// TestAttackStoreKeyAtTheLambdaAPI: who may write objects may call nothing, and what
// signs for one service signs for no other.
func TestAttackStoreKeyAtTheLambdaAPI(t *testing.T) {
	t.Parallel()
	aws := needClient(t, "aws", "--version")
	s := newStoring(t)
	store := s.key(api.KeyAWS, "store:*/*", "fetch:*/*")
	call := []string{"lambda", "invoke", "--function-name", "listener", "--payload", "{}", "out.json"}
	if out, err := s.run(store, aws, call...); err == nil || !strings.Contains(out, "(AccessDeniedException)") {
		t.Errorf("it called a function: %v\n%s", err, out)
	}
	if out, err := s.run(store, aws, "lambda", "get-function", "--function-name", "listener"); err == nil || !strings.Contains(out, "(AccessDeniedException)") {
		t.Errorf("it saw a function: %v\n%s", err, out)
	}
	if len(s.calls) != 0 {
		t.Error("the function was called")
	}
	// Each is good at its own door, so that nothing else is what was refused.
	s.must(store, aws, "s3", "mb", "s3://photos")
	s.must(s.key(api.KeyAWS, "invoke:default/*"), aws, call...)
	if len(s.calls) != 1 {
		t.Error("the function was not called")
	}
	// Lambda's signature at the store, and the store's at the Lambda API.
	for _, swapped := range [][]string{
		{"lambda", "list-functions", "--endpoint-url", s.ready.ObjectsURL}, {"s3api", "list-buckets", "--endpoint-url", s.ready.GatewayURL},
	} {
		if out, err := s.run(s.key(api.KeyAWS, "store:*/*", "invoke:*/*", "read:*/*"), aws, swapped...); err == nil {
			t.Errorf("%v: %s", swapped, out)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// status sends a plain request to the store and gives the answer's status.
func (s *storing) status(method, url, authorization string) int {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ready.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(s.t.Context(), method, url, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestNodeWithoutAnObjectStore listens nowhere for it, says so, and takes no trigger that
// would wait for ever.
func TestNodeWithoutAnObjectStore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	seen := errors.New("enough seen")
	_, err := once(t, Options{DataDir: dir, Ready: func(r Ready) error {
		if r.ObjectsURL != "" {
			t.Errorf("it is at %s", r.ObjectsURL)
		}
		c, err := api.NewClient(api.Options{URL: r.ControlURL, CA: r.CA, Key: r.AdminKey})
		if err != nil {
			return err
		}
		if st, err := c.Status(t.Context()); err != nil || st.Objects != nil || len(st.Listeners) != 2 {
			t.Errorf("status %+v, %v", st, err)
		}
		return seen
	}})
	if !errors.Is(err, seen) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "objects")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a folder: %v", err)
	}
}
