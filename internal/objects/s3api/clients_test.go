package s3api_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program finds a client, or skips the test where it may be missing.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CASEMATE_TEST_REQUIRE") != "" {
			t.Fatalf("%s is needed and not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

type client struct {
	t   *testing.T
	w   *world
	env []string
	dir string
}

func newClient(t *testing.T, w *world) *client {
	dir := t.TempDir()
	return &client{t, w, []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "PYENV_VERSION=" + os.Getenv("PYENV_VERSION"), "PYENV_ROOT=" + os.Getenv("PYENV_ROOT"),
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_REGION=us-east-1",
		"AWS_CA_BUNDLE=" + w.ca, "AWS_ENDPOINT_URL=" + w.URL, "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1",
	}, dir}
}

func (c *client) run(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), name, args...)
	cmd.Env, cmd.Dir = c.env, c.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *client) must(name string, args ...string) string {
	c.t.Helper()
	out, err := c.run(name, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

func (c *client) file(name string, data []byte) string {
	c.t.Helper()
	f := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(f, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *client) same(name string, data []byte) {
	c.t.Helper()
	got, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil || !bytes.Equal(got, data) {
		c.t.Errorf("%s: other bytes came back (%d, want %d): %v", name, len(got), len(data), err)
	}
}

func TestAWSCommandLine(t *testing.T) {
	t.Parallel()
	aws := program(t, "aws")
	w := newWorld(t)
	c := newClient(t, w)
	small, big := []byte("hello, store\n"), random(20<<20)
	c.file("in/small.txt", small)
	c.file("in/sub/big.bin", big)
	c.must(aws, "s3", "mb", "s3://cli-bucket")
	c.must(aws, "s3", "sync", "in", "s3://cli-bucket/tree")
	if out := c.must(aws, "s3", "ls", "--recursive", "s3://cli-bucket/"); !strings.Contains(out, "tree/small.txt") || !strings.Contains(out, "20971520 tree/sub/big.bin") {
		t.Errorf("listing:\n%s", out)
	}
	c.must(aws, "s3", "sync", "s3://cli-bucket/tree", "out")
	c.same("out/small.txt", small)
	c.same("out/sub/big.bin", big)
	c.must(aws, "s3", "cp", "s3://cli-bucket/tree/sub/big.bin", "s3://cli-bucket/moved.bin") // in parts
	c.must(aws, "s3", "mv", "s3://cli-bucket/moved.bin", "back.bin")
	c.same("back.bin", big)
	if out := c.must(aws, "s3api", "head-object", "--bucket", "cli-bucket", "--key", "tree/sub/big.bin", "--checksum-mode", "ENABLED"); !strings.Contains(out, "AES256") || !strings.Contains(out, "Checksum") {
		t.Errorf("head-object:\n%s", out)
	}
	c.must(aws, "s3api", "put-bucket-versioning", "--bucket", "cli-bucket", "--versioning-configuration", "Status=Enabled")
	c.must(aws, "s3api", "put-object", "--bucket", "cli-bucket", "--key", "tree/small.txt", "--body", "in/small.txt", "--checksum-algorithm", "SHA256", "--metadata", "a=b", "--tagging", "x=y")
	if out := c.must(aws, "s3api", "list-object-versions", "--bucket", "cli-bucket", "--prefix", "tree/small", "--query", "length(Versions)"); strings.TrimSpace(out) != "2" {
		t.Errorf("versions: %s", out)
	}
	c.must(aws, "s3api", "get-object", "--bucket", "cli-bucket", "--key", "tree/sub/big.bin", "--range", "bytes=1000000-1999999", "range.bin")
	c.same("range.bin", big[1000000:2000000])
	if out, err := c.run(aws, "s3api", "put-object", "--bucket", "cli-bucket", "--key", "tree/small.txt", "--body", "in/small.txt", "--if-none-match", "*"); err == nil || !strings.Contains(out, "PreconditionFailed") {
		t.Errorf("a conditional write over an object: %s", out)
	}
	if out, err := c.run(aws, "s3api", "put-object-acl", "--bucket", "cli-bucket", "--key", "tree/small.txt", "--acl", "public-read"); err == nil {
		t.Errorf("a public ACL was taken: %s", out)
	}
	c.same("in/small.txt", small)
	c.must(aws, "s3", "rm", "--recursive", "s3://cli-bucket/")
	if out, err := c.run(aws, "s3", "rb", "s3://cli-bucket"); err == nil || !strings.Contains(out, "BucketNotEmpty") {
		t.Errorf("a bucket with versions was removed: %s", out)
	}
}

const botoScript = `
import boto3, hashlib, os, sys, threading, urllib.request, ssl, concurrent.futures
from botocore.config import Config
from botocore.exceptions import ClientError
def code(f):
    try: f()
    except ClientError as e: return e.response['Error']['Code']
    return 'none'
s3 = boto3.client('s3')
s3.create_bucket(Bucket='boto')
for alg in ['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256']:
    try:
        r = s3.put_object(Bucket='boto', Key='sum-' + alg, Body=b'x' * 100000, ChecksumAlgorithm=alg)
    except Exception as e:
        if 'additional dependency' in str(e): continue
        raise
    h = s3.head_object(Bucket='boto', Key='sum-' + alg, ChecksumMode='ENABLED')
    assert h['Checksum' + alg] == r['Checksum' + alg], (alg, h, r)
    assert s3.get_object(Bucket='boto', Key='sum-' + alg, ChecksumMode='ENABLED')['Body'].read() == b'x' * 100000
# a stream whose length is not signed beforehand
import io
s3.upload_fileobj(io.BytesIO(b'y' * 20_000_000), 'boto', 'stream', Config=boto3.s3.transfer.TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=6 << 20))
assert s3.get_object(Bucket='boto', Key='stream')['Body'].read() == b'y' * 20_000_000
assert s3.get_object(Bucket='boto', Key='stream', PartNumber=2)['ContentLength'] == 6 << 20
# multipart with a checksum of each part and of the whole
u = s3.create_multipart_upload(Bucket='boto', Key='parts', ChecksumAlgorithm='CRC32', ChecksumType='FULL_OBJECT')['UploadId']
data = os.urandom(11 << 20)
import zlib, base64
p1 = s3.upload_part(Bucket='boto', Key='parts', UploadId=u, PartNumber=1, Body=data[:5 << 20], ChecksumAlgorithm='CRC32')
p2 = s3.upload_part(Bucket='boto', Key='parts', UploadId=u, PartNumber=7, Body=data[5 << 20:], ChecksumAlgorithm='CRC32')
assert len(s3.list_parts(Bucket='boto', Key='parts', UploadId=u)['Parts']) == 2
assert s3.list_multipart_uploads(Bucket='boto')['Uploads'][0]['Key'] == 'parts'
parts = [{'PartNumber': 1, 'ETag': p1['ETag'], 'ChecksumCRC32': p1['ChecksumCRC32']}, {'PartNumber': 7, 'ETag': p2['ETag'], 'ChecksumCRC32': p2['ChecksumCRC32']}]
def complete(parts, **kw): return s3.complete_multipart_upload(Bucket='boto', Key='parts', UploadId=u, MultipartUpload={'Parts': parts}, **kw)
assert code(lambda: complete(parts[::-1])) == 'InvalidPartOrder'
assert code(lambda: complete([dict(parts[0], ETag='"00000000000000000000000000000000"')])) == 'InvalidPart'
want = base64.b64encode(zlib.crc32(data).to_bytes(4, 'big')).decode()
assert code(lambda: complete(parts, ChecksumCRC32='AAAAAA==', ChecksumType='FULL_OBJECT')) == 'BadDigest'
r = complete(parts, ChecksumCRC32=want, ChecksumType='FULL_OBJECT')
assert r['ChecksumCRC32'] == want, (r, want)
assert complete(parts)['ETag'] == r['ETag']  # done again
assert s3.get_object(Bucket='boto', Key='parts')['Body'].read() == data
assert s3.list_multipart_uploads(Bucket='boto').get('Uploads') is None
# keys that are hard to write
for key in ['a b', 'a+b', 'a%20b', 'ü/ñ/漢字', "quote'\"<&>", 'trailing/', 'a//b', '~-_.!*()', 'x' * 1024]:
    s3.put_object(Bucket='boto', Key='hard/' + key if len(key) < 1000 else key, Body=key.encode())
listed = [o['Key'] for p in s3.get_paginator('list_objects_v2').paginate(Bucket='boto', PaginationConfig={'PageSize': 3}) for o in p['Contents']]
assert listed == sorted(listed, key=lambda k: k.encode()), listed
assert 'hard/a+b' in listed and 'hard/a%20b' in listed and 'hard/ü/ñ/漢字' in listed and 'x' * 1024 in listed, listed
assert s3.get_object(Bucket='boto', Key='hard/a%20b')['Body'].read() == b'a%20b'
assert code(lambda: s3.put_object(Bucket='boto', Key='x' * 1025, Body=b'')) == 'KeyTooLongError'
assert code(lambda: s3.put_object(Bucket='boto', Key='meta', Body=b'', Metadata={'a': 'x' * 2100})) == 'MetadataTooLarge'
assert code(lambda: s3.put_object(Bucket='boto', Key='a/../../etc/passwd', Body=b'')) == 'InvalidArgument'
# versions and markers
s3.put_bucket_versioning(Bucket='boto', VersioningConfiguration={'Status': 'Enabled'})
v1 = s3.put_object(Bucket='boto', Key='v', Body=b'1')['VersionId']
v2 = s3.put_object(Bucket='boto', Key='v', Body=b'2')['VersionId']
d = s3.delete_object(Bucket='boto', Key='v')
assert d['DeleteMarker'] and code(lambda: s3.get_object(Bucket='boto', Key='v')) == 'NoSuchKey'
assert code(lambda: s3.get_object(Bucket='boto', Key='v', VersionId=d['VersionId'])) == 'MethodNotAllowed'
assert s3.get_object(Bucket='boto', Key='v', VersionId=v1)['Body'].read() == b'1'
s3.delete_object(Bucket='boto', Key='v', VersionId=d['VersionId'])
assert s3.get_object(Bucket='boto', Key='v')['Body'].read() == b'2'
assert code(lambda: s3.get_object(Bucket='boto', Key='v', VersionId='nonsense')) == 'NoSuchVersion'
s3.put_bucket_versioning(Bucket='boto', VersioningConfiguration={'Status': 'Suspended'})
assert s3.put_object(Bucket='boto', Key='v', Body=b'3')['VersionId'] == 'null'
assert len(s3.list_object_versions(Bucket='boto', Prefix='v')['Versions']) == 3
r = s3.delete_objects(Bucket='boto', Delete={'Objects': [{'Key': 'v', 'VersionId': v1}, {'Key': 'never'}, {'Key': '../x'}]})
assert len(r['Deleted']) == 2 and r['Errors'][0]['Code'] == 'InvalidArgument', r
# only one of many writers with If-None-Match wins
def once(i): return code(lambda: s3.put_object(Bucket='boto', Key='once', Body=str(i).encode(), IfNoneMatch='*'))
with concurrent.futures.ThreadPoolExecutor(8) as pool: got = sorted(pool.map(once, range(16)))
assert got.count('none') == 1 and got.count('PreconditionFailed') == 15, got
# there is nothing that the ETag could be compared with
assert code(lambda: s3.put_object(Bucket='boto', Key='nothing', Body=b'', IfMatch='"x"')) == 'NoSuchKey'
assert code(lambda: s3.put_object(Bucket='boto', Key='once', Body=b'', IfMatch='"x"')) == 'PreconditionFailed'
# copy, conditions, tags, presigned
r = s3.copy_object(Bucket='boto', Key='summed', CopySource={'Bucket': 'boto', 'Key': 'hard/a+b'}, ChecksumAlgorithm='SHA256')
want = base64.b64encode(hashlib.sha256(b'a+b').digest()).decode()
assert r['CopyObjectResult']['ChecksumSHA256'] == want, r
assert s3.head_object(Bucket='boto', Key='summed', ChecksumMode='ENABLED')['ChecksumSHA256'] == want
s3.copy_object(Bucket='boto', Key='copy', CopySource={'Bucket': 'boto', 'Key': 'hard/a+b'}, MetadataDirective='REPLACE', Metadata={'k': 'v'})
h = s3.head_object(Bucket='boto', Key='copy')
assert h['Metadata'] == {'k': 'v'}
assert code(lambda: s3.get_object(Bucket='boto', Key='copy', IfMatch='"x"')) == 'PreconditionFailed'
assert code(lambda: s3.get_object(Bucket='boto', Key='copy', IfNoneMatch=h['ETag'])) == '304'
assert code(lambda: s3.copy_object(Bucket='boto', Key='copy', CopySource={'Bucket': 'other.secret', 'Key': 'k'})) == 'AccessDenied'
u = boto3.client('s3', config=Config(signature_version='s3v4')).generate_presigned_url('get_object', Params={'Bucket': 'boto', 'Key': 'copy'}, ExpiresIn=60)
if '127.0.0.1' in u:
    assert urllib.request.urlopen(u, context=ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])).read() == b'a+b'
for f in ['get_bucket_policy', 'get_bucket_cors', 'get_bucket_lifecycle_configuration', 'get_bucket_tagging']:
    assert code(lambda: getattr(s3, f)(Bucket='boto')).startswith('NoSuch'), f
assert code(lambda: s3.put_bucket_policy(Bucket='boto', Policy='{}')) == 'NotImplemented'
assert s3.get_bucket_encryption(Bucket='boto')['ServerSideEncryptionConfiguration']['Rules']
assert code(lambda: s3.get_object(Bucket='missing', Key='k')) == 'NoSuchBucket'
assert code(lambda: s3.get_object(Bucket='other.missing', Key='k')) == 'AccessDenied'
print('all done')
`

func TestBoto3(t *testing.T) {
	t.Parallel()
	python := program(t, "python3")
	w := newWorld(t)
	c := newClient(t, w)
	if out, err := c.run(python, "-c", "import boto3"); err != nil {
		if os.Getenv("CASEMATE_TEST_REQUIRE") != "" {
			t.Fatalf("boto3 is needed and not installed: %s", out)
		}
		t.Skip("boto3 is not installed")
	}
	if out := c.must(python, c.file("test.py", []byte(botoScript))); !strings.Contains(out, "all done") {
		t.Error(out)
	}
}

func TestRclone(t *testing.T) {
	t.Parallel()
	rclone := program(t, "rclone")
	w := newWorld(t)
	c := newClient(t, w)
	c.env = slices.DeleteFunc(c.env, func(e string) bool { return strings.HasPrefix(e, "AWS_") })
	c.env = append(c.env, "RCLONE_CONFIG_C_TYPE=s3", "RCLONE_CONFIG_C_PROVIDER=Other", "RCLONE_CONFIG_C_ACCESS_KEY_ID="+accessKey,
		"RCLONE_CONFIG_C_SECRET_ACCESS_KEY="+secretKey, "RCLONE_CONFIG_C_ENDPOINT="+w.URL, "RCLONE_CONFIG_C_CHUNK_SIZE=5Mi", "RCLONE_CONFIG_C_UPLOAD_CUTOFF=5Mi")
	small, big := []byte("hello"), random(13<<20)
	c.file("in/a b/small", small)
	c.file("in/big", big)
	c.must(rclone, "--ca-cert", w.ca, "mkdir", "C:rclone")
	c.must(rclone, "--ca-cert", w.ca, "--retries=1", "copy", "in", "C:rclone/x")
	c.must(rclone, "--ca-cert", w.ca, "--retries=1", "check", "--download", "in", "C:rclone/x")
	c.must(rclone, "--ca-cert", w.ca, "--retries=1", "copy", "C:rclone/x", "out")
	c.same("out/a b/small", small)
	c.same("out/big", big)
	c.must(rclone, "--ca-cert", w.ca, "--retries=1", "moveto", "C:rclone/x/big", "C:rclone/y/big")
	if out := c.must(rclone, "--ca-cert", w.ca, "lsf", "-R", "C:rclone"); !strings.Contains(out, "y/big") || strings.Contains(out, "x/big") {
		t.Errorf("after moving:\n%s", out)
	}
	c.must(rclone, "--ca-cert", w.ca, "--retries=1", "purge", "C:rclone")
}
