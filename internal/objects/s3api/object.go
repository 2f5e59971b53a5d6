package s3api

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/objects"
	"github.com/casemate-dev/casemate/internal/objects/sigv4"
)

const metaHeader = "X-Amz-Meta-"

// attributes reads what the headers say about an object.
func (x *exchange) attributes() (objects.Attributes, error) {
	h := x.r.Header
	a := objects.Attributes{ContentType: h.Get("Content-Type"), Headers: map[string]string{}, Meta: map[string]string{}}
	if a.ContentType == "" {
		a.ContentType = "binary/octet-stream"
	}
	for _, name := range []string{"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires"} {
		if v := h.Get(name); v != "" {
			a.Headers[name] = v
		}
	}
	// aws-chunked is how the body came, not what it is.
	var rest []string
	for e := range strings.SplitSeq(a.Headers["Content-Encoding"], ",") {
		if e = strings.TrimSpace(e); e != "" && e != "aws-chunked" {
			rest = append(rest, e)
		}
	}
	if delete(a.Headers, "Content-Encoding"); len(rest) > 0 {
		a.Headers["Content-Encoding"] = strings.Join(rest, ",")
	}
	for name, values := range h {
		if m, ok := strings.CutPrefix(name, metaHeader); ok {
			a.Meta[strings.ToLower(m)] = values[0]
		}
	}
	if t := h.Get("X-Amz-Tagging"); t != "" {
		q, err := url.ParseQuery(t)
		if err != nil {
			return a, invalid("InvalidTag", "x-amz-tagging is not a query")
		}
		a.Tags = map[string]string{}
		for k, v := range q {
			if len(v) > 1 {
				return a, invalid("InvalidTag", "a tag is there twice")
			}
			a.Tags[k] = v[0]
		}
	}
	return a, nil
}

// size is how long the content of the body will be.
func (x *exchange) size() (int64, error) {
	switch x.signature.Payload {
	case sigv4.Chunks, sigv4.ChunksTrailer, sigv4.UnsignedChunks:
		n, err := strconv.ParseInt(x.r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || n < 0 {
			return 0, &apiError{http.StatusLengthRequired, "MissingContentLength", "x-amz-decoded-content-length is needed"}
		}
		return n, nil
	default:
		if x.r.ContentLength < 0 {
			return 0, &apiError{http.StatusLengthRequired, "MissingContentLength", "Content-Length is needed"}
		}
		return x.r.ContentLength, nil
	}
}

// condition reads what a change depends on.
func (x *exchange) condition() (c objects.Condition, err error) {
	if v := x.r.Header.Get("If-None-Match"); v != "" {
		if v != "*" {
			return c, errNotImplemented
		}
		c.Absent = true
	}
	if v := x.r.Header.Get("If-Match"); v != "" {
		c.ETag = strings.Trim(v, `"`)
	}
	return c, nil
}

func (x *exchange) put() (*objects.Put, error) {
	size, err := x.size()
	if err != nil {
		return nil, err
	}
	body, err := x.body()
	if err != nil {
		return nil, err
	}
	return &objects.Put{
		Namespace: x.namespace, Bucket: x.bucket, Key: x.key, Body: body, Size: size,
		Checksums: func() map[string]string { return body.checksums },
		Operation: objects.OpPut, By: x.holder.String(),
	}, nil
}

func (x *exchange) putObject() error {
	if x.r.Header.Get("X-Amz-Copy-Source") != "" {
		return x.copyObject()
	}
	p, err := x.put()
	if err != nil {
		return err
	}
	if p.Condition, err = x.condition(); err != nil {
		return err
	}
	if p.Attributes, err = x.attributes(); err != nil {
		return err
	}
	o, err := x.Store.Put(x.r.Context(), p)
	if err != nil {
		return err
	}
	x.stored(&o)
	x.done(http.StatusOK)
	return nil
}

// stored writes the headers that tell of an object that was stored.
func (x *exchange) stored(o *objects.Object) {
	h := x.w.Header()
	h.Set("ETag", quote(o.ETag))
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	if o.Versioned {
		h.Set("X-Amz-Version-Id", o.VersionID)
	}
	x.checksumHeaders(o)
}

func (x *exchange) checksumHeaders(o *objects.Object) {
	for algorithm, sum := range o.Checksums {
		x.w.Header().Set(checksumHeader+algorithm, sum)
		x.w.Header().Set(checksumHeader+"Type", o.ChecksumType)
	}
}

// done answers without a body.
func (x *exchange) done(status int) {
	if status != http.StatusNoContent {
		x.w.Header().Set("Content-Length", "0")
	}
	x.started = true
	x.w.WriteHeader(status)
}

func quote(etag string) string { return `"` + etag + `"` }

// getObject answers GET and HEAD.
func (x *exchange) getObject() error {
	o, err := x.Store.Get(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("versionId"))
	if errors.Is(err, objects.ErrMarker) || errors.Is(err, objects.ErrNoKey) && o != nil && o.Marker {
		x.w.Header().Set("X-Amz-Delete-Marker", "true")
		x.w.Header().Set("X-Amz-Version-Id", o.VersionID)
	}
	if err != nil {
		return err
	}
	defer o.Close()
	if err := readConditions(x.r.Header, "", o.ETag, o.Modified); err != nil {
		x.w.Header().Set("ETag", quote(o.ETag))
		return err
	}
	offset, length, status := int64(0), o.Size, http.StatusOK
	h := x.w.Header()
	switch part, field := x.query.Get("partNumber"), x.r.Header.Get("Range"); {
	case part != "":
		n, err := strconv.Atoi(part)
		ok := false
		if err == nil {
			offset, length, ok = o.Part(n)
		}
		if !ok {
			return &apiError{http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "the object has no such part"}
		}
		if o.Parts > 0 {
			h.Set("X-Amz-Mp-Parts-Count", strconv.Itoa(o.Parts))
			status = http.StatusPartialContent
		}
	case field != "":
		var ok, partial bool
		if offset, length, partial, ok = parseRange(field, o.Size); !ok {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(o.Size, 10))
			return &apiError{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "the object is shorter than that"}
		}
		if partial {
			status = http.StatusPartialContent
		}
	}
	if err := x.describe(&o.Object); err != nil {
		return err
	}
	if status == http.StatusPartialContent && o.Size > 0 {
		h.Set("Content-Range", "bytes "+strconv.FormatInt(offset, 10)+"-"+strconv.FormatInt(offset+length-1, 10)+"/"+strconv.FormatInt(o.Size, 10))
	} else if x.r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		x.checksumHeaders(&o.Object)
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if x.r.Method == http.MethodHead {
		x.started = true
		x.w.WriteHeader(status)
		return nil
	}
	return x.send(o, offset, length, status)
}

// send answers with bytes of an object. The first are read before the head is sent, so
// that what is corrupt from the start is an error and no broken body.
func (x *exchange) send(o *objects.Reader, offset, length int64, status int) error {
	body, err := o.Range(offset, length)
	if err != nil {
		return err
	}
	defer body.Close()
	buffer := make([]byte, 64<<10)
	for sent := int64(0); ; {
		n, err := body.Read(buffer)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !x.started {
			x.started = true
			x.w.WriteHeader(status)
		}
		if n > 0 {
			if _, err := x.w.Write(buffer[:n]); err != nil {
				return nil //nolint:nilerr // the client has gone, and there is nobody to tell
			}
			if sent += int64(n); sent%stallEvery < int64(n) {
				x.stall()
			}
		}
		if err != nil {
			return nil //nolint:nilerr // the end
		}
	}
}

// describe writes the headers that tell of an object.
func (x *exchange) describe(o *objects.Object) error {
	h := x.w.Header()
	h.Set("ETag", quote(o.ETag))
	h.Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	h.Set("Content-Type", o.ContentType)
	h.Set("Accept-Ranges", "bytes")
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	for k, v := range o.Headers {
		h.Set(k, v)
	}
	for k, v := range o.Meta {
		h[strings.ToLower(metaHeader)+k] = []string{v} // in lower case, as clients hand it on
	}
	if o.Versioned {
		h.Set("X-Amz-Version-Id", o.VersionID)
	}
	if len(o.Tags) > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(len(o.Tags)))
	}
	for parameter, values := range x.query {
		name, ok := strings.CutPrefix(parameter, "response-")
		if !ok {
			continue
		}
		if strings.ContainsFunc(values[0], func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			return invalid("InvalidArgument", "a header cannot hold that: "+parameter)
		}
		h.Set(name, values[0])
	}
	return nil
}

// readConditions checks If-Match and its kin (RFC 9110, section 13.2.2); prefix is that of
// the headers of a copy's source.
func readConditions(h http.Header, prefix, etag string, modified time.Time) error {
	modified = modified.Truncate(time.Second)
	date := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(h.Get(prefix + name))
		return t, err == nil
	}
	if v := h.Get(prefix + "If-Match"); v != "" {
		if !matches(v, etag) {
			return errPrecondition
		}
	} else if t, ok := date("If-Unmodified-Since"); ok && modified.After(t) {
		return errPrecondition
	}
	changed := true
	if v := h.Get(prefix + "If-None-Match"); v != "" {
		changed = !matches(v, etag)
	} else if t, ok := date("If-Modified-Since"); ok {
		changed = modified.After(t)
	}
	switch {
	case changed:
		return nil
	case prefix != "":
		return errPrecondition
	default:
		return errNotModified
	}
}

func matches(list, etag string) bool {
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimPrefix(strings.TrimSpace(v), "W/"); v == "*" || strings.Trim(v, `"`) == etag {
			return true
		}
	}
	return false
}

// parseRange reads a Range header with one range of bytes (RFC 9110, section 14.1.2). Any
// other header counts as none; ok is false when the object has no byte of the range.
func parseRange(field string, size int64) (offset, length int64, partial, ok bool) {
	spec, isBytes := strings.CutPrefix(field, "bytes=")
	first, last, isRange := strings.Cut(spec, "-")
	if !isBytes || !isRange || strings.ContainsAny(spec, ", ") {
		return 0, size, false, true
	}
	if first == "" { // the last so many
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil {
			return 0, size, false, true
		}
		if n == 0 || size == 0 {
			return 0, 0, false, false
		}
		length = min(int64(n), size)
		return size - length, length, true, true
	}
	a, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return 0, size, false, true
	}
	b := uint64(size) - 1
	if last != "" {
		if b, err = strconv.ParseUint(last, 10, 63); err != nil || b < a {
			return 0, size, false, true
		}
	}
	if a >= uint64(size) {
		return 0, 0, false, false
	}
	b = min(b, uint64(size)-1)
	return int64(a), int64(b-a) + 1, true, true
}

func (x *exchange) deleteObject() error {
	c, err := x.condition()
	if err != nil {
		return err
	}
	d, err := x.Store.Delete(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("versionId"), c, x.holder.String())
	if err != nil {
		return err
	}
	if d.VersionID != "" && d.Versioned {
		x.w.Header().Set("X-Amz-Version-Id", d.VersionID)
	}
	if d.Marker {
		x.w.Header().Set("X-Amz-Delete-Marker", "true")
	}
	x.done(http.StatusNoContent)
	return nil
}

type deleteDocument struct {
	XMLName struct{} `xml:"Delete"`
	Quiet   bool
	Objects []struct {
		Key       string
		VersionID string `xml:"VersionId"`
		ETag      string
	} `xml:"Object"`
}

type deletedDocument struct {
	XMLName struct{}       `xml:"DeleteResult"`
	Xmlns   string         `xml:"xmlns,attr"`
	Deleted []deletedEntry `xml:"Deleted"`
	Errors  []deleteError  `xml:"Error"`
}

type deletedEntry struct {
	Key             string
	VersionID       string `xml:"VersionId,omitempty"`
	DeleteMarker    bool   `xml:"DeleteMarker,omitempty"`
	MarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
}

type deleteError struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      string
	Message   string
}

func (x *exchange) deleteMany() error {
	var in deleteDocument
	if err := x.parse(maxDocument, &in); err != nil {
		return err
	}
	if len(in.Objects) == 0 || len(in.Objects) > objects.MaxList {
		return errMalformedXML
	}
	if _, err := x.Store.Bucket(x.namespace, x.bucket); err != nil {
		return err
	}
	out := deletedDocument{Xmlns: xmlns}
	for _, o := range in.Objects {
		c := objects.Condition{ETag: strings.Trim(o.ETag, `"`)}
		d, err := x.Store.Delete(x.r.Context(), x.namespace, x.bucket, o.Key, o.VersionID, c, x.holder.String())
		if err != nil {
			e := render(err)
			if e.status >= http.StatusInternalServerError {
				x.Log.Error("deleting an object", "request", x.id, "bucket", x.bucket, "error", err)
			}
			out.Errors = append(out.Errors, deleteError{o.Key, o.VersionID, e.code, e.reason})
			continue
		}
		if in.Quiet {
			continue
		}
		entry := deletedEntry{Key: o.Key, VersionID: o.VersionID, DeleteMarker: d.Marker}
		if d.Marker {
			entry.MarkerVersionID = d.VersionID
		}
		out.Deleted = append(out.Deleted, entry)
	}
	x.document(http.StatusOK, out)
	return nil
}
