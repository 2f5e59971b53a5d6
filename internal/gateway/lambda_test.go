package gateway

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

const helloPath = "/2015-03-31/functions/hello/invocations"

func (w *lambdaWorld) version(ns, name string) string {
	return string(w.functions[function.Ref{Namespace: ns, Name: name}][0].ID)
}

func TestLambdaInvokeHandsTheEventOver(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	w.invoker.answering(&invoke.Outcome{
		Status: 200, Body: []byte(`{"hello":"world"}`), Log: []string{strings.Repeat("x", 5000), "last"},
		Receipt: audit.Receipt{ID: "receipt-1", Version: w.version("default", "hello")},
	}, nil)
	a := w.ask(t, w.full, "POST", helloPath, `{"n":1}`, "X-Amz-Log-Type: Tail",
		"X-Amz-Client-Context: "+base64.StdEncoding.EncodeToString([]byte(`{"custom":{}}`)), "X-Amzn-Trace-Id: Root=1-2-3")
	if a.status != 200 || a.body != `{"hello":"world"}` || a.header.Get("X-Amz-Function-Error") != "" || a.header.Get("Content-Type") != "application/json" ||
		"sha256:"+a.header.Get("X-Amz-Executed-Version") != w.version("default", "hello") || a.header.Get("X-Amzn-RequestId") == "" || a.header.Get("Casemate-Receipt") != "receipt-1" {
		t.Errorf("answer: %s", a.text)
	}
	log, err := base64.StdEncoding.DecodeString(a.header.Get("X-Amz-Log-Result"))
	if err != nil || len(log) != 4<<10 || !strings.HasSuffix(string(log), "x\nlast\n") {
		t.Errorf("log of %d bytes, %v", len(log), err)
	}
	c := w.invoker.last(t)
	if c.Trigger != invoke.TriggerLambda || c.Ref.String() != "default/hello" || c.Qualifier != "" || string(c.Body) != `{"n":1}` || c.Method != "POST" || c.Path != "/" ||
		c.Public || c.Principal.String() != "key:"+w.full.keyID || c.RequestID != a.header.Get("X-Amzn-RequestId") || c.KeepLogBytes != 4<<10 ||
		c.Headers["x-amz-client-context"] == nil || c.Headers["x-amzn-trace-id"][0] != "Root=1-2-3" || c.Headers["authorization"] != nil {
		t.Errorf("call: %+v", c)
	}
	if strings.Contains(w.logs.String(), w.full.secret) || !strings.Contains(w.logs.String(), `"principal":"key:`+w.full.keyID) {
		t.Errorf("log: %s", w.logs)
	}
}

func TestLambdaFunctionsAreNamedAsAWSNamesThem(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	version := strings.TrimPrefix(w.version("default", "hello"), "sha256:")
	for target, want := range map[string]string{
		"hello/invocations":                           "default/hello ",
		"hello/invocations?Qualifier=beta":            "default/hello beta",
		"hello:beta/invocations":                      "default/hello beta",
		"hello:beta/invocations?Qualifier=beta":       "default/hello beta",
		"hello/invocations?Qualifier=%24LATEST":       "default/hello ",
		"hello:$LATEST/invocations":                   "default/hello ",
		"hello%3Abeta/invocations":                    "default/hello beta",
		"hello/invocations?Qualifier=" + version:      "default/hello " + version,
		"shop_cart/invocations":                       "shop/cart ",
		"function:hello/invocations":                  "default/hello ",
		"123456789012:function:shop_cart/invocations": "shop/cart ",
		"arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Ashop_cart%3Alive/invocations": "shop/cart live",
		"arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:hello/invocations":             "default/hello ",
	} {
		a := w.ask(t, w.full, "POST", "/2015-03-31/functions/"+target, "{}")
		if c := w.invoker.last(t); a.status != 200 || c.Ref.String()+" "+c.Qualifier != want {
			t.Errorf("%s: %d, %s %q", target, a.status, c.Ref, c.Qualifier)
		}
	}
	before := w.invoker.count.Load()
	for target, status := range map[string]int{
		"hello:a/invocations?Qualifier=b":                     400,
		"hello/invocations?Qualifier=a&Qualifier=b":           400,
		"hello/invocations?Qualifier=a%2Fb":                   400,
		"hello:a:b/invocations":                               400,
		"arn:aws:s3:us-east-1:123456789012:hello/invocations": 400,
		"hel%20lo/invocations":                                400,
		"default_hello/invocations":                           404,
		"shop_cart_x/invocations":                             404,
		"Hello/invocations":                                   404,
		"_hello/invocations":                                  404,
	} {
		if a := w.ask(t, w.full, "POST", "/2015-03-31/functions/"+strings.ReplaceAll(target, "%2F", "%2F"), "{}"); a.status != status {
			t.Errorf("%s: %s", target, a.text)
		}
	}
	if w.invoker.count.Load() != before {
		t.Error("something ran")
	}
}

func TestLambdaInvocationTypes(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	w.ask(t, w.full, "POST", helloPath, "{}", "X-Amz-Invocation-Type: Event").wantAWS(t, 501, "NotImplementedException")
	w.ask(t, w.full, "POST", helloPath, "{}", "X-Amz-Invocation-Type: Sometimes").wantAWS(t, 400, "InvalidParameterValueException")
	w.ask(t, w.full, "POST", helloPath, "{}", "X-Amz-Log-Type: Head").wantAWS(t, 400, "InvalidParameterValueException")
	if a := w.ask(t, w.full, "POST", helloPath, "{}", "X-Amz-Invocation-Type: DryRun"); a.status != 204 || a.body != "" {
		t.Errorf("dry run: %s", a.text)
	}
	w.ask(t, w.full, "POST", "/2015-03-31/functions/nothing/invocations", "{}", "X-Amz-Invocation-Type: DryRun").wantAWS(t, 404, "ResourceNotFoundException")
	w.ask(t, w.looking, "POST", helloPath, "{}", "X-Amz-Invocation-Type: DryRun").wantAWS(t, 403, "AccessDeniedException")
	w.ask(t, w.looking, "POST", helloPath, "{}", "X-Amz-Invocation-Type: Event").wantAWS(t, 403, "AccessDeniedException")
	w.ask(t, w.full, "POST", helloPath, "{").wantAWS(t, 400, "InvalidRequestContentException")
	w.ask(t, w.full, "POST", helloPath, "{}", "X-Amz-Client-Context: e30").wantAWS(t, 400, "InvalidRequestContentException")
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("%d calls were made", n)
	}
	if a := w.ask(t, w.full, "POST", helloPath, ""); a.status != 200 || string(w.invoker.last(t).Body) != "{}" {
		t.Errorf("no event: %s", a.text)
	}
	w.ask(t, w.full, "POST", helloPath, `"`+strings.Repeat("x", 6<<20)+`"`).wantAWS(t, 413, "RequestTooLargeException")
}

func TestLambdaFaultsAreAnswersAndErrorsAreErrors(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	fault := `{"errorType":"Error","errorMessage":"no"}`
	receipt := audit.Receipt{ID: "receipt-1", Version: w.version("default", "hello")}
	for _, err := range []error{nil, problem.New(problem.FunctionCrashed, "the function failed")} {
		w.invoker.answering(&invoke.Outcome{Status: 404, Fault: []byte(fault), Receipt: receipt}, err)
		a := w.ask(t, w.full, "POST", helloPath, "{}")
		if a.status != 200 || a.header.Get("X-Amz-Function-Error") != "Unhandled" || a.body != fault || a.header.Get("X-Amz-Executed-Version") == "" {
			t.Errorf("fault with %v: %s", err, a.text)
		}
	}
	for _, c := range []struct {
		err    error
		status int
		name   string
	}{
		{problem.New(problem.NotFound, "no function"), 404, "ResourceNotFoundException"},
		{problem.New(problem.TooManyRequests, "full").After(1500 * time.Millisecond), 429, "TooManyRequestsException"},
		{problem.New(problem.Overloaded, "full").After(time.Second), 429, "TooManyRequestsException"},
		{problem.New(problem.ArtifactTampered, "no"), 500, "ServiceException"},
		{problem.New(problem.InvalidModule, "no"), 500, "ServiceException"},
		{problem.New(problem.StorageFull, "withheld"), 507, "ServiceException"},
		{errors.New(planted), 500, "ServiceException"},
	} {
		w.invoker.answering(nil, c.err)
		a := w.ask(t, w.full, "POST", helloPath, "{}")
		a.wantAWS(t, c.status, c.name)
		if c.status == 429 && (a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"Reason":"`)) {
			t.Errorf("throttled: %s", a.text)
		}
		if want := map[bool]string{true: `"Type":"User"`, false: `"Type":"Service"`}[c.status < 500]; !strings.Contains(a.body, want) {
			t.Errorf("want %s: %s", want, a.body)
		}
	}
}

// What a caller without the secret can learn: nothing, not even which of these it is.
func TestLambdaRefusalsLookAlike(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	revoked, other := w.newKey(t, "invoke:*/*"), w.newKey(t, "invoke:*/*")
	if err := w.identities.Revoke(t.Context(), revoked.keyID, "x"); err != nil {
		t.Fatal(err)
	}
	want := ""
	for name, key := range map[string]accessKey{
		"wrong secret":   {id: w.full.id, secret: "guess"},
		"no secret":      {id: w.full.id},
		"other's secret": {id: w.full.id, secret: other.secret},
		"unknown id":     {id: "CASEAAAAAAAAAAAAAAAA", secret: "guess"},
		"Amazon's":       {id: "AKIAIOSFODNN7EXAMPLE", secret: "guess"},
		"revoked":        revoked,
		"scope unknown":  {id: w.looking.id, secret: "guess"}, // may not invoke, which is not said
	} {
		for _, target := range []string{helloPath, "/2015-03-31/functions/nothing/invocations"} {
			a := w.ask(t, key, "POST", target, `{}`)
			a.wantAWS(t, 403, "UnrecognizedClientException")
			if want == "" {
				want = a.body
			}
			if a.body != want {
				t.Errorf("%s: %s", name, a.body)
			}
		}
	}
	if w.invoker.count.Load() != 0 {
		t.Error("something ran")
	}
}

func TestLambdaForgeries(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	for name, c := range map[string]struct {
		bend func(*http.Request)
		want string
	}{
		"not signed":        {func(r *http.Request) { r.Header.Del("Authorization") }, "MissingAuthenticationTokenException"},
		"bearer key":        {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+goodKey) }, "MissingAuthenticationTokenException"},
		"API key beside it": {func(r *http.Request) { r.Header.Set("X-Api-Key", goodKey) }, "IncompleteSignatureException"},
		"two signatures": {func(r *http.Request) {
			r.Header["Authorization"] = append(r.Header["Authorization"], "AWS4-HMAC-SHA256 x")
		}, "IncompleteSignatureException"},
		"header added":    {func(r *http.Request) { r.Header.Set("X-Amz-Log-Type", "Tail") }, "IncompleteSignatureException"},
		"session token":   {func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, "IncompleteSignatureException"},
		"signed URL":      {func(r *http.Request) { r.URL.RawQuery = "X-Amz-Signature=00" }, "IncompleteSignatureException"},
		"other function":  {func(r *http.Request) { r.URL.Path = strings.Replace(r.URL.Path, "hello", "orders", 1) }, "UnrecognizedClientException"},
		"other qualifier": {func(r *http.Request) { r.URL.RawQuery = "Qualifier=beta" }, "UnrecognizedClientException"},
		"other host":      {func(r *http.Request) { r.Host = "other.example" }, "UnrecognizedClientException"},
		"other service": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/lambda/", "/s3/", 1))
		}, "InvalidSignatureException"},
	} {
		r := w.signed(t, w.full, "POST", helloPath, "{}")
		c.bend(r)
		a := w.send(t, r)
		a.wantAWS(t, 403, c.want)
		if strings.Contains(a.text, goodKey) {
			t.Errorf("%s: %s", name, a.text)
		}
	}
	swapped := w.signed(t, w.full, "POST", helloPath, `{"n":1}`)
	swapped.Body, swapped.ContentLength = http.NoBody, 0
	w.send(t, swapped).wantAWS(t, 403, "UnrecognizedClientException")
	if w.invoker.count.Load() != 0 {
		t.Error("something ran")
	}
}

// An access key opens the Lambda API alone, and a bearer key everything else.
func TestAccessKeysOpenNothingElse(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	w.ask(t, w.full, "GET", "/hello", "").want(t, problem.Unauthenticated)
	w.do(t, "GET", "/hello", nil, bearer(w.full.secret)).want(t, problem.Unauthenticated)
	w.do(t, "GET", "/hello", nil, bearer(w.full.id)).want(t, problem.Unauthenticated)
	w.do(t, "GET", "/hello", nil, "X-API-Key: "+w.full.secret).want(t, problem.Unauthenticated)
}

func TestNobodyUnknownHasABodyRead(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	for name, key := range map[string]accessKey{"unknown": {id: "CASEAAAAAAAAAAAAAAAA", secret: "guess"}, "unsigned": {}} {
		r := w.signed(t, key, "POST", helloPath, "{}")
		fields := "Authorization: " + r.Header.Get("Authorization")
		if key.id == "" {
			fields = "X-Nothing: x"
		}
		// The body is announced and never sent: an answer shows that nobody waits for it.
		stream := w.raw(t, "POST "+helloPath+" HTTP/1.1\r\nHost: "+w.addr+"\r\nX-Amz-Date: "+r.Header.Get("X-Amz-Date")+"\r\nContent-Length: 1000000\r\n"+fields+"\r\n\r\n")
		if got := statuses(t, stream); len(got) != 1 || got[0] != 403 {
			t.Errorf("%s: %q", name, stream)
		}
	}
}

func TestLambdaPathsAreNoFunctions(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	for _, path := range []string{"/2015-03-31", "/2015-03-31/functions/{name}", "/2015-03-31/{rest...}"} {
		err := w.SetRoutes([]Route{{Ref: function.Ref{Namespace: "default", Name: "thief"}, Trigger: function.HTTPTrigger{Method: "ANY", Path: path}}})
		if err == nil || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("%s: %v", path, err)
		}
	}
	// A route that takes everything does not take these, nor does one of a namespace.
	if err := w.SetRoutes([]Route{
		{Ref: function.Ref{Namespace: "default", Name: "thief"}, Trigger: function.HTTPTrigger{Method: "ANY", Path: "/{rest...}", Public: true}},
		{Ref: function.Ref{Namespace: "default", Name: "lookalike"}, Trigger: function.HTTPTrigger{Method: "ANY", Path: "/2015-03-31x/functions", Public: true}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, name string }{
		{"GET", "/2015-03-31", "UnknownOperationException"},
		{"GET", "/2015-03-31/", "UnknownOperationException"},
		{"POST", "/2015-03-31/functions/hello", "UnknownOperationException"},
		{"PUT", "/2015-03-31/functions/hello/code", "UnknownOperationException"},
		{"DELETE", "/2015-03-31/functions/hello", "UnknownOperationException"},
		{"GET", "/2015-03-31/functions/hello/invocations", "UnknownOperationException"},
		{"OPTIONS", "/2015-03-31/functions/hello/invocations", "UnknownOperationException"},
		{"GET", "/2015-03-31/functions/hello/invocations/x", "UnknownOperationException"},
	} {
		w.ask(t, w.full, c.method, c.path, "").wantAWS(t, 404, c.name)
	}
	if w.invoker.count.Load() != 0 {
		t.Error("a function was called")
	}
	if a := w.do(t, "GET", "/2015-03-31x/functions", nil); a.status != 200 {
		t.Errorf("a path that only looks alike: %s", a.text)
	}
	for _, path := range []string{"/2015-03-31//functions/hello/invocations", "/x/../2015-03-31/functions/hello/invocations", "/%32015-03-31/../functions"} {
		if a := w.rawAnswer(t, get1(path)); a.status != 400 {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	w.lambda = nil
	w.do(t, "POST", helloPath, strings.NewReader("{}")).want(t, problem.NotFound)
}

func TestLambdaReadsOnlyWhatTheKeyMaySee(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	type list struct {
		NextMarker string
		Functions  []lambdaConfiguration
		Versions   []lambdaConfiguration
	}
	get := func(key accessKey, target string, into any) answer {
		a := w.ask(t, key, "GET", "/2015-03-31/functions/"+target, "")
		if a.status == 200 && json.Unmarshal([]byte(a.body), into) != nil {
			t.Errorf("%s: %s", target, a.text)
		}
		if strings.Contains(a.text, "planted") {
			t.Errorf("%s leaks: %s", target, a.text)
		}
		return a
	}
	names := func(l list) (s string) {
		for _, f := range l.Functions {
			s += f.FunctionName + " "
		}
		return s
	}
	var all, page, rest, few, none list
	get(w.looking, "", &all)
	get(w.looking, "?MaxItems=2", &page)
	get(w.looking, "?Marker="+page.NextMarker+"&MaxItems=2", &rest)
	get(w.hello, "", &few)
	get(w.newKey(t, "invoke:*/*"), "", &none)
	if names(all) != "hello orders shop_cart " || all.NextMarker != "" || names(page) != "hello orders " || names(rest) != "shop_cart " || rest.NextMarker != "" ||
		names(few) != "hello " || names(none) != "" || none.Functions == nil {
		t.Errorf("lists: %q, %q then %q, %q, %q", names(all), names(page), names(rest), names(few), names(none))
	}
	var one struct {
		Configuration lambdaConfiguration
		Tags          map[string]string
	}
	get(w.hello, "hello?Qualifier=live", &one)
	if c := one.Configuration; c.FunctionName != "hello" || c.FunctionArn != "arn:aws:lambda:us-east-1:000000000000:function:hello:live" || c.Runtime != "nodejs" ||
		c.Handler != "index.handler" || c.Timeout != 3 || c.MemorySize != 256 || c.CodeSize != 1234 || len(c.CodeSha256) != 44 || len(c.Version) != 64 ||
		c.LastModified != "2026-03-01T12:00:00.000+0000" || one.Tags == nil {
		t.Errorf("function: %+v", one)
	}
	var c lambdaConfiguration
	get(w.full, "shop_cart/configuration", &c)
	if c.FunctionName != "shop_cart" {
		t.Errorf("configuration: %+v", c)
	}
	// What an ARN of ours names can be asked for by it.
	get(w.full, strings.ReplaceAll(c.FunctionArn, ":", "%3A"), &one)
	if one.Configuration.FunctionName != "shop_cart" {
		t.Errorf("by its ARN: %+v", one)
	}
	var versions, more list
	get(w.full, "hello/versions?MaxItems=2", &versions)
	get(w.full, "hello/versions?Marker="+versions.NextMarker, &more)
	if len(versions.Versions) != 2 || len(more.Versions) != 1 || more.NextMarker != "" || more.Versions[0].Version == versions.Versions[1].Version {
		t.Errorf("versions: %+v, %+v", versions, more)
	}
	var alias struct {
		AliasArn, Name, FunctionVersion string
		RoutingConfig                   struct{ AdditionalVersionWeights map[string]float64 }
	}
	get(w.full, "hello/aliases/live", &alias)
	if alias.Name != "live" || alias.FunctionVersion != versions.Versions[0].Version || alias.RoutingConfig.AdditionalVersionWeights[versions.Versions[1].Version] != 0.1 {
		t.Errorf("alias: %+v", alias)
	}
	for _, what := range []string{"", "/configuration", "/versions", "/aliases/live"} {
		get(w.hello, "orders"+what, nil).wantAWS(t, 403, "AccessDeniedException")
		get(w.hello, "nothing"+what, nil).wantAWS(t, 403, "AccessDeniedException")
		get(w.full, "nothing"+what, nil).wantAWS(t, 404, "ResourceNotFoundException")
	}
	get(w.full, "hello/aliases/none", nil).wantAWS(t, 404, "ResourceNotFoundException")
	get(w.full, "?MaxItems=0", nil).wantAWS(t, 400, "InvalidParameterValueException")
	get(w.full, "?FunctionVersion=ALL", nil).wantAWS(t, 400, "InvalidParameterValueException")
	get(w.full, "hello/versions?Marker=gone", nil).wantAWS(t, 400, "InvalidParameterValueException")
}

// Whatever a name is read as, it is one function that can exist, and the name that
// we give it is read as that function again.
func FuzzLambdaName(f *testing.F) {
	for _, s := range []string{
		"hello", "hello:live", "shop_cart:$LATEST", "123456789012:function:hello", "arn:aws:lambda:us-east-1:123456789012:function:shop_cart:beta",
		"function:function:function", "default_x", "a_b_c", "arn:aws:lambda", "::", "hello:", "héllo",
	} {
		f.Add(s, "")
		f.Add(s, "live")
	}
	f.Fuzz(func(t *testing.T, text, qualifier string) {
		l := &lambdaRequest{query: url.Values{"Qualifier": {qualifier}}}
		ref, err := l.take(text)
		if err != nil {
			return
		}
		if !function.ValidName(ref.Namespace) || !function.ValidName(ref.Name) || strings.ContainsAny(l.qualifier, ":/%\n ") {
			t.Errorf("%q was read as %s %q", text, ref, l.qualifier)
		}
		again, err := (&lambdaRequest{query: url.Values{}}).take(function.ARN("us-east-1", ref))
		if err != nil || again != ref {
			t.Errorf("%s is called %s, which is read as %s: %v", ref, function.LambdaName(ref), again, err)
		}
	})
}
