package s3api

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/sigv4"
)

// exchange is one request and its answer.
type exchange struct {
	*Door
	w         http.ResponseWriter
	r         *http.Request
	id        string
	started   bool // the head of the answer was written
	begun     time.Time
	op        *route // nil before it is known
	status    int
	bytesIn   int64 // of the body
	bytesOut  int64
	failure   error
	signature *sigv4.Signature
	holder    Holder
	namespace string
	bucket    string
	key       string
	query     url.Values
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Door: d, r: r, id: d.RequestID(), begun: d.Clock()}
	x.w, r.Body = &counted{w, x}, &countedBody{r.Body, x}
	defer x.account()
	w.Header().Set("X-Amz-Request-Id", x.id)
	w.Header().Set("Server", "Casemate")
	// What somebody stored is not a page of ours.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // a panic's value, compared as net/http does
				panic(p)
			}
			d.Log.Error("the S3 door failed", "request", x.id, "panic", p, "stack", string(debug.Stack()))
			x.fail(errors.New("panic"))
		}
	}()
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	default:
		x.fail(&apiError{http.StatusServiceUnavailable, "SlowDown", "too many requests are under way"})
		return
	}
	x.stall()
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

// stall gives both directions time for the next bytes.
func (x *exchange) stall() {
	c := http.NewResponseController(x.w)
	at := x.Clock().Add(stallTime)
	_ = errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at)) // not every writer in a test can
}

func (x *exchange) serve() error {
	path, query, _ := strings.Cut(x.r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		return invalid("InvalidURI", "the target must be a path")
	}
	// Signature first: nothing else is said to who has none.
	s, err := sigv4.Parse(&sigv4.Request{
		Method: x.r.Method, Path: path, Query: query, Host: x.r.Host, Header: x.r.Header,
		ContentLength: x.r.ContentLength, TLS: x.r.TLS != nil,
	}, x.Clock())
	if err != nil {
		return err
	}
	key, holder := x.Keys.SigningKey(s.AccessKey, s.Day, s.Region, s.Service)
	if err := s.Verify(key); err != nil {
		return err
	}
	if holder == nil {
		return &sigv4.Error{Fault: sigv4.Mismatch, Reason: "the signature is not that of this request under this key"}
	}
	x.signature, x.holder = s, holder
	if x.query, err = url.ParseQuery(query); err != nil {
		return invalid("InvalidURI", "the query is malformed")
	}
	bucket, key2, err := splitTarget(path, x.r.Host, x.Domains)
	if err != nil {
		return err
	}
	if bucket != "" {
		if x.namespace, x.bucket, err = splitBucket(bucket); err != nil {
			return err
		}
	}
	x.key = key2
	op, err := x.find()
	if err != nil {
		return err
	}
	x.op = op
	if x.bucket != "" && !holder.May(op.write, x.namespace, x.bucket) {
		return errDenied
	}
	if x.key != "" {
		if err := objects.CheckKey(x.key); err != nil {
			return err
		}
	}
	return op.serve(x)
}

// splitTarget finds bucket and key in path and host. The path is not cleaned: what a key
// says is what was sent, or it is refused.
func splitTarget(path, host string, domains []string) (bucket, key string, err error) {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return "", "", invalid("InvalidURI", "the path is not percent-encoded")
	}
	decoded = decoded[1:]
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	longest := "" // one name may lie below another, and is no bucket of that
	for _, d := range domains {
		if strings.HasSuffix("."+host, "."+d) && len(d) > len(longest) {
			longest = d
		}
	}
	if b, ok := strings.CutSuffix(host, "."+longest); ok && b != "" && longest != "" {
		return b, decoded, nil
	}
	bucket, key, _ = strings.Cut(decoded, "/")
	if bucket == "" && key != "" {
		return "", "", invalid("InvalidBucketName", "the path names no bucket")
	}
	return bucket, key, nil
}

// splitBucket reads NAMESPACE.BUCKET, or BUCKET of the default namespace.
func splitBucket(name string) (namespace, bucket string, err error) {
	namespace, bucket, ok := strings.Cut(name, ".")
	if !ok {
		namespace, bucket = DefaultNamespace, name
	} else if namespace == DefaultNamespace {
		return "", "", invalid("InvalidBucketName", "buckets of the namespace default are named without it")
	}
	return namespace, bucket, objects.CheckBucket(namespace, bucket)
}

func joinBucket(namespace, bucket string) string {
	if namespace == DefaultNamespace {
		return bucket
	}
	return namespace + "." + bucket
}

// route is an operation: which requests mean it, and what it needs.
type route struct {
	method string
	level  level
	by     []string // parameters that must be there
	also   []string // parameters that may be
	write  bool
	serve  func(*exchange) error
	name   string // S3's own
}

type level int

const (
	onService level = iota
	onBucket
	onObject
)

func routes() []route {
	list := []string{"prefix", "delimiter", "max-keys", "encoding-type"}
	read := []string{
		"versionId", "partNumber", "response-content-type", "response-content-language", "response-expires",
		"response-cache-control", "response-content-disposition", "response-content-encoding",
	}
	all := []route{
		{"GET", onService, nil, []string{"max-buckets", "continuation-token", "prefix", "bucket-region"}, false, (*exchange).listBuckets, "ListBuckets"},
		{"PUT", onBucket, nil, nil, true, (*exchange).createBucket, "CreateBucket"},
		{"HEAD", onBucket, nil, nil, false, (*exchange).headBucket, "HeadBucket"},
		{"DELETE", onBucket, nil, nil, true, (*exchange).deleteBucket, "DeleteBucket"},
		{"GET", onBucket, []string{"location"}, nil, false, (*exchange).location, "GetBucketLocation"},
		{"GET", onBucket, []string{"versioning"}, nil, false, (*exchange).getVersioning, "GetBucketVersioning"},
		{"PUT", onBucket, []string{"versioning"}, nil, true, (*exchange).putVersioning, "PutBucketVersioning"},
		{"GET", onBucket, []string{"encryption"}, nil, false, (*exchange).encryption, "GetBucketEncryption"},
		{"GET", onBucket, nil, append([]string{"marker"}, list...), false, (*exchange).listV1, "ListObjects"},
		{"GET", onBucket, []string{"list-type"}, append([]string{"continuation-token", "start-after", "fetch-owner"}, list...), false, (*exchange).listV2, "ListObjectsV2"},
		{"GET", onBucket, []string{"versions"}, append([]string{"key-marker", "version-id-marker"}, list...), false, (*exchange).listVersions, "ListObjectVersions"},
		{"GET", onBucket, []string{"uploads"}, []string{"prefix", "delimiter", "max-uploads", "encoding-type", "key-marker", "upload-id-marker"}, false, (*exchange).listUploads, "ListMultipartUploads"},
		{"POST", onBucket, []string{"delete"}, nil, true, (*exchange).deleteMany, "DeleteObjects"},
		{"GET", onObject, nil, read, false, (*exchange).getObject, "GetObject"},
		{"HEAD", onObject, nil, read, false, (*exchange).getObject, "HeadObject"},
		{"PUT", onObject, nil, nil, true, (*exchange).putObject, "PutObject"},
		{"DELETE", onObject, nil, []string{"versionId"}, true, (*exchange).deleteObject, "DeleteObject"},
		{"GET", onObject, []string{"tagging"}, []string{"versionId"}, false, (*exchange).getTags, "GetObjectTagging"},
		{"PUT", onObject, []string{"tagging"}, []string{"versionId"}, true, (*exchange).putTags, "PutObjectTagging"},
		{"DELETE", onObject, []string{"tagging"}, []string{"versionId"}, true, (*exchange).deleteTags, "DeleteObjectTagging"},
		{"POST", onObject, []string{"uploads"}, nil, true, (*exchange).beginUpload, "CreateMultipartUpload"},
		{"PUT", onObject, []string{"partNumber", "uploadId"}, nil, true, (*exchange).putPart, "UploadPart"},
		{"GET", onObject, []string{"uploadId"}, []string{"max-parts", "part-number-marker", "encoding-type"}, false, (*exchange).listParts, "ListParts"},
		{"POST", onObject, []string{"uploadId"}, nil, true, (*exchange).completeUpload, "CompleteMultipartUpload"},
		{"DELETE", onObject, []string{"uploadId"}, nil, true, (*exchange).abortUpload, "AbortMultipartUpload"},
	}
	// What a bucket does not have, clients ask for all the same.
	for name, code := range map[string]string{
		"policy": "NoSuchBucketPolicy", "cors": "NoSuchCORSConfiguration", "lifecycle": "NoSuchLifecycleConfiguration",
		"tagging": "NoSuchTagSet", "website": "NoSuchWebsiteConfiguration", "object-lock": "ObjectLockConfigurationNotFoundError",
		"replication": "ReplicationConfigurationNotFoundError", "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
		"ownershipControls": "OwnershipControlsNotFoundError",
	} {
		all = append(all, route{"GET", onBucket, []string{name}, nil, false, func(x *exchange) error {
			if _, err := x.Store.Bucket(x.namespace, x.bucket); err != nil {
				return err
			}
			return &apiError{http.StatusNotFound, code, "buckets have no " + name + " here"}
		}, "GetBucket" + strings.ToUpper(name[:1]) + name[1:]})
	}
	return all
}

// find picks the operation: the one that takes all parameters of the request.
func (x *exchange) find() (*route, error) {
	at := onObject
	switch {
	case x.bucket == "":
		at = onService
	case x.key == "":
		at = onBucket
	}
	var best *route
	for i := range x.routes {
		r := &x.routes[i]
		if r.method != x.r.Method || r.level != at || (best != nil && len(best.by) >= len(r.by)) {
			continue
		}
		if !slices.ContainsFunc(r.by, func(p string) bool { return !x.query.Has(p) }) {
			best = r
		}
	}
	if best == nil {
		return nil, errNotImplemented
	}
	for name, values := range x.query {
		if len(values) > 1 {
			return nil, invalid("InvalidArgument", "a parameter is there twice: "+name)
		}
		// Parameters of a signed URL count as such; S3 knows x-id as a comment.
		if name != "x-id" && !(x.signature.Presigned && strings.HasPrefix(name, "X-Amz-")) &&
			!slices.Contains(best.by, name) && !slices.Contains(best.also, name) {
			return nil, errNotImplemented
		}
	}
	return best, x.checkHeaders()
}

// checkHeaders refuses what would mean something that is not served.
func (x *exchange) checkHeaders() error {
	h := x.r.Header
	for name, values := range h {
		switch {
		case name == "X-Amz-Acl":
			if v := values[0]; v != "private" && v != "bucket-owner-full-control" {
				return invalid("AccessControlListNotSupported", "access is granted to keys, not by ACLs")
			}
		case name == "X-Amz-Storage-Class":
			if values[0] != "STANDARD" {
				return invalid("InvalidStorageClass", "the only storage class is STANDARD")
			}
		case name == "X-Amz-Server-Side-Encryption":
			if values[0] != "AES256" {
				return errNotImplemented
			}
		case strings.HasPrefix(name, "X-Amz-Server-Side-Encryption-"), strings.HasPrefix(name, "X-Amz-Copy-Source-Server-Side-"),
			strings.HasPrefix(name, "X-Amz-Object-Lock-"), strings.HasPrefix(name, "X-Amz-Grant-"),
			name == "X-Amz-Bucket-Object-Lock-Enabled" && values[0] != "false",
			name == "X-Amz-Website-Redirect-Location", name == "X-Amz-Write-Offset-Bytes", name == "X-Amz-Mfa",
			name == "X-Amz-Expected-Bucket-Owner", name == "X-Amz-Rename-Source":
			return errNotImplemented
		}
	}
	return nil
}

// progress lets a body take long as long as bytes come.
type progress struct {
	x *exchange
	n int
}

// stallEvery is how many bytes may pass before the deadline is moved.
const stallEvery = 256 << 10

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.x.r.Body.Read(b)
	if p.n += n; p.n >= stallEvery {
		p.n = 0
		p.x.stall()
	}
	return n, err
}
