package lambdashape

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

// awsTime is how AWS writes times in S3 records.
const awsTime = "2006-01-02T15:04:05.000Z"

func read(m *event.Message, into any) error {
	d := json.NewDecoder(bytes.NewReader(m.Data))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("writing event %s for Lambda: its data is not that of %s: %v", m.ID, m.Type, err)
	}
	return nil
}

func s3Event(ms []*event.Message) (any, error) {
	records := make([]any, len(ms))
	for i, m := range ms {
		var o struct {
			Bucket, Key, ETag, VersionID, EventTime, Operation string
			Size                                               int64
		}
		if err := read(m, &o); err != nil {
			return nil, err
		}
		removed := strings.HasSuffix(m.Type, ".removed")
		object := map[string]any{
			// AWS escapes the key as a form does, but for the slash.
			"key": strings.ReplaceAll(url.QueryEscape(o.Key), "%2F", "/"), "sequencer": sequencer(m),
		}
		if !removed {
			object["size"], object["eTag"] = o.Size, strings.Trim(o.ETag, `"`)
		}
		if o.VersionID != "" {
			object["versionId"] = o.VersionID
		}
		when := m.Time
		if t, err := time.Parse(time.RFC3339Nano, o.EventTime); err == nil {
			when = t
		}
		who := map[string]any{"principalId": "AWS:" + principal(m)}
		records[i] = map[string]any{
			"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": function.Region,
			"eventTime": when.UTC().Format(awsTime), "eventName": s3Name(o.Operation, removed),
			"userIdentity": who, "requestParameters": map[string]any{"sourceIPAddress": "127.0.0.1"},
			"responseElements": map[string]any{"x-amz-request-id": m.ID, "x-amz-id-2": m.ID},
			"s3": map[string]any{
				"s3SchemaVersion": "1.0", "configurationId": m.Source,
				"bucket": map[string]any{"name": o.Bucket, "ownerIdentity": map[string]any{"principalId": function.Account}, "arn": "arn:aws:s3:::" + o.Bucket},
				"object": object,
			},
		}
	}
	return map[string]any{"Records": records}, nil
}

func principal(m *event.Message) string {
	if p := m.Extensions["principal"]; p != "" {
		return p
	}
	return function.Account
}

func s3Name(operation string, removed bool) string {
	op := strings.ToLower(operation)
	switch {
	case removed && strings.Contains(op, "marker"):
		return "ObjectRemoved:DeleteMarkerCreated"
	case removed:
		return "ObjectRemoved:Delete"
	case strings.Contains(op, "multipart"):
		return "ObjectCreated:CompleteMultipartUpload"
	case strings.Contains(op, "copy"):
		return "ObjectCreated:Copy"
	case strings.Contains(op, "post"):
		return "ObjectCreated:Post"
	default:
		return "ObjectCreated:Put"
	}
}

// sequencer orders the events of one object, as text of one length.
func sequencer(m *event.Message) string {
	if n, err := strconv.ParseUint(m.Extensions["sequence"], 10, 64); err == nil {
		return fmt.Sprintf("%016X", n)
	}
	return fmt.Sprintf("%016X", m.Time.UnixNano())
}

func dynamoEvent(ms []*event.Message) (any, error) {
	records := make([]any, len(ms))
	for i, m := range ms {
		change := map[string]any{
			"ApproximateCreationDateTime": m.Time.Unix(), "SequenceNumber": sequenceNumber(m),
			"SizeBytes": len(m.Data), "StreamViewType": "NEW_AND_OLD_IMAGES",
		}
		name, table := "MODIFY", m.Subject
		if strings.HasPrefix(m.Type, "casemate.kv.") {
			var kv struct {
				Bucket, Key string
				Value       *string
				Revision    json.Number
			}
			if err := read(m, &kv); err != nil {
				return nil, err
			}
			table = kv.Bucket
			key := map[string]any{"key": map[string]any{"S": kv.Key}}
			change["Keys"] = key
			switch {
			case strings.HasSuffix(m.Type, ".delete"):
				name = "REMOVE"
			default:
				if kv.Revision == "1" {
					name = "INSERT"
				}
				image := map[string]any{"key": key["key"], "revision": map[string]any{"N": kv.Revision.String()}}
				if kv.Value != nil {
					image["value"] = map[string]any{"B": *kv.Value} // in base64, as both have it
				}
				change["NewImage"] = image
			}
		} else {
			var row struct{ Key, New, Old map[string]any }
			if err := read(m, &row); err != nil {
				return nil, err
			}
			for field, columns := range map[string]map[string]any{"Keys": row.Key, "NewImage": row.New, "OldImage": row.Old} {
				if columns != nil {
					change[field] = attributes(columns)
				}
			}
			switch m.Type[strings.LastIndexByte(m.Type, '.')+1:] {
			case "insert", "snapshot":
				name = "INSERT"
			case "delete", "truncate":
				name = "REMOVE"
			}
		}
		records[i] = map[string]any{
			"eventID": m.ID, "eventVersion": "1.1", "eventSource": "aws:dynamodb", "awsRegion": function.Region,
			"eventName": name, "eventSourceARN": arn("dynamodb", "table/"+table+"/stream/casemate"), "dynamodb": change,
		}
	}
	return map[string]any{"Records": records}, nil
}

func attributes(columns map[string]any) map[string]any {
	out := make(map[string]any, len(columns))
	for name, v := range columns {
		out[name] = value(v)
	}
	return out
}

// value writes a value as DynamoDB does, with its type.
func value(v any) map[string]any {
	switch v := v.(type) {
	case string:
		return map[string]any{"S": v}
	case json.Number:
		return map[string]any{"N": v.String()}
	case bool:
		return map[string]any{"BOOL": v}
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = value(v[i])
		}
		return map[string]any{"L": list}
	case map[string]any:
		return map[string]any{"M": attributes(v)}
	default:
		return map[string]any{"NULL": true}
	}
}

// sequenceNumber is digits, as DynamoDB's are, and a different one for each event: the
// extension sequence when that is a number, or else one made from the id.
func sequenceNumber(m *event.Message) string {
	if s := m.Extensions["sequence"]; s != "" && strings.Trim(s, "0123456789") == "" {
		return s
	}
	sum := sha256.Sum256([]byte(m.ID))
	return new(big.Int).SetBytes(sum[:16]).String()
}

func bridgeEvent(ms []*event.Message, isSchedule bool) any {
	events := make([]any, len(ms))
	for i, m := range ms {
		sum := sha256.Sum256([]byte(m.Source + "\n" + m.ID))
		id := hex.EncodeToString(sum[:16])
		e := map[string]any{
			"version": "0", "id": id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:],
			"account": function.Account, "region": function.Region, "time": m.Time.UTC().Format(time.RFC3339),
		}
		if isSchedule {
			e["detail-type"], e["source"] = "Scheduled Event", "aws.events"
			e["resources"], e["detail"] = []string{arn("events", "rule/"+m.Subject)}, map[string]any{}
		} else {
			e["detail-type"], e["source"], e["resources"], e["detail"] = m.Type, m.Source, resources(m), detail(m)
		}
		events[i] = e
	}
	if len(events) == 1 {
		return events[0]
	}
	return events
}

func resources(m *event.Message) []string {
	if m.Subject == "" {
		return []string{}
	}
	return []string{m.Subject}
}

// detail is an object, because EventBridge has nothing else: data that is none is put
// into one.
func detail(m *event.Message) any {
	data := bytes.TrimSpace(m.Data)
	switch {
	case len(data) == 0:
		return map[string]any{}
	case json.Valid(data) && data[0] == '{':
		return json.RawMessage(data)
	case json.Valid(data):
		return map[string]any{"data": json.RawMessage(data)}
	case utf8.Valid(m.Data):
		return map[string]any{"data": string(m.Data)}
	default:
		return map[string]any{"data_base64": m.Data}
	}
}
