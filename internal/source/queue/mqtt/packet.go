package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	five "github.com/eclipse/paho.golang/packets"
	three "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/source/queue"
)

// maxPacket is the longest packet that is read into memory, in bytes.
const maxPacket = event.MaxData + 128<<10

// Types of packets (MQTT 5.0, section 2.1.2).
const (
	connack    = 2
	publish    = 3
	puback     = 4
	pubrec     = 5
	pubrel     = 6
	pubcomp    = 7
	suback     = 9
	unsuback   = 11
	pingresp   = 13
	disconnect = 14
)

// packet is what came from the broker, in either version.
type packet struct {
	kind        byte
	id          uint16
	topic       string
	payload     []byte
	oversized   int64 // length of a payload that was not kept
	qos         byte
	duplicate   bool
	retain      bool
	contentType string
	detail      []queue.Entry

	present bool   // CONNACK: the broker has our session
	reasons []byte // SUBACK, CONNACK, DISCONNECT
	text    string // the broker's own words about it
}

var errMalformed = errors.New("the broker sent a malformed packet")

// read reads one packet. What is longer than maxPacket is read over if it is a PUBLISH.
func read(r *bufio.Reader, version string) (*packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	length, err := remaining(r)
	if err != nil {
		return nil, err
	}
	if first>>4 == publish && first>>1&3 == 3 {
		return nil, errMalformed // there is no such QoS
	}
	if length > maxPacket {
		return skip(r, first, length)
	}
	// The length is the broker's word: room is made as bytes arrive.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(length)); err != nil {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	header := append([]byte{first}, binary.AppendUvarint(nil, uint64(length))...)
	whole := io.MultiReader(bytes.NewReader(header), &body)
	if version == "5" {
		return readFive(whole)
	}
	return readThree(whole)
}

// remaining reads a length, which has at most four bytes (section 1.5.5).
func remaining(r io.ByteReader) (int, error) {
	n := 0
	for i := range 4 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, errors.Join(io.ErrUnexpectedEOF, err)
		}
		n |= int(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errMalformed
}

// skip reads a PUBLISH without its payload; properties of version 5 go with it.
func skip(r *bufio.Reader, first byte, length int) (*packet, error) {
	p := &packet{kind: first >> 4, qos: first >> 1 & 3, duplicate: first&8 != 0, retain: first&1 != 0}
	if p.kind != publish {
		return nil, errMalformed
	}
	var two [2]byte
	if _, err := io.ReadFull(r, two[:]); err != nil {
		return nil, err
	}
	topic := make([]byte, binary.BigEndian.Uint16(two[:]))
	if _, err := io.ReadFull(r, topic); err != nil {
		return nil, err
	}
	p.topic = string(topic)
	length -= 2 + len(topic)
	if p.qos > 0 {
		if _, err := io.ReadFull(r, two[:]); err != nil {
			return nil, err
		}
		p.id = binary.BigEndian.Uint16(two[:])
		length -= 2
	}
	p.oversized = int64(length)
	_, err := io.CopyN(io.Discard, r, int64(length))
	return p, err
}

func readThree(r io.Reader) (*packet, error) {
	in, err := three.ReadPacket(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	switch in := in.(type) {
	case *three.ConnackPacket:
		return &packet{kind: connack, present: in.SessionPresent, reasons: []byte{in.ReturnCode}, text: three.ConnackReturnCodes[in.ReturnCode]}, nil
	case *three.PublishPacket:
		return &packet{
			kind: publish, id: in.MessageID, topic: in.TopicName, payload: in.Payload,
			qos: in.Qos, duplicate: in.Dup, retain: in.Retain,
		}, nil
	case *three.PubrelPacket:
		return &packet{kind: pubrel, id: in.MessageID}, nil
	case *three.SubackPacket:
		return &packet{kind: suback, id: in.MessageID, reasons: in.ReturnCodes}, nil
	case *three.UnsubackPacket:
		return &packet{kind: unsuback, id: in.MessageID}, nil
	case *three.PingrespPacket:
		return &packet{kind: pingresp}, nil
	default:
		return nil, errMalformed
	}
}

func readFive(r io.Reader) (*packet, error) {
	in, err := five.ReadPacket(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	switch c := in.Content.(type) {
	case *five.Connack:
		return &packet{kind: connack, present: c.SessionPresent, reasons: []byte{c.ReasonCode}, text: words(c.Properties, c.Reason())}, nil
	case *five.Publish:
		p := &packet{
			kind: publish, id: c.PacketID, topic: c.Topic, payload: c.Payload,
			qos: c.QoS, duplicate: c.Duplicate, retain: c.Retain,
		}
		if c.Properties != nil {
			p.contentType = c.Properties.ContentType
			if t := c.Properties.ResponseTopic; t != "" {
				p.detail = append(p.detail, queue.Text("mqtt.responsetopic", t))
			}
			if d := c.Properties.CorrelationData; len(d) > 0 {
				p.detail = append(p.detail, queue.Entry{Name: "mqtt.correlation", Value: d})
			}
			for _, u := range c.Properties.User {
				p.detail = append(p.detail, queue.Text("header."+u.Key, u.Value))
			}
		}
		return p, nil
	case *five.Pubrel:
		return &packet{kind: pubrel, id: c.PacketID}, nil
	case *five.Suback:
		return &packet{kind: suback, id: c.PacketID, reasons: c.Reasons, text: words(c.Properties, "")}, nil
	case *five.Unsuback:
		return &packet{kind: unsuback, id: c.PacketID}, nil
	case *five.Pingresp:
		return &packet{kind: pingresp}, nil
	case *five.Disconnect:
		return &packet{kind: disconnect, reasons: []byte{c.ReasonCode}, text: words(c.Properties, "")}, nil
	default:
		return nil, errMalformed
	}
}

func words(p *five.Properties, otherwise string) string {
	if p != nil && p.ReasonString != "" {
		return p.ReasonString
	}
	return otherwise
}

// opening is the CONNECT of either version.
func opening(version, name, username string, password []byte, window uint16, expiry uint32, keepAlive uint16) []byte {
	var b bytes.Buffer
	if version == "5" {
		p := five.NewControlPacket(five.CONNECT)
		c := p.Content.(*five.Connect)
		c.ClientID, c.KeepAlive = name, keepAlive
		c.Username, c.UsernameFlag = username, username != ""
		c.Password, c.PasswordFlag = password, len(password) > 0
		c.Properties = &five.Properties{ReceiveMaximum: &window, SessionExpiryInterval: &expiry}
		_, _ = p.WriteTo(&b) // a buffer takes everything
		return b.Bytes()
	}
	c := three.NewControlPacket(three.Connect).(*three.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion = "MQTT", 4
	c.ClientIdentifier, c.Keepalive = name, keepAlive
	c.Username, c.UsernameFlag = username, username != ""
	c.Password, c.PasswordFlag = password, len(password) > 0 && username != ""
	_ = c.Write(&b)
	return b.Bytes()
}

// subscribing is the SUBSCRIBE of either version. In version 5 retained messages are
// asked for once, when the subscription is new, and not at each connection.
func subscribing(version string, id uint16, topics []string, qos byte) []byte {
	var b bytes.Buffer
	if version == "5" {
		p := five.NewControlPacket(five.SUBSCRIBE)
		c := p.Content.(*five.Subscribe)
		c.PacketID = id
		for _, t := range topics {
			c.Subscriptions = append(c.Subscriptions, five.SubOptions{Topic: t, QoS: qos, RetainHandling: 1, RetainAsPublished: true})
		}
		_, _ = p.WriteTo(&b)
		return b.Bytes()
	}
	c := three.NewControlPacket(three.Subscribe).(*three.SubscribePacket)
	c.MessageID = id
	for _, t := range topics {
		c.Topics, c.Qoss = append(c.Topics, t), append(c.Qoss, qos)
	}
	_ = c.Write(&b)
	return b.Bytes()
}

// unsubscribing is the UNSUBSCRIBE of either version.
func unsubscribing(version string, id uint16, topics []string) []byte {
	var b bytes.Buffer
	if version == "5" {
		p := five.NewControlPacket(five.UNSUBSCRIBE)
		c := p.Content.(*five.Unsubscribe)
		c.PacketID, c.Topics = id, topics
		_, _ = p.WriteTo(&b)
		return b.Bytes()
	}
	c := three.NewControlPacket(three.Unsubscribe).(*three.UnsubscribePacket)
	c.MessageID, c.Topics = id, topics
	_ = c.Write(&b)
	return b.Bytes()
}

// answer is a PUBACK, PUBREC or PUBCOMP that says success, the same in both versions.
func answer(kind byte, id uint16) []byte {
	return []byte{kind << 4, 2, byte(id >> 8), byte(id)}
}

// ping is a PINGREQ, the same in both versions.
func ping() []byte { return []byte{0xc0, 0} }
