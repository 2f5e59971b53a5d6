package s3api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/objects"
)

type initiateDocument struct {
	XMLName  struct{} `xml:"InitiateMultipartUploadResult"`
	Xmlns    string   `xml:"xmlns,attr"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

func (x *exchange) beginUpload() error {
	a, err := x.attributes()
	if err != nil {
		return err
	}
	u := objects.Upload{
		Key: x.key, By: x.holder.String(),
		Algorithm:    strings.ToLower(x.r.Header.Get("X-Amz-Checksum-Algorithm")),
		ChecksumType: x.r.Header.Get("X-Amz-Checksum-Type"),
	}
	if u.ChecksumType == "" {
		u.ChecksumType = composite
		if u.Algorithm == "crc64nvme" {
			u.ChecksumType = fullObject
		}
	}
	if u.Algorithm != "" && newChecksum(u.Algorithm) == nil || u.ChecksumType != composite && u.ChecksumType != fullObject ||
		u.ChecksumType == fullObject && !fullObjectAlgorithm(u.Algorithm) || u.ChecksumType == composite && u.Algorithm == "crc64nvme" {
		return invalid("InvalidRequest", "the checksum's algorithm or type is not served")
	}
	if u, err = x.Store.BeginUpload(x.r.Context(), x.namespace, x.bucket, u, a); err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	if u.Algorithm != "" {
		h.Set("X-Amz-Checksum-Algorithm", strings.ToUpper(u.Algorithm))
		h.Set("X-Amz-Checksum-Type", u.ChecksumType)
	}
	x.document(http.StatusOK, initiateDocument{Xmlns: xmlns, Bucket: joinBucket(x.namespace, x.bucket), Key: x.key, UploadID: u.ID})
	return nil
}

func (x *exchange) putPart() error {
	number, err := strconv.Atoi(x.query.Get("partNumber"))
	if err != nil || number < 1 || number > objects.MaxParts {
		return invalid("InvalidArgument", "partNumber must be 1 to 10000")
	}
	if x.r.Header.Get("X-Amz-Copy-Source") != "" {
		return x.copyPart(number)
	}
	p, err := x.put()
	if err != nil {
		return err
	}
	part, err := x.Store.PutPart(x.r.Context(), p, x.query.Get("uploadId"), number)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("ETag", quote(part.ETag))
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	for algorithm, sum := range part.Checksums {
		h.Set(checksumHeader+algorithm, sum)
	}
	x.done(http.StatusOK)
	return nil
}

// sums are the checksums of a part in documents.
type sums struct {
	CRC32     string `xml:"ChecksumCRC32,omitempty"`
	CRC32C    string `xml:"ChecksumCRC32C,omitempty"`
	CRC64NVME string `xml:"ChecksumCRC64NVME,omitempty"`
	SHA1      string `xml:"ChecksumSHA1,omitempty"`
	SHA256    string `xml:"ChecksumSHA256,omitempty"`
}

func (s *sums) fields() map[string]*string {
	return map[string]*string{"crc32": &s.CRC32, "crc32c": &s.CRC32C, "crc64nvme": &s.CRC64NVME, "sha1": &s.SHA1, "sha256": &s.SHA256}
}

func (s *sums) asMap() map[string]string {
	out := map[string]string{}
	for algorithm, v := range s.fields() {
		if *v != "" {
			out[algorithm] = *v
		}
	}
	return out
}

func sumsOf(m map[string]string) (s sums) {
	for algorithm, field := range s.fields() {
		*field = m[algorithm]
	}
	return s
}

type completeDocument struct {
	XMLName struct{} `xml:"CompleteMultipartUpload"`
	Parts   []struct {
		PartNumber int
		ETag       string
		sums
	} `xml:"Part"`
}

type completedDocument struct {
	XMLName  struct{} `xml:"CompleteMultipartUploadResult"`
	Xmlns    string   `xml:"xmlns,attr"`
	Location string
	Bucket   string
	Key      string
	ETag     string
	sums
	ChecksumType string `xml:",omitempty"`
}

func (x *exchange) completeUpload() error {
	// A checksum among the headers is that of the object, not of the document.
	claimed := map[string]string{}
	for name, v := range x.r.Header {
		if a := strings.ToLower(strings.TrimPrefix(name, checksumHeader)); strings.HasPrefix(name, checksumHeader) && newChecksum(a) != nil {
			claimed[a] = v[0]
			x.r.Header.Del(name)
		}
	}
	var in completeDocument
	if err := x.parse(maxComplete, &in); err != nil {
		return err
	}
	c := &objects.Complete{
		Namespace: x.namespace, Bucket: x.bucket, Key: x.key, UploadID: x.query.Get("uploadId"), By: x.holder.String(),
	}
	var err error
	if c.Condition, err = x.condition(); err != nil {
		return err
	}
	if len(in.Parts) == 0 {
		return errMalformedXML
	}
	for _, p := range in.Parts {
		c.Parts = append(c.Parts, objects.Part{Number: p.PartNumber, ETag: strings.Trim(p.ETag, `"`), Checksums: p.asMap()})
	}
	c.Checksum = func(u objects.Upload, parts []objects.Part) (map[string]string, string, error) {
		got, kind, err := whole(u, parts)
		for a, want := range claimed {
			if sum, ok := got[a]; ok && sum != want && strings.SplitN(sum, "-", 2)[0] != want {
				return nil, "", invalid("BadDigest", "the object is not the one that the checksum is of")
			}
		}
		if size := x.r.Header.Get("X-Amz-Mp-Object-Size"); size != "" && err == nil {
			total := int64(0)
			for _, p := range parts {
				total += p.Size
			}
			if size != strconv.FormatInt(total, 10) {
				return nil, "", invalid("InvalidRequest", "the object has another size than x-amz-mp-object-size")
			}
		}
		return got, kind, err
	}
	o, err := x.Store.CompleteUpload(x.r.Context(), c)
	if err != nil {
		return err
	}
	x.stored(&o)
	x.w.Header().Del("ETag")
	x.document(http.StatusOK, completedDocument{
		Xmlns: xmlns, Location: "/" + joinBucket(x.namespace, x.bucket) + "/" + encodeKey(x.key), Bucket: joinBucket(x.namespace, x.bucket),
		Key: x.key, ETag: quote(o.ETag), sums: sumsOf(o.Checksums), ChecksumType: o.ChecksumType,
	})
	return nil
}

func (x *exchange) abortUpload() error {
	if err := x.Store.AbortUpload(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("uploadId")); err != nil {
		return err
	}
	x.done(http.StatusNoContent)
	return nil
}

type partsDocument struct {
	XMLName              struct{} `xml:"ListPartsResult"`
	Xmlns                string   `xml:"xmlns,attr"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	Initiator            owner
	Owner                owner
	StorageClass         string
	ChecksumAlgorithm    string `xml:",omitempty"`
	ChecksumType         string `xml:",omitempty"`
	PartNumberMarker     int
	NextPartNumberMarker int `xml:",omitempty"`
	MaxParts             int
	IsTruncated          bool
	Parts                []partEntry `xml:"Part"`
}

type partEntry struct {
	PartNumber   int
	LastModified stamp
	ETag         string
	Size         int64
	sums
}

func (x *exchange) listParts() error {
	l, write, err := x.list("max-parts")
	if err != nil {
		return err
	}
	marker := 0
	if v := x.query.Get("part-number-marker"); v != "" {
		if marker, err = strconv.Atoi(v); err != nil || marker < 0 {
			return invalid("InvalidArgument", "part-number-marker is not a number")
		}
	}
	u, parts, err := x.Store.Parts(x.r.Context(), x.namespace, x.bucket, x.key, x.query.Get("uploadId"))
	if err != nil {
		return err
	}
	out := partsDocument{
		Xmlns: xmlns, Bucket: joinBucket(x.namespace, x.bucket), Key: write(x.key), UploadID: u.ID, Initiator: house, Owner: house,
		StorageClass: "STANDARD", PartNumberMarker: marker, MaxParts: l.Limit,
	}
	if u.Algorithm != "" {
		out.ChecksumAlgorithm, out.ChecksumType = strings.ToUpper(u.Algorithm), u.ChecksumType
	}
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(out.Parts) == l.Limit {
			out.IsTruncated = l.Limit > 0
			break
		}
		out.Parts = append(out.Parts, partEntry{p.Number, stamp(p.Modified), quote(p.ETag), p.Size, sumsOf(p.Checksums)})
		out.NextPartNumberMarker = p.Number
	}
	x.document(http.StatusOK, out)
	return nil
}

type uploadsDocument struct {
	XMLName            struct{} `xml:"ListMultipartUploadsResult"`
	Xmlns              string   `xml:"xmlns,attr"`
	Bucket             string
	KeyMarker          string
	UploadIDMarker     string `xml:"UploadIdMarker"`
	NextKeyMarker      string `xml:",omitempty"`
	NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
	Prefix             string
	EncodingType       string `xml:",omitempty"`
	MaxUploads         int
	IsTruncated        bool
	Uploads            []uploadEntry `xml:"Upload"`
}

type uploadEntry struct {
	Key          string
	UploadID     string `xml:"UploadId"`
	Initiator    owner
	Owner        owner
	StorageClass string
	Initiated    stamp
}

func (x *exchange) listUploads() error {
	l, write, err := x.list("max-uploads")
	if err != nil {
		return err
	}
	if l.Delimiter != "" {
		return errNotImplemented
	}
	all, err := x.Store.Uploads(x.r.Context(), x.namespace, x.bucket)
	if err != nil {
		return err
	}
	key, id := x.query.Get("key-marker"), x.query.Get("upload-id-marker")
	out := uploadsDocument{
		Xmlns: xmlns, Bucket: joinBucket(x.namespace, x.bucket), KeyMarker: write(key), UploadIDMarker: id,
		Prefix: write(l.Prefix), EncodingType: x.query.Get("encoding-type"), MaxUploads: l.Limit,
	}
	for _, u := range all {
		if u.Key < key || u.Key == key && (id == "" || u.ID <= id) && key != "" || !strings.HasPrefix(u.Key, l.Prefix) {
			continue
		}
		if len(out.Uploads) == l.Limit {
			out.IsTruncated = l.Limit > 0
			break
		}
		out.Uploads = append(out.Uploads, uploadEntry{write(u.Key), u.ID, house, house, "STANDARD", stamp(u.Started)})
		out.NextKeyMarker, out.NextUploadIDMarker = write(u.Key), u.ID
	}
	if !out.IsTruncated {
		out.NextKeyMarker, out.NextUploadIDMarker = "", ""
	}
	x.document(http.StatusOK, out)
	return nil
}
