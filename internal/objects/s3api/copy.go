package s3api

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/casemate-dev/casemate/internal/objects"
)

// source opens the object that x-amz-copy-source names, if it may be read.
func (x *exchange) source() (r *objects.Reader, namespace, bucket, key string, err error) {
	path, query, _ := strings.Cut(x.r.Header.Get("X-Amz-Copy-Source"), "?")
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return nil, "", "", "", invalid("InvalidArgument", "x-amz-copy-source is not percent-encoded")
	}
	name, key, ok := strings.Cut(strings.TrimPrefix(decoded, "/"), "/")
	if !ok || objects.CheckKey(key) != nil {
		return nil, "", "", "", invalid("InvalidArgument", "x-amz-copy-source is not of the form bucket/key")
	}
	version := ""
	if query != "" {
		if version, ok = strings.CutPrefix(query, "versionId="); !ok {
			return nil, "", "", "", invalid("InvalidArgument", "x-amz-copy-source has another parameter than versionId")
		}
	}
	if namespace, bucket, err = splitBucket(name); err != nil {
		return nil, "", "", "", err
	}
	if !x.holder.May(false, namespace, bucket) {
		return nil, "", "", "", errDenied
	}
	if r, err = x.Store.Get(x.r.Context(), namespace, bucket, key, version); err != nil {
		return nil, "", "", "", err
	}
	if err := readConditions(x.r.Header, "X-Amz-Copy-Source-", r.ETag, r.Modified); err != nil {
		r.Close()
		return nil, "", "", "", err
	}
	return r, namespace, bucket, key, nil
}

type copyDocument struct {
	XMLName      struct{} `xml:"CopyObjectResult"`
	Xmlns        string   `xml:"xmlns,attr"`
	LastModified stamp
	ETag         string
	sums
	ChecksumType string `xml:",omitempty"`
}

func (x *exchange) copyObject() error {
	r, namespace, bucket, key, err := x.source()
	if err != nil {
		return err
	}
	defer r.Close()
	p := &objects.Put{
		Namespace: x.namespace, Bucket: x.bucket, Key: x.key, Size: r.Size,
		Attributes: r.Attributes, Operation: objects.OpCopy, By: x.holder.String(),
	}
	given, err := x.attributes()
	if err != nil {
		return err
	}
	if p.Condition, err = x.condition(); err != nil {
		return err
	}
	replace, err := directive(x.r.Header.Get("X-Amz-Metadata-Directive"))
	if err != nil {
		return err
	}
	if replace {
		tags := p.Tags
		p.Attributes = given
		p.Tags = tags
	} else if namespace == x.namespace && bucket == x.bucket && key == x.key && r.Current {
		return invalid("InvalidRequest", "a copy onto itself must replace the metadata")
	}
	if replace, err = directive(x.r.Header.Get("X-Amz-Tagging-Directive")); err != nil {
		return err
	}
	if replace {
		p.Tags = given.Tags
	}
	if len(r.Checksums) > 0 && r.ChecksumType == fullObject {
		p.Checksums = func() map[string]string { return r.Checksums }
	}
	body, err := r.Range(0, r.Size)
	if err != nil {
		return err
	}
	defer body.Close()
	p.Body = body
	if algorithm := strings.ToLower(x.r.Header.Get(checksumHeader + "Algorithm")); algorithm != "" {
		h := newChecksum(algorithm)
		if h == nil {
			return invalid("InvalidRequest", "the checksum's algorithm is not served: "+algorithm)
		}
		p.Body = io.TeeReader(body, h)
		p.Checksums = func() map[string]string {
			return map[string]string{algorithm: base64.StdEncoding.EncodeToString(h.Sum(nil))}
		}
	}
	o, err := x.Store.Put(x.r.Context(), p)
	if err != nil {
		return err
	}
	if r.Versioned {
		x.w.Header().Set("X-Amz-Copy-Source-Version-Id", r.VersionID)
	}
	x.stored(&o)
	x.w.Header().Del("ETag")
	x.document(http.StatusOK, copyDocument{
		Xmlns: xmlns, LastModified: stamp(o.Modified), ETag: quote(o.ETag), sums: sumsOf(o.Checksums), ChecksumType: o.ChecksumType,
	})
	return nil
}

func directive(v string) (replace bool, err error) {
	switch v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalid("InvalidArgument", "a directive must be COPY or REPLACE")
	}
}

type copyPartDocument struct {
	XMLName      struct{} `xml:"CopyPartResult"`
	Xmlns        string   `xml:"xmlns,attr"`
	LastModified stamp
	ETag         string
}

func (x *exchange) copyPart(number int) error {
	r, _, _, _, err := x.source()
	if err != nil {
		return err
	}
	defer r.Close()
	offset, length := int64(0), r.Size
	if field := x.r.Header.Get("X-Amz-Copy-Source-Range"); field != "" {
		var partial, ok bool
		if offset, length, partial, ok = parseRange(field, r.Size); !ok || !partial {
			return invalid("InvalidArgument", "x-amz-copy-source-range is not a range of the object")
		}
	}
	body, err := r.Range(offset, length)
	if err != nil {
		return err
	}
	defer body.Close()
	p := &objects.Put{Namespace: x.namespace, Bucket: x.bucket, Key: x.key, Body: body, Size: length}
	part, err := x.Store.PutPart(x.r.Context(), p, x.query.Get("uploadId"), number)
	if err != nil {
		return err
	}
	x.document(http.StatusOK, copyPartDocument{Xmlns: xmlns, LastModified: stamp(part.Modified), ETag: quote(part.ETag)})
	return nil
}

type taggingDocument struct {
	XMLName struct{} `xml:"Tagging"`
	Xmlns   string   `xml:"xmlns,attr,omitempty"`
	Tags    []tag    `xml:"TagSet>Tag"`
}

type tag struct{ Key, Value string }

func (x *exchange) getTags() error {
	o, err := x.Store.Get(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("versionId"))
	if err != nil {
		return err
	}
	defer o.Close()
	out := taggingDocument{Xmlns: xmlns}
	for k, v := range o.Tags {
		out.Tags = append(out.Tags, tag{k, v})
	}
	x.document(http.StatusOK, out)
	return nil
}

func (x *exchange) putTags() error {
	var in taggingDocument
	if err := x.parse(maxDocument, &in); err != nil {
		return err
	}
	tags := map[string]string{}
	for _, t := range in.Tags {
		if _, twice := tags[t.Key]; twice {
			return invalid("InvalidTag", "a tag is there twice")
		}
		tags[t.Key] = t.Value
	}
	if _, err := x.Store.SetTags(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("versionId"), tags); err != nil {
		return err
	}
	x.done(http.StatusOK)
	return nil
}

func (x *exchange) deleteTags() error {
	if _, err := x.Store.SetTags(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("versionId"), nil); err != nil {
		return err
	}
	x.done(http.StatusNoContent)
	return nil
}
