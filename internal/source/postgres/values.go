package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
	"github.com/casemate-dev/casemate/internal/jsontext"
)

// This file says what becomes of a column's value; the table stands in the package's
// documentation. Values come as text, in the form that sessionParams ask for.

// Object identifiers of types (pg_type.dat of PostgreSQL's sources; they never change).
const (
	oidBool, oidBytea, oidInt8, oidInt2, oidInt4, oidOID            = 16, 17, 20, 21, 23, 26
	oidJSON, oidJSONB, oidFloat4, oidFloat8, oidNumeric             = 114, 3802, 700, 701, 1700
	oidTimestamp, oidTimestamptz                                    = 1114, 1184
	oidName, oidText, oidBpchar, oidVarchar, oidDate, oidTime       = 19, 25, 1042, 1043, 1082, 1083
	oidInterval, oidUUID, oidInet, oidCIDR                          = 1186, 2950, 869, 650
	maxNesting                                                      = 50      // of embedded JSON: with what stands around it below the 64 that the door allows
	maxNumber, maxExponentDigits                                    = 1000, 3 // of embedded JSON, as the door has them
	maxDimensions                                                   = 6       // of arrays, PostgreSQL's own bound
	maxSafeDigits                                                   = 15      // of a decimal that survives a double
	maxSafeInteger                                            int64 = 1<<53 - 1
)

// elementOf gives the type of an array's elements, 0 for what is not a known array.
func elementOf(oid uint32) uint32 {
	switch oid {
	case 1000:
		return oidBool
	case 1001:
		return oidBytea
	case 1003:
		return oidName
	case 1005:
		return oidInt2
	case 1007:
		return oidInt4
	case 1016:
		return oidInt8
	case 1028:
		return oidOID
	case 1009:
		return oidText
	case 1014:
		return oidBpchar
	case 1015:
		return oidVarchar
	case 1021:
		return oidFloat4
	case 1022:
		return oidFloat8
	case 1231:
		return oidNumeric
	case 1115:
		return oidTimestamp
	case 1185:
		return oidTimestamptz
	case 1182:
		return oidDate
	case 1183:
		return oidTime
	case 1187:
		return oidInterval
	case 2951:
		return oidUUID
	case 199:
		return oidJSON
	case 3807:
		return oidJSONB
	case 1041:
		return oidInet
	case 651:
		return oidCIDR
	}
	return 0
}

// appendValue appends a value of a type as JSON. Whatever it does not understand it
// gives as a string, so nothing is lost.
func appendValue(dst []byte, oid uint32, text []byte) []byte {
	switch oid {
	case oidBool:
		switch string(text) {
		case "t":
			return append(dst, "true"...)
		case "f":
			return append(dst, "false"...)
		}
	case oidInt2, oidInt4, oidInt8, oidOID:
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil && n <= maxSafeInteger && n >= -maxSafeInteger {
			return strconv.AppendInt(dst, n, 10)
		}
	case oidFloat4, oidFloat8:
		if number(text) {
			return append(dst, text...)
		}
	case oidNumeric:
		if number(text) && safeDecimal(text) {
			return append(dst, text...)
		}
	case oidJSON:
		// This type keeps the text as it was written, also with a name twice.
		if tame(text) && strictjson.Check(text, maxNesting) == nil {
			return append(dst, text...)
		}
	case oidJSONB:
		if utf8.Valid(text) && tame(text) && json.Valid(text) {
			return append(dst, text...)
		}
	case oidBytea:
		if h, ok := bytes.CutPrefix(text, []byte(`\x`)); ok {
			raw := make([]byte, hex.DecodedLen(len(h)))
			if _, err := hex.Decode(raw, h); err == nil {
				dst = append(dst, '"')
				dst = base64.StdEncoding.AppendEncode(dst, raw)
				return append(dst, '"')
			}
		}
	case oidTimestamp:
		if zoneless(text) {
			dst = append(dst, '"')
			dst = append(dst, text...)
			dst[len(dst)-len(text)+10] = 'T'
			return append(dst, '"')
		}
	case oidTimestamptz:
		if local, ok := bytes.CutSuffix(text, []byte("+00")); ok && zoneless(local) {
			dst = append(dst, '"')
			dst = append(dst, local...)
			dst[len(dst)-len(local)+10] = 'T'
			return append(dst, `Z"`...)
		}
	default:
		if e := elementOf(oid); e != 0 {
			if out, ok := appendArray(dst, e, text); ok {
				return out
			}
		}
	}
	return appendString(dst, text)
}

// appendString appends text as a JSON string; what is not UTF-8, which a database of the
// encoding SQL_ASCII may hold, as an object with its base64.
func appendString(dst, text []byte) []byte {
	if !utf8.Valid(text) {
		dst = append(dst, `{"base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, text)
		return append(dst, `"}`...)
	}
	return jsontext.Append(dst, string(text))
}

// number says whether text is a number in JSON's sense: not NaN, not Infinity.
func number(text []byte) bool {
	return len(text) > 0 && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')) && json.Valid(text)
}

// safeDecimal says whether a decimal is still the same after it has been a double.
func safeDecimal(text []byte) bool {
	digits := 0
	for _, c := range text {
		if c >= '0' && c <= '9' {
			if digits > 0 || c != '0' {
				digits++
			}
		} else if c != '-' && c != '.' {
			return false
		}
	}
	return digits <= maxSafeDigits && len(text) < 64
}

// zoneless says whether text is "2006-01-02 15:04:05" with or without a fraction: years
// beyond four digits, BC and infinity are not.
func zoneless(text []byte) bool {
	if len(text) < 19 || len(text) > 26 || (len(text) > 19 && (text[19] != '.' || len(text) == 20)) {
		return false
	}
	for i, c := range text {
		switch i {
		case 4, 7:
			if c != '-' {
				return false
			}
		case 10:
			if c != ' ' {
				return false
			}
		case 13, 16:
			if c != ':' {
				return false
			}
		case 19:
		default:
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	return true
}

// tame says whether JSON is nested no deeper than maxNesting and has no number beyond
// what the door lets pass: one such value must not keep its row from the function.
func tame(text []byte) bool {
	depth, quoted := 0, false
	number, exponent := 0, -1 // characters of the number that is being read; digits of its exponent
	for i := 0; i < len(text); i++ {
		c := text[i]
		if !quoted && (c >= '0' && c <= '9' || c == '.' || c == '+' || c == '-') {
			if number++; exponent >= 0 && c >= '0' {
				exponent++
			}
			if number > maxNumber || exponent > maxExponentDigits {
				return false
			}
			continue
		}
		if !quoted && number > 0 && (c == 'e' || c == 'E') {
			number, exponent = number+1, 0
			continue
		}
		number, exponent = 0, -1
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxNesting {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// appendArray appends the text form of an array as JSON arrays (documentation of
// PostgreSQL, section 8.15.6). It fails for arrays with bounds of their own.
func appendArray(dst []byte, element uint32, text []byte) ([]byte, bool) {
	p := arrayParser{b: text, element: element}
	out := p.array(dst, 1)
	return out, !p.bad && len(p.b) == 0
}

type arrayParser struct {
	b       []byte
	element uint32
	bad     bool
	scratch []byte
}

func (p *arrayParser) peek() byte {
	if len(p.b) == 0 {
		p.bad = true
		return 0
	}
	return p.b[0]
}

func (p *arrayParser) array(dst []byte, depth int) []byte {
	if depth > maxDimensions || p.peek() != '{' {
		p.bad = true
		return dst
	}
	p.b = p.b[1:]
	dst = append(dst, '[')
	if p.peek() == '}' {
		p.b = p.b[1:]
		return append(dst, ']')
	}
	for {
		switch p.peek() {
		case '{':
			dst = p.array(dst, depth+1)
		case '"':
			dst = p.quoted(dst)
		default:
			dst = p.plain(dst)
		}
		if p.bad {
			return dst
		}
		c := p.peek()
		if p.bad {
			return dst
		}
		p.b = p.b[1:]
		switch c {
		case ',':
			dst = append(dst, ',')
		case '}':
			return append(dst, ']')
		default:
			p.bad = true
			return dst
		}
	}
}

func (p *arrayParser) quoted(dst []byte) []byte {
	p.scratch = p.scratch[:0]
	for i := 1; i < len(p.b); i++ {
		switch c := p.b[i]; c {
		case '\\':
			if i++; i < len(p.b) {
				p.scratch = append(p.scratch, p.b[i])
			}
		case '"':
			p.b = p.b[i+1:]
			return appendValue(dst, p.element, p.scratch)
		default:
			p.scratch = append(p.scratch, c)
		}
	}
	p.bad = true
	return dst
}

func (p *arrayParser) plain(dst []byte) []byte {
	n := bytes.IndexAny(p.b, `,{}"\`)
	if n <= 0 {
		p.bad = true
		return dst
	}
	v := p.b[:n]
	p.b = p.b[n:]
	if string(v) == "NULL" {
		return append(dst, "null"...)
	}
	return appendValue(dst, p.element, v)
}
