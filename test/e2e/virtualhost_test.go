package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/test/harness"
)

// virtualHostScript uses buckets as boto3 does when it is told nothing of path style. The
// names are in no DNS, so all are looked up as this machine; the certificate is checked
// for the names that were asked for.
const virtualHostScript = `
import json, os, socket, sys
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError

lookup = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: lookup("127.0.0.1", *more, **named)

def client(host, style):
    return boto3.client("s3", endpoint_url="https://%s:%s" % (host, sys.argv[1]),
                        config=Config(s3={"addressing_style": style}, retries={"total_max_attempts": 1}))

hosts = []
virtual = client("s3.casemate.test", "virtual")
virtual.meta.events.register("before-send.s3", lambda request, **_: hosts.append(request.url.split("/")[2].split(":")[0]))
virtual.create_bucket(Bucket="photos")
virtual.put_object(Bucket="photos", Key="a/ü +", Body=b"by its name")
seen = {
    "get": virtual.get_object(Bucket="photos", Key="a/ü +")["Body"].read().decode(),
    "list": [o["Key"] for o in virtual.list_objects_v2(Bucket="photos")["Contents"]],
    "path": client("s3.casemate.test", "path").get_object(Bucket="photos", Key="a/ü +")["Body"].read().decode(),
    # One name of the node lies below another, and is no bucket of that.
    "below": client("deep.s3.casemate.test", "path").get_object(Bucket="photos", Key="a/ü +")["Body"].read().decode(),
    "hosts": sorted(set(hosts)),
}
url = virtual.generate_presigned_url("get_object", Params={"Bucket": "photos", "Key": "a/ü +"})
import ssl, urllib.request
trust = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
seen["presigned"] = [url.split("/")[2].split(":")[0], urllib.request.urlopen(url, context=trust).read().decode()]
try:
    virtual.get_object(Bucket="others", Key="x")
    seen["others"] = "read"
except ClientError as e:
    seen["others"] = e.response["Error"]["Code"]
for name, host in {"localhost": "localhost", "one label": "casemate"}.items():
    try:
        client(host, "virtual").get_object(Bucket="photos", Key="a/ü +")
        seen[name] = "read"
    except SSLError:
        seen[name] = "certificate"
print(json.dumps(seen))
`

// Clients that put the bucket before the host's name reach it, by a name that the node was
// started with, and the certificate is checked.
func TestBucketsAsHostNames(t *testing.T) {
	t.Parallel()
	python := needs(t, "python3", "-c", "import boto3")
	h := harness.NewHome(t)
	n := h.Up("--host", "s3.casemate.test", "--host", "deep.s3.casemate.test", "--host", "casemate", "--host", "10.9.8.7")
	script := h.Run("key", "create", "clients", "--aws", "--scope", "store:default/photos")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script+"\nexec \"$@\"", "sh", python, "-c", virtualHostScript, n.Objects()[strings.LastIndexByte(n.Objects(), ':')+1:])
	cmd.Dir = h.Dir
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "AWS_") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "AWS_CONFIG_FILE="+filepath.Join(h.Dir, "none"), "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(h.Dir, "none"), "AWS_EC2_METADATA_DISABLED=true")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, complaints.String(), n.Output())
	}
	var got struct {
		Get, Path, Below, Others, Localhost string
		List, Hosts, Presigned              []string
		OneLabel                            string `json:"one label"`
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	const host = "photos.s3.casemate.test"
	if got.Get != "by its name" || got.Path != got.Get || got.Below != got.Get || !slices.Equal(got.List, []string{"a/ü +"}) || !slices.Equal(got.Presigned, []string{host, got.Get}) {
		t.Errorf("stored and read: %s", out)
	}
	if !slices.Equal(got.Hosts, []string{host}) {
		t.Errorf("the client did not put the bucket before the name: %q", got.Hosts)
	}
	if got.Others != "AccessDenied" {
		t.Errorf("a bucket that the key does not name: %s", got.Others)
	}
	if got.Localhost != "certificate" || got.OneLabel != "certificate" {
		t.Errorf("names that nothing vouches for: %s", out)
	}
	n.Stop()
}
