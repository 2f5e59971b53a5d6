package cloudevent_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/event/cloudevent"
)

type headers = map[string][]string

func binary(more headers) headers {
	h := headers{
		"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"//shop"}, "ce-type": {"order.created"},
		"content-type": {"application/json"},
	}
	maps.Copy(h, more)
	return h
}

func structured() headers { return headers{"content-type": {"application/cloudevents+json"}} }
func batch() headers      { return headers{"content-type": {"application/cloudevents-batch+json"}} }

// object is an event in JSON with more members.
func object(more string) string {
	return `{"specversion":"1.0","id":"1","source":"//shop","type":"order.created"` + more + `}`
}

func TestBinaryIsRead(t *testing.T) {
	t.Parallel()
	h := binary(headers{
		"ce-subject": {"na%C3%AFve%20100%"}, "ce-time": {"2026-01-02T03:04:05.5+02:00"},
		"ce-partitionkey": {"customer 7"}, "ce-quoted": {`"a \"b\" c"`}, "ce-dataschema": {"https://x.example/s.json"},
		"user-agent": {"x"},
	})
	got, err := cloudevent.Read(h, []byte(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	want := event.Message{
		Event: event.Event{
			ID: "1", Source: "//shop", Type: "order.created", Subject: "naïve 100%",
			Time: time.Date(2026, 1, 2, 1, 4, 5, 5e8, time.UTC), DataContentType: "application/json",
			Extensions: map[string]string{"partitionkey": "customer 7", "quoted": `a "b" c`},
		},
		Data: []byte(`{"n":1}`), Key: "customer 7", Detail: map[string]string{"dataschema": "https://x.example/s.json"},
	}
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDataIsReadAsItsTypeSays(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ more, data, contentType string }{
		"none":              {``, "", ""},
		"JSON by default":   {`,"data":{"a": 1}`, `{"a": 1}`, "application/json"},
		"JSON string":       {`,"data":"x","datacontenttype":"application/json"`, `"x"`, "application/json"},
		"JSON by suffix":    {`,"data":[1],"datacontenttype":"application/geo+json"`, `[1]`, "application/geo+json"},
		"JSON null":         {`,"data":null`, `null`, "application/json"},
		"text":              {`,"data":"<x\/>\u00e9","datacontenttype":"application/xml"`, "<x/>é", "application/xml"},
		"type comes after":  {`,"data":"x","datacontenttype":"text/plain"`, "x", "text/plain"},
		"base64":            {`,"data_base64":"AP8=","datacontenttype":"image/png"`, "\x00\xff", "image/png"},
		"base64, no type":   {`,"data_base64":"AP8="`, "\x00\xff", ""},
		"base64 of nothing": {`,"data_base64":""`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := cloudevent.Read(structured(), []byte(object(tc.more)))
			if err != nil {
				t.Fatal(err)
			}
			if string(got[0].Data) != tc.data || got[0].DataContentType != tc.contentType {
				t.Errorf("got %q of type %q", got[0].Data, got[0].DataContentType)
			}
		})
	}
}

func TestAttributesOfOtherTypesAreCanonicalText(t *testing.T) {
	t.Parallel()
	got, err := cloudevent.Read(structured(), []byte(object(`,"yes":true,"n":-0,"most":2147483647,"none":null,"subject":null`)))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"yes": "true", "n": "0", "most": "2147483647"}; !reflect.DeepEqual(got[0].Extensions, want) {
		t.Errorf("got %v, want %v", got[0].Extensions, want)
	}
}

// refusals are requests that must not be read, by the attack or mistake that they are.
var refusals = map[string]struct {
	header headers
	body   string
	code   cloudevent.Code
}{
	"no form at all":                {headers{"content-type": {"application/json"}}, `{}`, cloudevent.NotCloudEvent},
	"Avro":                          {headers{"content-type": {"application/cloudevents+avro"}}, ``, cloudevent.Unsupported},
	"another charset":               {headers{"content-type": {"application/cloudevents+json; charset=utf-16"}}, object(""), cloudevent.Unsupported},
	"version 0.3":                   {binary(headers{"ce-specversion": {"0.3"}}), `{}`, cloudevent.Unsupported},
	"version as a number":           {structured(), `{"specversion":1.0,"id":"1","source":"s","type":"t"}`, cloudevent.Malformed},
	"no version":                    {structured(), `{"id":"1","source":"s","type":"t"}`, cloudevent.Malformed},
	"two content types":             {headers{"content-type": {"application/cloudevents+json", "text/plain"}}, object(""), cloudevent.Malformed},
	"content type of nothing":       {binary(headers{"content-type": {";"}}), ``, cloudevent.Malformed},
	"two ids":                       {binary(headers{"ce-id": {"1", "2"}}), `{}`, cloudevent.Malformed},
	"no id":                         {binary(headers{"ce-id": {""}}), `{}`, cloudevent.Malformed},
	"source that is no reference":   {binary(headers{"ce-source": {"%zz:\x01"}}), `{}`, cloudevent.Malformed},
	"time that is none":             {binary(headers{"ce-time": {"yesterday"}}), `{}`, cloudevent.Malformed},
	"empty subject":                 {binary(headers{"ce-subject": {""}}), `{}`, cloudevent.Malformed},
	"relative dataschema":           {binary(headers{"ce-dataschema": {"/x"}}), `{}`, cloudevent.Malformed},
	"header injection":              {binary(headers{"ce-subject": {"a%0d%0ax-evil: 1"}}), `{}`, cloudevent.Malformed},
	"overlong UTF-8 in an escape":   {binary(headers{"ce-subject": {"%C0%A0"}}), `{}`, cloudevent.Malformed},
	"non-UTF-8 header":              {binary(headers{"ce-subject": {"\xff"}}), `{}`, cloudevent.Malformed},
	"quote without end":             {binary(headers{"ce-subject": {`"a`}}), `{}`, cloudevent.Malformed},
	"quote that ends early":         {binary(headers{"ce-subject": {`"a" b`}}), `{}`, cloudevent.Malformed},
	"type in two places":            {binary(headers{"ce-datacontenttype": {"text/plain"}}), `{}`, cloudevent.Malformed},
	"type in the wrong place":       {headers{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"s"}, "ce-type": {"t"}, "ce-datacontenttype": {"text/plain"}}, `{}`, cloudevent.Malformed},
	"data as a header":              {binary(headers{"ce-data": {"1"}}), `{}`, cloudevent.Malformed},
	"extension with a dash":         {binary(headers{"ce-a-b": {"1"}}), `{}`, cloudevent.Malformed},
	"partition key too long":        {binary(headers{"ce-partitionkey": {strings.Repeat("k", 257)}}), `{}`, cloudevent.Malformed},
	"JSON data that is none":        {binary(nil), `{`, cloudevent.Malformed},
	"JSON data with two readings":   {binary(nil), `{"amount":1,"amount":1000}`, cloudevent.Malformed},
	"deeply nested binary data":     {binary(nil), strings.Repeat("[", 65) + strings.Repeat("]", 65), cloudevent.Malformed},
	"deeply nested data":            {structured(), object(`,"data":` + strings.Repeat("[", 65) + strings.Repeat("]", 65)), cloudevent.Malformed},
	"a million open brackets":       {structured(), strings.Repeat("[", 1<<20), cloudevent.Malformed},
	"a million open objects":        {structured(), strings.Repeat(`{"a":`, 1<<20), cloudevent.Malformed},
	"non-UTF-8 body":                {structured(), object(",\"x\":\"\xff\""), cloudevent.Malformed},
	"half a surrogate pair":         {structured(), object(`,"x":"\ud800"`), cloudevent.Malformed},
	"NUL in an attribute":           {structured(), object(`,"subject":"a\u0000b"`), cloudevent.Malformed},
	"id twice":                      {structured(), object(`,"id":"2"`), cloudevent.Malformed},
	"id twice, escaped":             {structured(), object(`,"\u0069d":"2"`), cloudevent.Malformed},
	"data twice":                    {structured(), object(`,"data":1,"data":2`), cloudevent.Malformed},
	"data and data_base64":          {structured(), object(`,"data":1,"data_base64":"AA=="`), cloudevent.Malformed},
	"base64 of another alphabet":    {structured(), object(`,"data_base64":"-_8="`), cloudevent.Malformed},
	"base64 with stray bits":        {structured(), object(`,"data_base64":"AB=="`), cloudevent.Malformed},
	"base64 that is a number":       {structured(), object(`,"data_base64":1`), cloudevent.Malformed},
	"text that is an object":        {structured(), object(`,"datacontenttype":"text/plain","data":{}`), cloudevent.Malformed},
	"id that is a number":           {structured(), `{"specversion":"1.0","id":1,"source":"s","type":"t"}`, cloudevent.Malformed},
	"extension that is an object":   {structured(), object(`,"x":{"y":1}`), cloudevent.Malformed},
	"extension beyond 32 bits":      {structured(), object(`,"x":2147483648`), cloudevent.Malformed},
	"extension that is a fraction":  {structured(), object(`,"x":1.5`), cloudevent.Malformed},
	"capital letter in a name":      {structured(), object(`,"Source2":"x"`), cloudevent.Malformed},
	"forged source by capitals":     {structured(), object(`,"Source":"x"`), cloudevent.Malformed},
	"33 extensions":                 {structured(), object(many(33)), cloudevent.Malformed},
	"an array as an event":          {structured(), `[` + object("") + `]`, cloudevent.Malformed},
	"an event as a batch":           {batch(), object(""), cloudevent.Malformed},
	"a batch in a batch":            {batch(), `[[` + object("") + `]]`, cloudevent.Malformed},
	"a bad event in a batch":        {batch(), `[` + object("") + `,{}]`, cloudevent.Malformed},
	"1001 events":                   {batch(), `[` + strings.Repeat(object("")+",", 1000) + object("") + `]`, cloudevent.TooLarge},
	"a million events of two bytes": {batch(), `[` + strings.Repeat("{},", 1<<20) + `{}]`, cloudevent.TooLarge},
	"body too large":                {structured(), strings.Repeat(" ", cloudevent.MaxBody+1), cloudevent.TooLarge},
	"data too large":                {binary(headers{"content-type": {"text/plain"}}), strings.Repeat("x", event.MaxData+1), cloudevent.TooLarge},
	"data too large, in base64": {
		structured(), object(`,"data_base64":"` + base64.StdEncoding.EncodeToString(make([]byte, event.MaxData+1)) + `"`), cloudevent.TooLarge,
	},
	// Entities that name each other do not exist in JSON; what comes near is one object
	// of very many members, and repeated names.
	"a billion laughs, as JSON goes": {structured(), `{"lol":"lol"` + strings.Repeat(`,"lol":"lollollollol"`, 1<<16) + `}`, cloudevent.Malformed},
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":"1"`, i)
	}
	return b.String()
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := cloudevent.Read(tc.header, []byte(tc.body))
			var e *cloudevent.Error
			if !errors.As(err, &e) || e.Code != tc.code {
				t.Fatalf("got %v and %v, want an error of code %s", got, err, tc.code)
			}
			if got != nil {
				t.Error("events came with the error")
			}
			if s := e.Status(); s < 400 || s > 499 {
				t.Errorf("status %d", s)
			}
		})
	}
}

func TestBatchNamesTheEvent(t *testing.T) {
	t.Parallel()
	_, err := cloudevent.Read(batch(), []byte(`[`+object("")+`,{"specversion":"1.0"}]`))
	var e *cloudevent.Error
	if !errors.As(err, &e) || e.Event != 1 || !strings.Contains(e.Error(), "id") {
		t.Errorf("got %v", err)
	}
	got, err := cloudevent.Read(batch(), []byte(` [ ] `))
	if err != nil || len(got) != 0 {
		t.Errorf("empty batch: got %v, %v", got, err)
	}
	got, err = cloudevent.Read(batch(), []byte(`[`+strings.Repeat(object("")+",", 999)+object("")+`]`))
	if err != nil || len(got) != 1000 {
		t.Errorf("1000 events: got %d, %v", len(got), err)
	}
}

func TestMostDepthIsAccepted(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", cloudevent.MaxDepth) + strings.Repeat("]", cloudevent.MaxDepth)
	for name, err := range map[string]error{
		"binary":     second(cloudevent.Read(binary(nil), []byte(deep))),
		"structured": second(cloudevent.Read(structured(), []byte(object(`,"data":`+deep)))),
		"batch":      second(cloudevent.Read(batch(), []byte(`[`+object(`,"data":`+deep)+`]`))),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ []event.Message, err error) error { return err }

func TestWrittenIsReadAgain(t *testing.T) {
	t.Parallel()
	all := []event.Message{
		{Event: event.Event{ID: "a<b>&\u2028", Source: "/x", Type: "t"}},
		{
			Event: event.Event{
				ID: "2", Source: "/x", Type: "t", Subject: `"s\`, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
				DataContentType: "application/json", Extensions: map[string]string{"k": "v", "partitionkey": "p"},
			},
			Data: []byte("{\"a\": \"<&\"}\n"), Key: "p", Detail: map[string]string{"dataschema": "urn:x"},
		},
		{Event: event.Event{ID: "3", Source: "/x", Type: "t", DataContentType: "text/plain"}, Data: []byte("é\u2028")},
		{Event: event.Event{ID: "4", Source: "/x", Type: "t", DataContentType: "text/plain"}, Data: []byte{0xff}},
		{Event: event.Event{ID: "5", Source: "/x", Type: "t", DataContentType: "application/json"}, Data: []byte("{not JSON")},
		{Event: event.Event{ID: "6", Source: "/x", Type: "t"}, Data: []byte{0, 1}},
	}
	body, err := cloudevent.WriteBatch(all)
	if err != nil {
		t.Fatal(err)
	}
	got, err := cloudevent.Read(batch(), body)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	for i := range all {
		all[i].Data = bytes.TrimRight(all[i].Data, "\n") // space around a JSON value does not travel
		if !reflect.DeepEqual(got[i], all[i]) {
			t.Errorf("got  %+v\nwant %+v", got[i], all[i])
		}
		one, err := cloudevent.WriteStructured(&all[i])
		if err != nil {
			t.Fatal(err)
		}
		if again, err := cloudevent.Read(structured(), one); err != nil || !reflect.DeepEqual(again[0], all[i]) {
			t.Errorf("got  %+v, %v\nwant %+v", again, err, all[i])
		}
	}
	if _, err := cloudevent.WriteStructured(&event.Message{}); err == nil {
		t.Error("an event without attributes was written")
	}
	if _, err := cloudevent.WriteBatch(make([]event.Message, cloudevent.MaxEvents+1)); err == nil {
		t.Error("too many events were written")
	}
}

func TestKeyTravelsAsPartitionKey(t *testing.T) {
	t.Parallel()
	body, err := cloudevent.WriteStructured(&event.Message{Event: event.Event{ID: "1", Source: "/x", Type: "t"}, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cloudevent.Read(structured(), body); err != nil || got[0].Key != "k" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	some := cloudevent.Handshake{Origins: []string{"events.example.com"}, Rate: 100}
	all := cloudevent.Handshake{Origins: []string{"*"}}
	none := cloudevent.Handshake{}
	for name, tc := range map[string]struct {
		h            cloudevent.Handshake
		header       headers
		origin, rate string
	}{
		"known":          {some, headers{"webhook-request-origin": {"Events.example.com"}}, "Events.example.com", "100"},
		"asks for less":  {some, headers{"webhook-request-origin": {"events.example.com"}, "webhook-request-rate": {"7"}}, "events.example.com", "7"},
		"asks for more":  {some, headers{"webhook-request-origin": {"events.example.com"}, "webhook-request-rate": {"700"}}, "events.example.com", "100"},
		"unbounded":      {all, headers{"webhook-request-origin": {"x"}}, "x", "*"},
		"unbounded asks": {all, headers{"webhook-request-origin": {"x"}, "webhook-request-rate": {"7"}}, "x", "7"},
		"unknown":        {some, headers{"webhook-request-origin": {"evil.example.com"}}, "", ""},
		"below a known":  {some, headers{"webhook-request-origin": {"a.events.example.com"}}, "", ""},
		"no origin":      {all, headers{}, "", ""},
		"two origins":    {all, headers{"webhook-request-origin": {"a", "b"}}, "", ""},
		"no name":        {all, headers{"webhook-request-origin": {"a\r\nx: y"}}, "", ""},
		"asterisk":       {some, headers{"webhook-request-origin": {"*"}}, "", ""},
		"rate of none":   {all, headers{"webhook-request-origin": {"x"}, "webhook-request-rate": {"0"}}, "", ""},
		"rate below":     {all, headers{"webhook-request-origin": {"x"}, "webhook-request-rate": {"-1"}}, "", ""},
		"rate of text":   {all, headers{"webhook-request-origin": {"x"}, "webhook-request-rate": {"fast"}}, "", ""},
		"nobody":         {none, headers{"webhook-request-origin": {"x"}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, granted := tc.h.Answer(tc.header)
			if granted != (tc.origin != "") || got["webhook-allowed-origin"] != tc.origin || got["webhook-allowed-rate"] != tc.rate {
				t.Errorf("got %v, granted %t", got, granted)
			}
			if got["allow"] == "" {
				t.Error("no methods are named")
			}
			if granted && !tc.h.Allows(tc.header) {
				t.Error("granted, and then not let in")
			}
		})
	}
	if some.Allows(headers{"webhook-request-origin": {"evil.example.com"}}) || some.Allows(headers{}) || none.Allows(headers{}) {
		t.Error("a delivery from elsewhere is let in")
	}
}
