package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"slices"
	"strconv"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

// lambdaPage is how many items one answer lists at the most, as in AWS.
const lambdaPage = 50

// lambdaConfiguration describes a version. The environment is left out: who may
// see a function is not who may see what it is configured with.
type lambdaConfiguration struct {
	FunctionName     string
	FunctionArn      string
	Runtime          string
	Handler          string `json:",omitempty"`
	CodeSize         int64
	CodeSha256       string // base64
	Timeout          int64  // seconds
	MemorySize       int64  // MB
	LastModified     string
	Version          string
	State            string
	LastUpdateStatus string
	PackageType      string
}

// readLambda answers the operations that only look.
func (g *Gateway) readLambda(x *exchange) (*lambdaAnswer, error) {
	switch l := x.lambda; l.op {
	case opListFunctions:
		return g.listFunctions(x)
	case opListVersions:
		return g.listVersions(x)
	case opGetAlias:
		return g.getAlias(x)
	default:
		v, _, err := g.lambda.Functions.Resolve(x.target.ref, l.qualifier, first)
		if err != nil {
			return nil, err
		}
		c := configurationOf(x, v, l.qualifier)
		if l.op == opGetConfiguration {
			return jsonAnswer(c)
		}
		return jsonAnswer(struct {
			Configuration *lambdaConfiguration
			Code          struct{ RepositoryType string }
			Tags          map[string]string
		}{c, struct{ RepositoryType string }{"Casemate"}, map[string]string{}})
	}
}

func configurationOf(x *exchange, v *function.Version, qualifier string) *lambdaConfiguration {
	sum, _ := hex.DecodeString(v.Artifact.Hex()) // a digest's digits are checked where it is made
	return &lambdaConfiguration{
		FunctionName: function.LambdaName(v.Ref), FunctionArn: lambdaARN(x, v.Ref, qualifier),
		Runtime: string(v.Config.Runtime), Handler: v.Config.Handler,
		CodeSize: v.Size, CodeSha256: base64.StdEncoding.EncodeToString(sum),
		Timeout:      int64(math.Ceil(v.Config.Limits.Timeout.Seconds())),
		MemorySize:   v.Config.Limits.Memory >> 20,
		LastModified: v.Created.UTC().Format("2006-01-02T15:04:05.000-0700"),
		Version:      v.ID.Hex(), State: "Active", LastUpdateStatus: "Successful", PackageType: "Zip",
	}
}

// lambdaARN names a function as the API does, in the region that the caller has
// signed for.
func lambdaARN(x *exchange, ref function.Ref, qualifier string) string {
	arn := function.ARN(x.lambda.signature.Region(), ref)
	if qualifier != "" {
		arn += ":" + qualifier
	}
	return arn
}

// pageSize reads MaxItems.
func (l *lambdaRequest) pageSize() (int, error) {
	text := l.query.Get("MaxItems")
	if text == "" {
		return lambdaPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10000 {
		return 0, problem.New(problem.BadRequest, "want a number from 1 to 10000").At("MaxItems")
	}
	return min(n, lambdaPage), nil
}

// listFunctions lists what the key may read, by name. The marker is the last name
// of the page before.
func (g *Gateway) listFunctions(x *exchange) (*lambdaAnswer, error) {
	size, err := x.lambda.pageSize()
	if err != nil {
		return nil, err
	}
	if x.lambda.query.Get("FunctionVersion") != "" {
		return nil, problem.New(problem.BadRequest, "listing all versions at once is not served; use ListVersionsByFunction").At("FunctionVersion")
	}
	refs := slices.DeleteFunc(slices.Clone(g.lambda.Functions.Refs()), func(ref function.Ref) bool {
		return !x.principal.May(identity.Read, ref) || function.LambdaName(ref) <= x.lambda.query.Get("Marker")
	})
	slices.SortFunc(refs, func(a, b function.Ref) int {
		if function.LambdaName(a) < function.LambdaName(b) {
			return -1
		}
		return 1
	})
	out := struct {
		NextMarker string `json:",omitempty"`
		Functions  []*lambdaConfiguration
	}{Functions: []*lambdaConfiguration{}}
	for i, ref := range refs {
		v, _, err := g.lambda.Functions.Resolve(ref, "", first)
		if err != nil {
			continue // without a live version it cannot be called either
		}
		out.Functions = append(out.Functions, configurationOf(x, v, ""))
		if len(out.Functions) == size {
			if i+1 < len(refs) {
				out.NextMarker = function.LambdaName(ref)
			}
			break
		}
	}
	return jsonAnswer(out)
}

// listVersions lists the newest first. The marker is the last version of the page
// before.
func (g *Gateway) listVersions(x *exchange) (*lambdaAnswer, error) {
	size, err := x.lambda.pageSize()
	if err != nil {
		return nil, err
	}
	vs, err := g.lambda.Functions.Versions(x.target.ref)
	if err != nil {
		return nil, err
	}
	if marker := x.lambda.query.Get("Marker"); marker != "" {
		at := slices.IndexFunc(vs, func(v *function.Version) bool { return v.ID.Hex() == marker })
		if at < 0 {
			return nil, problem.New(problem.BadRequest, "there is no such version any more; begin anew").At("Marker")
		}
		vs = vs[at+1:]
	}
	out := struct {
		NextMarker string `json:",omitempty"`
		Versions   []*lambdaConfiguration
	}{Versions: []*lambdaConfiguration{}}
	for i, v := range vs[:min(size, len(vs))] {
		out.Versions = append(out.Versions, configurationOf(x, v, v.ID.Hex()))
		if i+1 == size && size < len(vs) {
			out.NextMarker = v.ID.Hex()
		}
	}
	return jsonAnswer(out)
}

func (g *Gateway) getAlias(x *exchange) (*lambdaAnswer, error) {
	shares, err := g.lambda.Functions.Alias(x.target.ref, x.lambda.alias)
	if err != nil {
		return nil, err
	}
	if len(shares) == 0 {
		return nil, problem.New(problem.NotFound, "Cannot find alias arn: %s", lambdaARN(x, x.target.ref, loggable(x.lambda.alias)))
	}
	type routing struct {
		AdditionalVersionWeights map[string]float64
	}
	out := struct {
		AliasArn        string
		Name            string
		FunctionVersion string
		RoutingConfig   *routing `json:",omitempty"`
	}{lambdaARN(x, x.target.ref, x.lambda.alias), x.lambda.alias, shares[0].Version.Hex(), nil}
	if len(shares) > 1 {
		out.RoutingConfig = &routing{map[string]float64{}}
		for _, s := range shares[1:] {
			out.RoutingConfig.AdditionalVersionWeights[s.Version.Hex()] = float64(s.Percent) / 100
		}
	}
	return jsonAnswer(out)
}
