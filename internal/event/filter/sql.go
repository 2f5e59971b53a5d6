package filter

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/antlr/antlr4/runtime/Go/antlr"
	cesql "github.com/cloudevents/sdk-go/sql/v2"
	sqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	"github.com/cloudevents/sdk-go/sql/v2/gen"
	"github.com/cloudevents/sdk-go/sql/v2/parser"
	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/casemate-dev/casemate/internal/event"
)

// sql compiles an expression of CloudEvents SQL. The language has neither loops nor
// variables, so that what an expression costs is bounded by its length.
func sql(field string, raw json.RawMessage) (Func, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || text == "" {
		return nil, &Error{field, "must be an expression as text"}
	}
	if len(text) > MaxSQL {
		return nil, &Error{field, fmt.Sprintf("has %d bytes, more than %d", len(text), MaxSQL)}
	}
	if err := lex(field, text); err != nil {
		return nil, err
	}
	e, err := parse(text)
	if err != nil {
		return nil, &Error{field, fmt.Sprintf("is not an expression of CloudEvents SQL: %.200v", err)}
	}
	// A function that does not exist is found when it is called.
	probe := &event.Message{Event: event.Event{ID: "1", Source: "/", Type: "t"}}
	if _, err := evaluate(e, probe); sqlerrors.IsMissingFunctionError(err) {
		return nil, &Error{field, fmt.Sprintf("calls a function that there is not: %.200v", err)}
	}
	return func(m *event.Message) bool {
		v, err := evaluate(e, m)
		if err != nil {
			return false
		}
		// The Subscriptions API has the value cast to Boolean: a number is true unless it
		// is zero; text is true when it says so.
		switch v := v.(type) {
		case bool:
			return v
		case int32:
			return v != 0
		case string:
			return len(v) == 4 && (v[0]|0x20) == 't' && (v[1]|0x20) == 'r' && (v[2]|0x20) == 'u' && (v[3]|0x20) == 'e'
		default:
			return false
		}
	}, nil
}

// lex finds what the library's parser would print on standard error and then pass over,
// characters that start no token, and bounds what it takes long for: its time grows with
// the square of the open brackets, and more (6 s for 2,000).
func lex(field, text string) error {
	heard := &listener{}
	lexer := gen.NewCESQLParserLexer(parser.NewCaseChangingStream(antlr.NewInputStream(text), true))
	lexer.RemoveErrorListeners()
	lexer.AddErrorListener(heard)
	nest := 0
	for _, token := range lexer.GetAllTokens() {
		switch token.GetTokenType() {
		case gen.CESQLParserLexerLR_BRACKET:
			if nest++; nest > maxNest {
				return &Error{field, fmt.Sprintf("has more than %d brackets within each other", maxNest)}
			}
		case gen.CESQLParserLexerRR_BRACKET:
			nest = max(0, nest-1)
		}
	}
	if heard.any {
		return &Error{field, fmt.Sprintf("is not an expression of CloudEvents SQL: at character %d stands what belongs to no word of it", heard.at+1)}
	}
	return nil
}

// listener keeps the place of the first error.
type listener struct {
	antlr.DefaultErrorListener
	any bool
	at  int
}

// SyntaxError is called by the library.
func (l *listener) SyntaxError(_ antlr.Recognizer, _ any, _, column int, _ string, _ antlr.RecognitionException) {
	if !l.any {
		l.any, l.at = true, column
	}
}

// parse catches the panics by which the library answers some malformed expressions,
// "a AND (" for one.
func parse(text string) (e cesql.Expression, err error) {
	defer func() {
		if recover() != nil {
			e, err = nil, fmt.Errorf("syntax error")
		}
	}()
	return parser.Parse(text)
}

// evaluate catches the panics by which the library answers arguments that its functions
// do not check, SUBSTRING(type, 3, -1) for one.
func evaluate(e cesql.Expression, m *event.Message) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("evaluating expression: %v", p)
		}
	}()
	return e.Evaluate(convert(m))
}

// convert gives the library its view of an event, without the data, which the language
// cannot reach.
func convert(m *event.Message) cloudevents.Event {
	c := &cloudevents.EventContextV1{ID: m.ID, Type: m.Type}
	if u, err := url.Parse(m.Source); err == nil {
		c.Source.URL = *u
	} else {
		c.Source.Opaque = m.Source
	}
	if m.Subject != "" {
		c.Subject = &m.Subject
	}
	if m.DataContentType != "" {
		c.DataContentType = &m.DataContentType
	}
	if !m.Time.IsZero() {
		c.Time = &types.Timestamp{Time: m.Time.UTC()}
	}
	if len(m.Extensions) > 0 || m.Key != "" {
		c.Extensions = make(map[string]any, len(m.Extensions)+1)
		if m.Key != "" {
			c.Extensions["partitionkey"] = m.Key
		}
		for k, v := range m.Extensions {
			c.Extensions[k] = v
		}
	}
	return cloudevents.Event{Context: c}
}
