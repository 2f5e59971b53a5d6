package s3api

import (
	"net/http"
	"strings"
)

type bucketsDocument struct {
	XMLName struct{} `xml:"ListAllMyBucketsResult"`
	Xmlns   string   `xml:"xmlns,attr"`
	Owner   owner
	Buckets []bucketEntry `xml:"Buckets>Bucket"`
}

type bucketEntry struct {
	Name         string
	CreationDate stamp
}

// listBuckets lists what the key may read, all at once: there are at most some thousand.
func (x *exchange) listBuckets() error {
	out := bucketsDocument{Xmlns: xmlns, Owner: house}
	for _, b := range x.Store.Buckets() {
		name := joinBucket(b.Namespace, b.Name)
		if x.holder.May(false, b.Namespace, b.Name) && strings.HasPrefix(name, x.query.Get("prefix")) {
			out.Buckets = append(out.Buckets, bucketEntry{name, stamp(b.Created)})
		}
	}
	x.document(http.StatusOK, out)
	return nil
}

type createDocument struct {
	XMLName            struct{} `xml:"CreateBucketConfiguration"`
	LocationConstraint string
}

func (x *exchange) createBucket() error {
	if x.r.ContentLength != 0 {
		var in createDocument // any region will do, there is one
		if err := x.parse(maxDocument, &in); err != nil {
			return err
		}
	}
	if err := x.Store.CreateBucket(x.r.Context(), x.namespace, x.bucket, x.holder.String()); err != nil {
		return err
	}
	x.w.Header().Set("Location", "/"+joinBucket(x.namespace, x.bucket))
	x.done(http.StatusOK)
	return nil
}

func (x *exchange) headBucket() error {
	if _, err := x.Store.Bucket(x.namespace, x.bucket); err != nil {
		return err
	}
	x.w.Header().Set("X-Amz-Bucket-Region", region)
	x.done(http.StatusOK)
	return nil
}

func (x *exchange) deleteBucket() error {
	if err := x.Store.DeleteBucket(x.r.Context(), x.namespace, x.bucket); err != nil {
		return err
	}
	x.done(http.StatusNoContent)
	return nil
}

type locationDocument struct {
	XMLName  struct{} `xml:"LocationConstraint"`
	Xmlns    string   `xml:"xmlns,attr"`
	Location string   `xml:",chardata"`
}

// location says nothing, which means us-east-1.
func (x *exchange) location() error {
	if _, err := x.Store.Bucket(x.namespace, x.bucket); err != nil {
		return err
	}
	x.document(http.StatusOK, locationDocument{Xmlns: xmlns})
	return nil
}

type versioningDocument struct {
	XMLName   struct{} `xml:"VersioningConfiguration"`
	Xmlns     string   `xml:"xmlns,attr,omitempty"`
	Status    string   `xml:",omitempty"`
	MfaDelete string   `xml:",omitempty"`
}

func (x *exchange) getVersioning() error {
	b, err := x.Store.Bucket(x.namespace, x.bucket)
	if err != nil {
		return err
	}
	x.document(http.StatusOK, versioningDocument{Xmlns: xmlns, Status: b.Versioning})
	return nil
}

func (x *exchange) putVersioning() error {
	var in versioningDocument
	if err := x.parse(maxDocument, &in); err != nil {
		return err
	}
	switch {
	case in.MfaDelete != "" && in.MfaDelete != "Disabled":
		return errNotImplemented
	case in.Status != "Enabled" && in.Status != "Suspended":
		return errMalformedXML
	}
	if err := x.Store.SetVersioning(x.r.Context(), x.namespace, x.bucket, in.Status); err != nil {
		return err
	}
	x.done(http.StatusOK)
	return nil
}

type encryptionDocument struct {
	XMLName   struct{} `xml:"ServerSideEncryptionConfiguration"`
	Xmlns     string   `xml:"xmlns,attr"`
	Algorithm string   `xml:"Rule>ApplyServerSideEncryptionByDefault>SSEAlgorithm"`
}

func (x *exchange) encryption() error {
	if _, err := x.Store.Bucket(x.namespace, x.bucket); err != nil {
		return err
	}
	x.document(http.StatusOK, encryptionDocument{Xmlns: xmlns, Algorithm: "AES256"})
	return nil
}
