package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Bounds on what a schema may cost. Whoever deploys a function writes it, and others on
// the same node pay for it.
const (
	maxSchemas     = 2_000       // objects of one schema that are schemas themselves
	maxPattern     = 512         // bytes of a regular expression
	maxSchemaSteps = 250_000     // schemas applied to values, for one event
	maxMatchWork   = 200_000_000 // bytes times instructions of regular expressions, for one event
)

// schemaURL is the name of a trigger's schema for itself. The scheme has no loader.
const schemaURL = "trigger:///schema"

// schema is a trigger's JSON Schema: draft 2020-12 where $schema names no other, format
// asserted. It reads nothing but itself: a $ref to elsewhere does not compile.
type schema struct {
	mu       sync.Mutex // of one check at a time, since they share the meter
	compiled *jsonschema.Schema
	meter    *meter
}

// meter counts the work of one check, and ends it by a panic: the library has no
// other way out.
type meter struct {
	schemas int // compiled
	steps   int
	work    int
}

// errCost is what the meter panics with.
var errCost = errors.New("costs too much")

func compileSchema(raw json.RawMessage) (*schema, error) {
	refuse := func(reason string) (*schema, error) {
		return nil, &source.FieldError{Field: "schema", Reason: reason}
	}
	if len(raw) > function.MaxTriggerSchema {
		return refuse(fmt.Sprintf("has %d bytes, more than %d", len(raw), function.MaxTriggerSchema))
	}
	if f := checkJSON(raw); f != nil {
		return refuse(f.reason)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return refuse("is not valid JSON")
	}
	switch doc.(type) {
	case bool, map[string]any:
	default:
		return refuse("must be an object, or true or false")
	}
	m := &meter{}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nowhere{})
	c.AssertFormat()
	c.AssertVocabs()
	c.UseRegexpEngine(m.regexp)
	c.RegisterFormat(&jsonschema.Format{Name: "regex", Validate: func(v any) error {
		if s, ok := v.(string); ok {
			_, err := m.regexp(s)
			return err
		}
		return nil
	}})
	c.RegisterVocabulary(&jsonschema.Vocabulary{URL: "trigger:///meter", Compile: m.compile})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return refuse("cannot be used: " + readable(err))
	}
	compiled, err := c.Compile(schemaURL)
	if err != nil {
		return refuse("cannot be used: " + readable(err))
	}
	return &schema{compiled: compiled, meter: m}, nil
}

// nowhere loads nothing: neither files nor the network.
type nowhere struct{}

func (nowhere) Load(url string) (any, error) {
	return nil, fmt.Errorf("%.100q is outside of it, and nothing is loaded from elsewhere", url)
}

// check applies the schema. A schema means that the data is JSON, whatever its content
// type says.
func (s *schema) check(data []byte) *finding {
	if len(data) == 0 {
		return &finding{"data", "is missing, and the trigger has a schema for it"}
	}
	// Without a content type nobody has looked at it yet. The bound is lower than the one
	// without a schema, because each value may leave an error of some 300 bytes.
	if f := checkJSONUpTo(data, maxSchemaSteps); f != nil {
		return f
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return &finding{"data", "is not valid JSON"}
	}
	var invalid *jsonschema.ValidationError
	switch err := s.validate(doc); {
	case err == nil:
		return nil
	case errors.Is(err, errCost):
		return &finding{"data", "is too much for the trigger's schema: checking it takes too many steps"}
	case errors.As(err, &invalid):
		return worst(invalid)
	default:
		return &finding{"data", "cannot be checked: " + readable(err)}
	}
}

func (s *schema) validate(doc any) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meter.steps, s.meter.work = 0, 0
	defer func() {
		if p := recover(); p != nil {
			if p != any(errCost) {
				panic(p)
			}
			err = errCost
		}
	}()
	return s.compiled.Validate(doc)
}

// compile is called for every object that is a schema. The library's own schemas of
// schemas are not counted, because they compile before.
func (m *meter) compile(_ *jsonschema.CompilerContext, _ map[string]any) (jsonschema.SchemaExt, error) {
	if m.schemas++; m.schemas > maxSchemas {
		return nil, fmt.Errorf("it has more than %d schemas within it", maxSchemas)
	}
	return m, nil
}

// Validate counts one schema applied to one value.
func (m *meter) Validate(*jsonschema.ValidatorContext, any) {
	if m.steps++; m.steps > maxSchemaSteps {
		panic(errCost)
	}
}

// regexp compiles an expression of bounded size, whose use is counted.
func (m *meter) regexp(s string) (jsonschema.Regexp, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("a regular expression has %d bytes, more than %d", len(s), maxPattern)
	}
	compiled, err := regexp.Compile(s)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	return &metered{Regexp: compiled, meter: m, size: len(program.Inst)}, nil
}

type metered struct {
	*regexp.Regexp
	meter *meter
	size  int // instructions: each may be looked at for each byte
}

func (r *metered) MatchString(s string) bool {
	if r.meter.work += r.size * (len(s) + 1); r.meter.work > maxMatchWork {
		panic(errCost)
	}
	return r.Regexp.MatchString(s)
}

// worst gives the first mistake that has no cause of its own, and where it is.
func worst(e *jsonschema.ValidationError) *finding {
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	at := "data"
	for _, token := range e.InstanceLocation { // as RFC 6901 has it
		at += "/" + strings.ReplaceAll(strings.ReplaceAll(token, "~", "~0"), "/", "~1")
	}
	return &finding{clip(at), clip("does not fit the schema: " + e.ErrorKind.LocalizedString(message.NewPrinter(language.English)))}
}

// readable gives an error of the library without our own made-up address.
func readable(err error) string {
	text := strings.ReplaceAll(err.Error(), schemaURL, "schema")
	return clip(strings.Join(strings.Fields(text), " "))
}
