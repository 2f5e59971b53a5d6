package s3api

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/internal/objects"
)

type listing struct {
	XMLName               struct{} `xml:"ListBucketResult"`
	Xmlns                 string   `xml:"xmlns,attr"`
	Name                  string
	Prefix                string
	Delimiter             string  `xml:",omitempty"`
	Marker                *string `xml:",omitempty"`
	NextMarker            string  `xml:",omitempty"`
	KeyCount              *int    `xml:",omitempty"`
	ContinuationToken     string  `xml:",omitempty"`
	NextContinuationToken string  `xml:",omitempty"`
	StartAfter            string  `xml:",omitempty"`
	MaxKeys               int
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []listed
	CommonPrefixes        []prefixEntry
}

type listed struct {
	Key               string
	LastModified      stamp
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	StorageClass      string
	Owner             *owner `xml:",omitempty"`
}

type prefixEntry struct{ Prefix string }

// list reads what all lists have in common, and how keys are written.
func (x *exchange) list(maxName string) (objects.List, func(string) string, error) {
	l := objects.List{
		Namespace: x.namespace, Bucket: x.bucket, Limit: objects.MaxList,
		Prefix: x.query.Get("prefix"), Delimiter: x.query.Get("delimiter"),
	}
	if v := x.query.Get(maxName); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return l, nil, invalid("InvalidArgument", maxName+" is not a number")
		}
		l.Limit = min(n, objects.MaxList)
	}
	if len(l.Prefix) > objects.MaxKey || len(l.Delimiter) > objects.MaxKey {
		return l, nil, invalid("InvalidArgument", "prefix or delimiter is longer than a key can be")
	}
	switch x.query.Get("encoding-type") {
	case "":
		return l, func(s string) string { return s }, nil
	case "url":
		return l, encodeKey, nil
	default:
		return l, nil, invalid("InvalidArgument", "the only encoding-type is url")
	}
}

func (x *exchange) fill(page *objects.Page, l objects.List, write func(string) string, fetchOwner bool) *listing {
	out := &listing{
		Xmlns: xmlns, Name: joinBucket(x.namespace, x.bucket), Prefix: write(l.Prefix), Delimiter: write(l.Delimiter),
		MaxKeys: l.Limit, EncodingType: x.query.Get("encoding-type"), IsTruncated: page.More,
	}
	for i := range page.Objects {
		o := &page.Objects[i]
		e := listed{Key: write(o.Key), LastModified: stamp(o.Modified), ETag: quote(o.ETag), Size: o.Size, StorageClass: "STANDARD"}
		for algorithm := range o.Checksums {
			e.ChecksumAlgorithm, e.ChecksumType = strings.ToUpper(algorithm), o.ChecksumType
		}
		if fetchOwner {
			e.Owner = &house
		}
		out.Contents = append(out.Contents, e)
	}
	for _, g := range page.Groups {
		out.CommonPrefixes = append(out.CommonPrefixes, prefixEntry{write(g)})
	}
	return out
}

func (x *exchange) listV1() error {
	l, write, err := x.list("max-keys")
	if err != nil {
		return err
	}
	marker := x.query.Get("marker")
	page, err := x.Store.Objects(x.r.Context(), l, position(marker, l))
	if err != nil {
		return err
	}
	out := x.fill(&page, l, write, true)
	m := write(marker)
	out.Marker = &m
	if page.More {
		out.NextMarker = write(page.Next.Key)
	}
	x.document(http.StatusOK, out)
	return nil
}

// position reads a marker. One that a list gave for a group is behind all of the group.
func position(marker string, l objects.List) objects.Position {
	rest, ok := strings.CutPrefix(marker, l.Prefix)
	group := ok && l.Delimiter != "" && strings.Index(rest, l.Delimiter) == len(rest)-len(l.Delimiter) && rest != ""
	return objects.Position{Key: marker, Group: group && strings.HasSuffix(rest, l.Delimiter)}
}

func (x *exchange) listV2() error {
	if x.query.Get("list-type") != "2" {
		return errNotImplemented
	}
	l, write, err := x.list("max-keys")
	if err != nil {
		return err
	}
	from := objects.Position{Key: x.query.Get("start-after")}
	token := x.query.Get("continuation-token")
	if x.query.Has("continuation-token") {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) < 2 || len(raw) > objects.MaxKey+1 || (raw[0] != 'k' && raw[0] != 'g') {
			return invalid("InvalidArgument", "the continuation token is not one of ours")
		}
		from = objects.Position{Key: string(raw[1:]), Group: raw[0] == 'g'}
	}
	page, err := x.Store.Objects(x.r.Context(), l, from)
	if err != nil {
		return err
	}
	out := x.fill(&page, l, write, x.query.Get("fetch-owner") == "true")
	count := len(page.Objects) + len(page.Groups)
	out.KeyCount, out.ContinuationToken, out.StartAfter = &count, token, write(x.query.Get("start-after"))
	if page.More {
		kind := "k"
		if page.Next.Group {
			kind = "g"
		}
		out.NextContinuationToken = base64.RawURLEncoding.EncodeToString([]byte(kind + page.Next.Key))
	}
	x.document(http.StatusOK, out)
	return nil
}

type versionsDocument struct {
	XMLName             struct{} `xml:"ListVersionsResult"`
	Xmlns               string   `xml:"xmlns,attr"`
	Name                string
	Prefix              string
	Delimiter           string `xml:",omitempty"`
	KeyMarker           string
	VersionIDMarker     string `xml:"VersionIdMarker"`
	NextKeyMarker       string `xml:",omitempty"`
	NextVersionIDMarker string `xml:"NextVersionIdMarker,omitempty"`
	MaxKeys             int
	EncodingType        string `xml:",omitempty"`
	IsTruncated         bool
	Entries             []any
	CommonPrefixes      []prefixEntry
}

type versionEntry struct {
	XMLName      struct{} `xml:"Version"`
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified stamp
	ETag         string
	Size         int64
	StorageClass string
	Owner        owner
}

type markerEntry struct {
	XMLName      struct{} `xml:"DeleteMarker"`
	Key          string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
	LastModified stamp
	Owner        owner
}

func (x *exchange) listVersions() error {
	l, write, err := x.list("max-keys")
	if err != nil {
		return err
	}
	marker, version := x.query.Get("key-marker"), x.query.Get("version-id-marker")
	from := position(marker, l)
	if version != "" {
		if marker == "" {
			return invalid("InvalidArgument", "version-id-marker needs key-marker")
		}
		from = objects.Position{Key: marker, VersionID: version}
	}
	page, err := x.Store.Versions(x.r.Context(), l, from)
	if err != nil {
		return err
	}
	out := versionsDocument{
		Xmlns: xmlns, Name: joinBucket(x.namespace, x.bucket), Prefix: write(l.Prefix), Delimiter: write(l.Delimiter),
		KeyMarker: write(marker), VersionIDMarker: version, MaxKeys: l.Limit,
		EncodingType: x.query.Get("encoding-type"), IsTruncated: page.More,
	}
	if page.More {
		out.NextKeyMarker, out.NextVersionIDMarker = write(page.Next.Key), page.Next.VersionID
	}
	for i := range page.Objects {
		o := &page.Objects[i]
		if o.Marker {
			out.Entries = append(out.Entries, markerEntry{
				Key: write(o.Key), VersionID: o.VersionID, IsLatest: o.Current, LastModified: stamp(o.Modified), Owner: house,
			})
			continue
		}
		out.Entries = append(out.Entries, versionEntry{
			Key: write(o.Key), VersionID: o.VersionID, IsLatest: o.Current, LastModified: stamp(o.Modified),
			ETag: quote(o.ETag), Size: o.Size, StorageClass: "STANDARD", Owner: house,
		})
	}
	for _, g := range page.Groups {
		out.CommonPrefixes = append(out.CommonPrefixes, prefixEntry{write(g)})
	}
	x.document(http.StatusOK, out)
	return nil
}
